"""Two-dimensional and high-dimensional targets of the correctors' tests, with their truths."""

import torch
from torch import Tensor

from fklit.analytic import GaussianMixture


def forty() -> GaussianMixture:
    """The forty Gaussians of FAB (seed 0, means within 40, deviation softplus(2)), coordinates divided by 50."""
    means = (torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).double() - 0.5) * 2 * 40
    deviation = torch.nn.functional.softplus(torch.tensor(2.0, dtype=torch.float64))
    return GaussianMixture(means / 50, float(deviation / 50) ** 2)


def cubed(law: GaussianMixture, count: int, seed: int) -> Tensor:
    """Exact draws from an isotropic mixture of equal variances to the power 3: itself a mixture of M^3 Gaussians."""
    means, variance = law.means, float(law.tail_variance()[0])
    size = len(means)
    index = torch.cartesian_prod(*[torch.arange(size)] * 3)
    chosen = means[index]
    center = chosen.mean(dim=1)
    overlap = -(chosen.square().sum(dim=(1, 2)) - 3 * center.square().sum(dim=1)) / (2 * variance)
    logits = law.weights.log()[index].sum(dim=1) + overlap
    generator = torch.Generator().manual_seed(seed)
    picked = torch.multinomial(torch.softmax(logits, dim=0), count, replacement=True, generator=generator)
    noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return center[picked] + (variance / 3) ** 0.5 * noise


def assignment_w1(left: Tensor, right: Tensor) -> float:
    """W1 between two equally large sets of points, by exact assignment."""
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(left, right).numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


def mode_masses(x: Tensor, weights: Tensor, means: Tensor) -> Tensor:
    """Weight of the points nearest to each mean; x (N, d), weights (N,)."""
    nearest = torch.cdist(x, means).argmin(dim=1)
    return torch.zeros(len(means), dtype=torch.float64).scatter_add(0, nearest, weights)


def four_modes() -> GaussianMixture:
    """Four modes at (+-1.5, +-1.5) of unequal mass and deviation 0.4, for annealing to beta = 10."""
    means = [[1.5, 1.5], [1.5, -1.5], [-1.5, 1.5], [-1.5, -1.5]]
    return GaussianMixture(means, 0.16)


def two_modes(dim: int) -> GaussianMixture:
    """Two modes along the first of `dim` axes."""
    means = torch.zeros(2, dim, dtype=torch.float64)
    means[:, 0] = torch.tensor([-1.0, 1.0])
    return GaussianMixture(means, 0.25, [0.4, 0.6])


def from_score(prediction: str, score: Tensor, x: Tensor, *, scale: float, sigma: float) -> Tensor:
    """What an exact network of this parameterization predicts at `x = scale x_0 + sigma e`."""
    if prediction == "score":
        return score
    epsilon = -sigma * score
    denoised = (x - sigma * epsilon) / scale
    outputs = {"epsilon": epsilon, "x0": denoised, "v": scale * epsilon - sigma * denoised, "flow": epsilon - denoised}
    return outputs[prediction]

"""Mixtures of benchmarks: the forty Gaussians, and powers of mixtures, which are mixtures again."""

import itertools
import math
from collections import Counter

import torch

from fklit.analytic.gaussian import GaussianMixture


def forty_gaussians(*, scale: float = 50.0) -> GaussianMixture:
    """Return the forty Gaussians of FAB (Midgley et al. 2023, arXiv 2208.01893): equal weights, means in +-40.

    Args:
        scale: what lengths are divided by; 50 in arXiv 2503.02819, section 5.2.
    """
    generator = torch.Generator().manual_seed(0)
    means = (torch.rand(40, 2, generator=generator).double() - 0.5) * 80
    deviation = math.log1p(math.exp(2.0))  # softplus(2)
    return GaussianMixture(means / scale, (deviation / scale) ** 2)


def power(mixture: GaussianMixture, exponent: int, *, min_weight: float = 1e-12) -> GaussianMixture:
    """Return the normalized law `mixture^exponent`, exactly, for components that share one isotropic variance.

    Args:
        mixture: M components.
        exponent: a whole number n of at least 1; there are (M + n - 1 choose n) components before pruning.
        min_weight: components of less weight are omitted.

    Raises:
        ValueError: for other covariances or exponents.
    """
    variance = float(mixture.tail_variance()[0])
    if exponent < 1 or int(exponent) != exponent:
        raise ValueError(f"expected an integer of at least 1, got exponent={exponent}; other powers are no mixtures.")
    within = mixture.moments()[1] - _between_variance(mixture)
    if not torch.allclose(within, torch.full_like(within, variance), rtol=1e-9):
        raise ValueError("expected one isotropic variance, got components of different variances; use equal ones.")
    choices = list(itertools.combinations_with_replacement(range(len(mixture.weights)), int(exponent)))
    points = mixture.means[torch.tensor(choices)]  # (P, n, d)
    centers = points.mean(dim=1)
    orders = [math.lgamma(exponent + 1) - sum(math.lgamma(n + 1) for n in Counter(c).values()) for c in choices]
    logs = torch.tensor(orders, dtype=torch.float64) + mixture.weights.log()[torch.tensor(choices)].sum(dim=1)
    logs = logs - (points - centers.unsqueeze(1)).square().sum(dim=(1, 2)) / (2 * variance)
    weights = torch.softmax(logs, dim=0)
    kept = weights > min_weight
    return GaussianMixture(centers[kept], variance / exponent, weights[kept])


def _between_variance(mixture: GaussianMixture) -> torch.Tensor:
    mean = mixture.weights @ mixture.means
    return mixture.weights @ (mixture.means - mean).square()

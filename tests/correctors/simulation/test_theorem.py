"""The one theorem: the weighted Fokker-Planck equation holds pointwise for every target, path and zeta."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from fklit.analytic import GaussianMixture
from fklit.correctors import (
    LinearFlow,
    LinearSigma,
    NoisePath,
    Ramp,
    Target,
    VarianceExploding,
    VariancePreserving,
)
from fklit.correctors.simulation.rate import dispersion_rate, rate
from fklit.correctors.targets.dispersion import inner
from fklit.correctors.targets.evaluation import Evaluation

PATHS = [VariancePreserving(), VarianceExploding(0.05, 8.0), LinearFlow(), LinearSigma(0.1, 8.0)]
LAWS = {
    1: [
        GaussianMixture([[-1.5], [1.2]], [0.15, 0.30], [0.35, 0.65]),
        GaussianMixture([[-1.2], [1.6]], [0.25, 0.20], [0.7, 0.3]),
        GaussianMixture([[0.4]], 1.0),
    ],
    2: [
        GaussianMixture([[-1.0, 0.5], [1.0, -0.3]], [[[0.4, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.6]]]),
        GaussianMixture([[0.0, 1.0], [0.5, -1.0]], [0.5, 0.7], [0.4, 0.6]),
        GaussianMixture([[0.2, -0.1]], 1.3),
    ],
}


def reward(x: Tensor) -> Tensor:
    return (-0.3 * x.square() + 0.5 * torch.sin(1.3 * x)).sum(dim=-1)


def timed(x: Tensor, t: float) -> Tensor:
    return reward(x) * math.cos(t)


TARGETS: dict[str, Callable[..., Target]] = {
    "annealing 2.5": lambda a, b, c: Target.annealed(a, 2.5),
    "annealing 0.4": lambda a, b, c: Target.annealed(a, 0.4),
    "guidance 1.7": lambda a, b, c: Target.guided(b, a, 1.7),
    "average 0.3": lambda a, b, c: Target.geometric_average([a, b], [0.7, 0.3]),
    "product": lambda a, b, c: Target.product([a, b]),
    "product squared": lambda a, b, c: Target.annealed(Target.product([a, b]), 2.0),
    "three": lambda a, b, c: Target.product([a, b, c], [1.2, 0.5, -0.6]),
    "ramp": lambda a, b, c: Target.annealed(a, Ramp(1.0, 2.0)),
    "reward": lambda a, b, c: Target.tilted(a, reward, Ramp(0.0, 1.0)),
    "timed reward": lambda a, b, c: Target.tilted(a, timed, Ramp(0.0, 1.0), time_dependent=True),
    "everything": lambda a, b, c: Target.tilted(
        Target.product([a, b, c], [Ramp(1.0, 2.0), -0.5, 0.3]), reward, Ramp(0.2, 1.0)
    ),
}


def log_gamma_derivatives(target: Target, x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient and Laplacian of log gamma by autograd, and its derivative in t by central differences."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(target.log_gamma(leaf, t).sum(), leaf, create_graph=True)
        laplacian = torch.zeros(x.shape[:2], dtype=torch.float64)
        for axis in range(x.shape[-1]):
            (second,) = torch.autograd.grad(gradient[..., axis].sum(), leaf, retain_graph=True)
            laplacian = laplacian + second[..., axis]
    h = 1e-5
    rise = (8 * (target.log_gamma(x, t + h) - target.log_gamma(x, t - h))) - (
        target.log_gamma(x, t + 2 * h) - target.log_gamma(x, t - 2 * h)
    )
    return gradient.detach(), laplacian, rise / (12 * h)


def residual(target: Target, dim: int, t: float, zeta: float, scale: float = 1.0) -> float:
    """Largest violation of `-d log gamma / dt = -div u - <u, S> + g^2 zeta^2 / 2 (Delta log gamma + S^2) + w`.

    The drift and the weight come from one small interval of the library, divided by its length; div u of the score is
    the Laplacian, which the weight itself never sees.
    """
    path: NoisePath = target.path
    x = 2.0 * torch.randn(1, 100, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = target.evaluate(x, t, log_densities=True)
    h = 1e-6
    interval = path.interval(t + h / 2, t - h / 2)
    weight = scale * rate(target, before, interval) / h
    gradient, laplacian, rise = log_gamma_derivatives(target, x, t)
    torch.testing.assert_close(gradient, before.total_score, rtol=1e-9, atol=1e-9)
    c, g2 = path.drift(t), path.diffusion(t)
    u = -c * x + 0.5 * g2 * before.score + 0.5 * zeta**2 * g2 * before.total_score
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        fresh = target.evaluate(leaf, t, tilt=False).score
        div_q = torch.zeros(x.shape[:2], dtype=torch.float64)
        for axis in range(dim):
            (part,) = torch.autograd.grad(fresh[..., axis].sum(), leaf, retain_graph=True)
            div_q = div_q + part[..., axis]
    divergence = -c * dim + 0.5 * g2 * div_q + 0.5 * zeta**2 * g2 * laplacian
    diffusion = 0.5 * zeta**2 * g2 * (laplacian + inner(gradient, gradient))
    right = -divergence - inner(u, gradient) + diffusion + weight
    return float((-rise - right).abs().max() / weight.abs().max())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_the_equation_holds(name, path):
    for dim, t, zeta in product((1, 2), (0.15, 0.5, 0.85), (0.0, 0.5, 1.0, 1.4)):
        target = TARGETS[name](*(law.on(path) for law in LAWS[dim]))
        assert residual(target, dim, t, zeta) < 1e-4, (dim, t, zeta)


def test_a_wrong_weight_is_seen():
    target = TARGETS["three"](*(law.on(PATHS[0]) for law in LAWS[2]))
    assert residual(target, 2, 0.5, 1.0, scale=-1.0) > 1e-2
    assert residual(target, 2, 0.5, 1.0, scale=1.05) > 1e-2


def test_the_propositions_of_the_paper_are_special_cases():
    generator = torch.Generator().manual_seed(1)
    x, s1, s2 = (torch.randn(3, 50, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    path, t = VariancePreserving(), 0.4
    interval = path.interval(t, t - 0.01)
    dim, half, div_f = 4, 0.5 * interval.noise, -4 * interval.growth

    def weight(exponents: tuple[float, ...], *scores: Tensor) -> Tensor:
        combined = sum(e * s for e, s in zip(exponents, scores, strict=True))
        return dispersion_rate(Evaluation(x, t, exponents, scores, combined), interval)

    def close(found: Tensor, wanted: Tensor) -> None:
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)

    assert dim * interval.growth == -div_f
    for beta in (0.3, 2.5):
        close(weight((1 - beta, beta), s1, s2), half * beta * (beta - 1) * inner(s1 - s2, s1 - s2))  # 3.1
        close(weight((beta,), s1), (beta - 1) * (div_f + half * beta * inner(s1, s1)))  # 3.2
        both = s1 + s2
        product_weight = (
            half * beta * (beta - 1) * inner(both, both) + 2 * half * beta * inner(s1, s2) + (2 * beta - 1) * div_f
        )
        close(weight((beta, beta), s1, s2), product_weight)  # 3.3
    total = 1.2 * s1 - 0.5 * s2
    general = -0.3 * div_f + half * (inner(total, total) - 1.2 * inner(s1, s1) + 0.5 * inner(s2, s2))
    close(weight((1.2, -0.5), s1, s2), general)  # D.5


def test_the_reward_of_proposition_3_4_enters_the_drift_by_half():
    path = VariancePreserving()
    expert = LAWS[1][0].on(path)
    target = Target.tilted(expert, reward, Ramp(0.0, 2.0))
    x = torch.randn(1, 20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    interval = path.interval(0.5, 0.49)
    before = target.evaluate(x, 0.5)
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(reward(leaf).sum(), leaf)
    beta, change = 1.0, 0.02
    drift = 0.5 * interval.noise * expert.score(x, 0.5) + interval.growth * x
    torch.testing.assert_close(
        rate(target, before, interval), change * reward(x) + beta * inner(gradient, drift), rtol=1e-10, atol=1e-12
    )


def test_a_drift_control_is_paid_back():
    """`div c + <c, S>` for a linear control, so that the equation holds with it, too."""
    from fklit.correctors import GaussianControl

    for path, dim in product(PATHS, (1, 2)):
        experts = [law.on(path) for law in LAWS[dim]]
        target = Target.product(experts, [1.2, 0.5, -0.3])
        x = torch.randn(1, 30, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        before = target.evaluate(x, 0.5)
        interval = path.interval(0.5, 0.48)
        zeros = torch.zeros(1, 30, dtype=torch.float64)
        shift, weight = GaussianControl().shift(target, before, interval, zeros, zeros)
        slope = (shift[0, 1] - shift[0, 0]) / (x[0, 1] - x[0, 0])
        wanted = slope.sum() + inner(shift, before.score)
        torch.testing.assert_close(weight, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_gaussian_experts_have_constant_weights_under_the_closed_control():
    from fklit.analytic import GaussianMixture
    from fklit.correctors import EulerMaruyama, GaussianControl, simulate

    path = VariancePreserving()
    experts = [
        GaussianMixture.single([1.0, -0.5], [0.4, 2.0]).on(path),
        GaussianMixture.single([0.0, 0.7], [1.5, 0.3]).on(path),
    ]
    target = Target.product(experts, [1.5, 0.8])
    settings = {"num_particles": 200, "num_steps": 400, "dtype": torch.float64, "ess_threshold": 0.0}
    for zeta in (0.0, 1.0):
        controlled = simulate(target, control=GaussianControl(), proposal=EulerMaruyama(zeta), **settings)
        assert controlled.log_weights.std() < 0.05
    assert simulate(target, **settings).log_weights.std() > 1.0

"""The one-dimensional mixtures of the ground truth, and distances of weighted samples to a density on a grid."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fklit.analytic import GaussianMixture, NoisedMixture
from fklit.correctors import NoisePath, SimulationResult, Target, VariancePreserving

FIRST = GaussianMixture([[-1.5], [1.2]], [0.15, 0.30], [0.35, 0.65])
SECOND = GaussianMixture([[-1.2], [1.6]], [0.25, 0.20], [0.7, 0.3])
THIRD = GaussianMixture([[0.4]], 1.0)
GRID = torch.linspace(-8, 8, 16001, dtype=torch.float64)
SPACING = float(GRID[1] - GRID[0])


def experts(path: NoisePath | None = None) -> tuple[NoisedMixture, NoisedMixture, NoisedMixture]:
    path = VariancePreserving() if path is None else path
    return FIRST.on(path), SECOND.on(path), THIRD.on(path)


@dataclass(frozen=True)
class Truth:
    """A target's law at its last time, by quadrature on `GRID`."""

    mass: Tensor
    mean: float
    variance: float
    log_z: float


def truth(target: Target, t: float = 0.0) -> Truth:
    log_gamma = target.log_gamma(GRID[None, :, None], t)[0]
    peak = log_gamma.max()
    weights = (log_gamma - peak).exp()
    mass = weights / weights.sum()
    mean = float((mass * GRID).sum())
    variance = float((mass * (GRID - mean).square()).sum())
    return Truth(mass, mean, variance, float(peak) + math.log(float(weights.sum()) * SPACING))


@dataclass(frozen=True)
class Errors:
    """Of the groups of a run: distances (B,), and root mean squares over the groups."""

    w1: Tensor
    ks: Tensor
    mean: float
    variance: float
    log_z: Tensor
    variance_bias: float


def errors(run: SimulationResult, exact: Truth) -> Errors:
    x = run.samples[..., 0].double()
    weights = torch.softmax(run.log_weights, dim=1)
    mean = (weights * x).sum(dim=1)
    variance = (weights * (x - mean.unsqueeze(1)).square()).sum(dim=1)
    wanted = exact.mass.cumsum(0)
    gaps = []
    for points, each in zip(x, weights, strict=True):
        order = points.argsort()
        steps = torch.cat([torch.zeros(1, dtype=torch.float64), each[order].cumsum(0)])
        gaps.append((steps[torch.searchsorted(points[order].contiguous(), GRID, right=True)] - wanted).abs())
    gap = torch.stack(gaps)
    return Errors(
        w1=gap.sum(dim=1) * SPACING,
        ks=gap.amax(dim=1),
        mean=float((mean - exact.mean).square().mean().sqrt()),
        variance=float((variance - exact.variance).square().mean().sqrt()),
        log_z=run.log_z - exact.log_z,
        variance_bias=float((variance - exact.variance).mean()),
    )

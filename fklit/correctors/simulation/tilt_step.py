"""One step of a tilted target, stable wherever the tilt is stiff: transport of the untilted law, then Langevin.

Euler's step of a tilt with curvature k (the largest eigenvalue of minus its Hessian) is unstable where
`zeta^2 g^2 h k / 2` is above 2, which the noise end of variance-exploding paths reaches with any tilt. Every zeta
leaves the target invariant (arXiv 2503.02819, proposition 3.4; its noise is that of a Langevin kernel of the target),
so zeta is lowered, for one step and one group, to what the tilt bears. The split makes the weight of the tilt exact for
the transport: it is the difference of the tilt at both ends and no longer its derivative at one.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.simulation.proposal import Move
from fklit.correctors.targets.dispersion import inner
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import Tilt
from fklit.feynman_kac.randomness import Generators, normals

LARGEST_STEP = 0.25
"""Bound on `zeta^2 g^2 h k / 2`: Heun's Langevin step then has the variance of a Gaussian tilt within 2 %."""

_TRIALS = 6  # of a bound that a curvature, which changes along the step, has to meet


class StiffTiltError(ValueError):
    """A tilt so curved that a step of this length is unstable, where the proposal or the weight leaves no remedy."""


def split_step(
    target: Target,
    before: Evaluation,
    interval: Interval,
    denoising_interval: Interval,
    zeta: float,
    shift: Tensor | None,
    generator: Generators,
) -> Move:
    """Return a step of a target with a tilt that has a gradient; costs three gradients of the tilt, no expert.

    Args:
        target: the target; its tilt is a `Tilt`.
        before: the target at the samples.
        interval: the step.
        denoising_interval: the same, for the record.
        zeta: noise of the Langevin kernel, at least 0; lowered in groups where the tilt is stiff.
        shift: displacement of a drift control, or None.
        generator: for the noise.

    Returns:
        The move, with `tilt_weight` and, where zeta was lowered, `limited`.
    """
    tilt, x, path = target.tilt, before.x, target.path
    assert isinstance(tilt, Tilt) and before.tilt is not None
    sigma, end = path.sigma(interval.t), path.sigma(interval.s)
    growth = math.exp(interval.growth)
    # The flow of the untilted law with the denoised prediction held fixed (DDIM's step): exact for pure noise.
    start = growth * x + (growth * sigma**2 - sigma * end) * before.score
    # The flow carries gamma_t to gamma_s but for the tilt, whose change along it is the weight.
    reward, gradient = tilt.reward_and_gradient(start, interval.s)
    weight = tilt.scaled(reward, interval.s).double() - before.tilt.double()
    if shift is not None:  # weighs for itself
        start = start + shift
        gradient = tilt.reward_and_gradient(start, interval.s)[1]
    if zeta == 0:
        return Move(before, interval, start, denoising_interval, tilt_weight=weight)
    noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
    # zeta^2, one number a group, and half of zeta^2 g^2 h: the length of the Langevin step.
    squared = torch.full((x.shape[0],), zeta**2, dtype=torch.float64, device=x.device)
    for _ in range(_TRIALS):
        time = (0.5 * interval.noise * squared).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        moved = start + time * (before.score + gradient) + (2 * time).sqrt() * noise
        second = tilt.reward_and_gradient(moved, interval.s)[1]
        bound = LARGEST_STEP / (0.5 * interval.noise * curvature(start, gradient, moved, second)).clamp(min=1e-300)
        if bool((squared <= bound * (1 + 1e-6)).all()):
            break
        squared = torch.minimum(squared, bound)
    # Heun's correction of the tilt's drift.
    new = moved + 0.5 * time * (second - gradient)
    return Move(before, interval, new, denoising_interval, tilt_weight=weight, limited=squared < zeta**2 * (1 - 1e-6))


def curvature(x: Tensor, gradient: Tensor, moved: Tensor, second: Tensor) -> Float64[Tensor, " B"]:
    """Return the curvature of a tilt along a step, one number of at least 0 a group, from gradients at both ends.

    It is `|dg|^2 / |<dg, dx>|` (Barzilai and Borwein 1988), which is the largest eigenvalue where one direction is
    curved and the others are flat. Both sums run over the group, so that the particles that move most decide.
    """
    change = second - gradient
    # What is not finite is as stiff as can be.
    along = inner(change, moved - x).abs().sum(dim=1)
    total = inner(change, change).sum(dim=1)
    found = torch.where(total == 0, torch.zeros_like(total), total / along.clamp(min=1e-300))
    return torch.nan_to_num(found, nan=1e300, posinf=1e300)


def refuse_stiff(
    target: Target, before: Evaluation, interval: Interval, plain: Tensor, moved: Tensor, *, variance: float, way: str
) -> None:
    """Raise a `StiffTiltError` where a kernel that adds `variance` times the tilt's gradient overshoots.

    Args:
        target: the target.
        before: the target at the samples.
        interval: the step.
        plain: where the step leads without the tilt, of the shape of x.
        moved: where it leads with the tilt.
        variance: of the kernel, times the share of the gradient that it adds.
        way: what to do instead.
    """
    tilt = target.tilt
    if not isinstance(tilt, Tilt) or variance == 0:
        return
    assert before.tilt_gradient is not None
    first, second = (tilt.reward_and_gradient(point, interval.s)[1] for point in (plain, moved))
    stiffness = float((variance * curvature(plain, first, moved, second)).max())
    if stiffness > 1.5:
        raise StiffTiltError(
            f"expected a tilt of curvature below {1.5 / variance:.3g} for the step from t={interval.t:g} to "
            f"{interval.s:g}, got {stiffness / variance:.3g}, with which the step overshoots; {way}."
        )

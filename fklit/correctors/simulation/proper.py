"""Whether a target is a law at all: decided before a run where it can be, and watched during it where it cannot."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import Tilt

_RAYS = 64  # at most, besides the axes of the first coordinates
_NEAR, _FAR = 1e3, 1e4  # standard deviations; a proper target falls between the two
_FARTHEST = 20.0  # standard deviations from every expert beyond which all particles are not in its support
_FARTHEST_UNKNOWN = (
    1000.0  # the same for experts without moments, in units of the path's own noise and data of unit size
)


class ImproperTargetError(ValueError):
    """The target has no finite integral: its tails grow."""


class ImproperTargetWarning(UserWarning):
    """All mass left the support of every expert, as it does where a target has no finite integral."""


def check_proper(target: Target, times: Sequence[float], event_shape: Sequence[int] | None = None) -> None:
    """Raise if the target has no finite integral at one of these times, where that can be decided.

    Without a tilt it is decided coordinate by coordinate for experts with a known variance of their tails (or moments,
    as if they were Gaussian); the noise end of every target by the sum of its exponents, which all experts share there.
    A tilt may bound what the experts do not, and may outgrow them: with exact log densities the target is followed far
    out along rays, where it has to fall.

    Args:
        target: what to sample.
        times: falling times.
        event_shape: shape of one sample; the experts' if None.

    Raises:
        ImproperTargetError: if the exponents sum to zero or less at the noise end, the precisions of the tails do, or
            the density grows along a ray.
    """
    if target.tilt is not None:
        _check_rays(target, times[-1], event_shape)
        return
    _check_noise_end(target, times[0])
    tails = []
    for expert in target.experts:
        known = getattr(expert, "tail_variance", None)
        moments = getattr(expert, "moments", None)
        if known is None and moments is None:
            return
        found: Any = known() if known is not None else moments()[1]  # type: ignore[misc]
        tails.append(torch.as_tensor(found, dtype=torch.float64))
    for t in times:
        scale, sigma = target.path.scale(t), target.path.sigma(t)
        exponents = target.exponents(t)
        terms = [exponent / (scale**2 * tail + sigma**2) for exponent, tail in zip(exponents, tails, strict=True)]
        precision = sum(terms, torch.zeros(())).flatten()
        worst = int(precision.argmin())
        if float(precision[worst]) <= 1e-9 * max(float(term.abs().max()) for term in terms):
            raise ImproperTargetError(
                f"expected tails of positive precision, but the target with exponents "
                f"{tuple(round(e, 6) for e in exponents)} has no finite integral at t={t:g}: the precisions of its "
                f"tails sum to {float(precision[worst]):.3g} in coordinate {worst}; bring the negative exponents "
                "closer to 0."
            )


def _check_noise_end(target: Target, t: float) -> None:
    total = sum(target.exponents(t))
    if total <= 1e-9:
        raise ImproperTargetError(
            f"expected exponents of positive sum at the noise end, but they sum to {total:g} at the noise end "
            f"(t={t:g}), where the target is then no law; let them sum to a positive number there, for example with "
            "Ramp(...) exponents."
        )


def _check_rays(target: Target, t: float, event_shape: Sequence[int] | None) -> None:
    """Raise if the target's log density rises between `_NEAR` and `_FAR` standard deviations along a ray."""
    shape = target.event_shape if event_shape is None else tuple(event_shape)
    if not isinstance(target.tilt, Tilt) or not (target.has_log_densities and target.has_moments) or shape is None:
        return
    found: list[tuple[Tensor, Tensor]] = [expert.moments() for expert in target.experts]  # type: ignore[attr-defined]
    mean = torch.stack([m.double() for m, _ in found]).mean(dim=0).flatten()
    deviation = torch.stack([v.double() for _, v in found]).amax(dim=0).sqrt().flatten()
    dim = mean.numel()
    axes = torch.eye(dim, dtype=torch.float64)[:_RAYS]
    others = torch.randn(_RAYS, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rays = torch.cat([axes, -axes, others / others.norm(dim=1, keepdim=True)])
    near, far = (
        target.log_gamma((mean + size * deviation * rays).reshape(1, -1, *shape), t)[0].detach()
        for size in (_NEAR, _FAR)
    )
    rises = (far > near) & near.isfinite() & ~far.isnan()
    if bool(rises.any()):
        ray = rays[int(rises.int().argmax())]
        raise ImproperTargetError(
            f"expected a target that falls far from its experts, got one whose log density rises from "
            f"{float(near[rises][0]):.3g} at {_NEAR:g} standard deviations to {float(far[rises][0]):.3g} at {_FAR:g} "
            f"along coordinate {int(ray.abs().argmax())}: the tilt outgrows the experts and the target has no finite "
            "integral; bound the reward, or lower its scale."
        )


def distance_from_experts(target: Target, x: Tensor, t: float, weights: Float64[Tensor, "B K"]) -> Tensor:
    """Return how far each group is from the nearest expert at time t, in the units of `_FARTHEST`, (B,) float64.

    Args:
        target: the target.
        x: (B, K, *event).
        t: the time.
        weights: of the particles, that sum to 1 over K.
    """
    path = target.path
    scale, sigma = path.scale(t), path.sigma(t)
    nearest: Tensor | None = None
    for expert in target.experts:
        moments = getattr(expert, "moments", None)
        mean, variance = (0.0, 1.0) if moments is None else (part.to(x.device, x.dtype) for part in moments())
        squares = ((x - scale * mean).square() / (scale**2 * variance + sigma**2)).flatten(2).mean(dim=2)
        if moments is None:
            squares = squares * (_FARTHEST / _FARTHEST_UNKNOWN) ** 2
        nearest = squares if nearest is None else torch.minimum(nearest, squares)
    assert nearest is not None
    # What is not finite is dropped by another rule, or raises.
    living = weights.to(x.device) * nearest.isfinite()
    squares = (living * torch.where(living > 0, nearest.double(), 0.0)).sum(dim=1) / living.sum(dim=1).clamp(min=1e-300)
    return squares.sqrt().cpu()


def warn_of_escape(farthest: Float64[Tensor, " B"], *, stacklevel: int) -> None:
    """Warn if the particles of a group were far from every expert.

    Args:
        farthest: of each group the largest `distance_from_experts` of its run.
        stacklevel: see `warnings.warn`.
    """
    away = farthest > _FARTHEST
    if bool(away.any()):
        warnings.warn(
            f"all particles of {int(away.sum())} of {len(away)} groups left the support of every expert (by "
            f"{float(farthest.max()):.3g} standard deviations): expect the target to have no finite integral, so that "
            "log_z and the weights mean nothing; bring negative exponents closer to 0, or bound the reward.",
            ImproperTargetWarning,
            stacklevel=stacklevel,
        )

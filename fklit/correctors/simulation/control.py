"""Drift controls: an extra drift c, corrected by `div c + <c, S>` in the weight, that makes the weights vary less.

Both are linear in each coordinate, `c = theta_1 x + theta_0`, so that the divergence is a sum and no model is called.
Any theta leaves the target exact; a good one makes the weights nearly constant. Far from Gaussian (many modes and a
large exponent) no linear drift helps: use a late ramp there.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_fraction, check_non_negative
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.weights import normalize


class Control(ABC):
    """A rule for the extra drift of a step."""

    def check(self, target: Target) -> None:  # noqa: B027 (most have nothing to refuse)
        """Raise if the control does not fit the target."""

    @abstractmethod
    def coefficients(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        increment: Float64[Tensor, "B K"],
        log_weights: Float64[Tensor, "B K"],
    ) -> tuple[Tensor, Tensor]:
        """Return `theta_1` and `theta_0` of the displacement over the interval, each broadcasting to (B, 1, d).

        Args:
            target: the target.
            before: the target at the samples.
            interval: the step's net interval.
            increment: the log weight of the step without control, (B, K).
            log_weights: carried log weights, (B, K).
        """

    def shift(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        increment: Float64[Tensor, "B K"],
        log_weights: Float64[Tensor, "B K"],
    ) -> tuple[Tensor, Float64[Tensor, "B K"]]:
        """Return the displacement, of the shape of x, and what it adds to the log weight, (B, K)."""
        slope, offset = self.coefficients(target, before, interval, increment, log_weights)
        x = before.x.flatten(2)
        score = before.total_score.flatten(2)
        moved = slope.to(x.dtype) * x + offset.to(x.dtype)
        weight = (moved * score).sum(dim=2, dtype=torch.float64) + slope.expand(*x.shape[:1], 1, x.shape[2]).sum(dim=2)
        return moved.reshape(before.x.shape), weight


class FittedControl(Control):
    """The linear drift that explains the step's log weights best, by weighted least squares over the particles.

    The features are `1 + x_j S_j` and `S_j` of each coordinate j, what a slope and an offset there would add to the
    weight. Cost O(K d^2) a step, no model calls. Theta is estimated on the particles that it moves: a bias of O(1/K).

    Args:
        ridge: penalty relative to the features' own variance, at least 0.
        pool_groups: whether all groups, which must then share one target, are fitted together. Needed for groups of few
            particles; a group's result then depends on the other groups.
        strength: factor on theta, in [0, 1].
        isotropic: whether all coordinates share one slope and there is no offset: one feature, `d + <x, S>`. For laws
            that do not change when coordinates turn or permute, such as clusters, whose separate slopes fit noise.

    References:
        Ren et al. 2025, arXiv 2509.21655 (DriftLite), whose variance-controlling guidance has Laplacians in general.
    """

    def __init__(
        self, *, ridge: float = 1e-3, pool_groups: bool = False, strength: float = 1.0, isotropic: bool = False
    ) -> None:
        self.ridge = check_non_negative("ridge", ridge)
        self.pool_groups = pool_groups
        self.strength = check_fraction("strength", strength)
        self.isotropic = isotropic

    def coefficients(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        increment: Float64[Tensor, "B K"],
        log_weights: Float64[Tensor, "B K"],
    ) -> tuple[Tensor, Tensor]:
        """Return the fit."""
        x = before.x.flatten(2).to(torch.float64)
        score = before.total_score.flatten(2).to(torch.float64)
        slopes = 1 + x * score
        features = slopes.sum(dim=2, keepdim=True) if self.isotropic else torch.cat([slopes, score], dim=2)
        weights = normalize(log_weights).to(x.device)
        values = increment.to(x.device)
        groups, _, dim = x.shape
        if self.pool_groups:
            features, values = features.flatten(0, 1).unsqueeze(0), values.flatten().unsqueeze(0)
            weights = weights.flatten().unsqueeze(0) / groups
        living = weights > 0  # a dead particle may hold NaN, which must not enter
        features = torch.where(living.unsqueeze(2), features, 0.0)
        values = torch.where(living, values, 0.0)
        mean = (weights.unsqueeze(1) @ features).squeeze(1)
        centered = features - mean.unsqueeze(1)
        residual = values - (weights * values).sum(dim=1, keepdim=True)
        weighted = centered * weights.unsqueeze(2)
        gram = weighted.transpose(1, 2) @ centered
        right = (weighted * residual.unsqueeze(2)).sum(dim=1)
        diagonal = gram.diagonal(dim1=1, dim2=2)
        # A feature that does not vary gets no coefficient; the floor keeps the system solvable.
        floor = diagonal.amax(dim=1, keepdim=True) * 1e-12 + 1e-300
        scale = (diagonal + floor).sqrt()
        normal = gram / (scale.unsqueeze(1) * scale.unsqueeze(2))
        eye = torch.eye(normal.shape[1], dtype=normal.dtype, device=normal.device)
        theta = -torch.linalg.solve(normal + (self.ridge + 1e-9) * eye, right / scale) / scale
        theta = self.strength * theta.unsqueeze(1)
        if self.isotropic:
            return theta.expand(groups, 1, dim), torch.zeros_like(theta).expand(groups, 1, dim)
        return theta[..., :dim].expand(groups, 1, dim), theta[..., dim:].expand(groups, 1, dim)


class GaussianControl(Control):
    """The drift that makes the weights constant if every expert is Gaussian, from the moments of the experts' data.

    It is the exact transport of the Gaussian target minus the drift that the sampler has. For one expert it is
    `(beta - 1) g^2 / (2 V_t) (x - m_t)`. It needs no fit and does not depend on the particles, so that groups of any
    size, also of one particle, use it.
    """

    def check(self, target: Target) -> None:
        """Refuse experts without moments."""
        if not target.has_moments:
            raise ValueError(
                "GaussianControl() needs mean and variance of every expert's data, but an expert has no moments(); "
                "pass ScoreModel(..., moments=(mean, variance)), or use FittedControl()."
            )

    def coefficients(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        increment: Float64[Tensor, "B K"],
        log_weights: Float64[Tensor, "B K"],
    ) -> tuple[Tensor, Tensor]:
        """Return the closed form."""
        old_precision, old_mean = gaussian_target(target, interval.t)
        new_precision, new_mean = gaussian_target(target, interval.s)
        if bool((old_precision <= 0).any()) or bool((new_precision <= 0).any()):
            raise ValueError(
                f"expected a Gaussian surrogate of positive precision, got none at t={interval.t:g}; use "
                "FittedControl()."
            )
        device = before.x.device
        # Transport of N(old mean, 1 / old precision) to the new one: stretch (x - old mean) + new mean - old mean.
        stretch = 0.5 * (old_precision.log() - new_precision.log())
        slope = stretch - interval.growth + 0.5 * interval.noise * old_precision
        offset = new_mean - old_mean - stretch * old_mean - 0.5 * interval.noise * old_precision * old_mean
        return slope.flatten().to(device)[None, None], offset.flatten().to(device)[None, None]


def gaussian_target(target: Target, t: float) -> tuple[Tensor, Tensor]:
    """Return precision and mean of each coordinate of the target at time t, if its experts were Gaussian; float64.

    The precision may be negative or 0; the mean means nothing then.
    """
    scale, sigma = target.path.scale(t), target.path.sigma(t)
    precision: Tensor | float = 0.0
    pull: Tensor | float = 0.0
    for expert, exponent in zip(target.experts, target.exponents(t), strict=True):
        moments = getattr(expert, "moments", None)
        assert moments is not None
        mean, variance = (torch.as_tensor(part, dtype=torch.float64) for part in moments())
        weight = exponent / (scale**2 * variance + sigma**2)
        precision = precision + weight
        pull = pull + weight * scale * mean
    assert isinstance(precision, Tensor) and isinstance(pull, Tensor)
    return precision, pull / precision

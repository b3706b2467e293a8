"""Euler-Maruyama steps of the target's reverse process."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fklit.checks import check_choice, check_non_negative
from fklit.correctors.simulation.proposal import Move, Proposal, ProposalError
from fklit.correctors.simulation.tilt_step import refuse_stiff, split_step
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import Generators, normals

_SMALLER = "take more steps, lower zeta, or leave split=True with Rate()"

Zeta = float | Callable[[float], float] | Literal["target_score", "tempered_noise", "ode"]


@dataclass(frozen=True)
class EulerMaruyama(Proposal):
    """The reverse process of the target with any amount of noise.

    Attributes:
        zeta: a number of at least 0, a function of the time, or a name: "target_score" (1), "ode" (0), or
            "tempered_noise" (`1 / sqrt(beta)`, for targets all of whose exponents are the same beta). At beta above 1
            tempered noise drops modes that no weight brings back; at zeta 0 clones of a particle never separate.
        split: whether the step of a target with a tilt is split (`tilt_step`), which keeps it stable and its weight
            accurate for two more gradients of the tilt; False draws from one Gaussian kernel, as `ExactRatio` needs,
            and refuses stiff tilts.
    """

    zeta: Zeta = "target_score"
    split: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.zeta, str):
            check_choice("zeta", self.zeta, ("target_score", "tempered_noise", "ode"))
        elif not callable(self.zeta):
            object.__setattr__(self, "zeta", check_non_negative("zeta", self.zeta))

    @property
    def has_kernel(self) -> bool:  # type: ignore[override]
        """Whether there is noise."""
        return self.zeta != "ode" and self.zeta != 0

    def noise_level(self, target: Target, t: float) -> float:
        """Return zeta at time t."""
        if self.zeta == "target_score":
            return 1.0
        if self.zeta == "ode":
            return 0.0
        if self.zeta == "tempered_noise":
            exponents = target.exponents(t)
            if min(exponents) <= 0 or max(exponents) - min(exponents) > 1e-9 * max(exponents):
                raise ProposalError(
                    f"expected exponents that are the same positive number with zeta='tempered_noise', got {exponents} "
                    f"at t={t:g}; pass zeta as a number instead."
                )
            return 1.0 / math.sqrt(exponents[0])
        value = float(self.zeta(t)) if callable(self.zeta) else float(self.zeta)
        return check_non_negative(f"zeta at t={t:g}", value)

    def check(self, target: Target, intervals: Sequence[Interval]) -> None:
        """Raise where zeta is not defined."""
        for interval in intervals:
            self.noise_level(target, interval.t)

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        denoising_interval: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take one Euler-Maruyama step."""
        zeta = self.noise_level(target, interval.t)
        if self.split and before.tilt_gradient is not None:
            return split_step(target, before, interval, denoising_interval, zeta, shift, generator)
        x = before.x
        # The drift over the interval: -f + g^2/2 S_q, and with noise zeta^2 g^2/2 S of the Langevin kernel.
        mean = x + interval.growth * x + 0.5 * interval.noise * before.score
        if zeta > 0:
            mean = mean + 0.5 * zeta**2 * interval.noise * before.total_score
            if before.tilt_gradient is not None:
                half = 0.5 * zeta**2 * interval.noise
                plain = mean - half * before.tilt_gradient
                refuse_stiff(target, before, interval, plain, mean, variance=half, way=_SMALLER)
        if shift is not None:
            mean = mean + shift
        if zeta == 0:
            return Move(before, interval, mean, denoising_interval)
        variance = zeta**2 * interval.noise
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        x = mean + math.sqrt(variance) * noise
        return Move(before, interval, x, denoising_interval, mean=mean, variance=variance)

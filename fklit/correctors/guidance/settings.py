"""The settings of corrected guidance."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fklit.checks import as_number, check_choice, check_fraction
from fklit.correctors.guidance.weight import INCREMENTS, GuidanceIncrement
from fklit.feynman_kac.schedule import Schedule
from fklit.rewards.base import Reward
from fklit.sampling.settings import SamplingArguments, SamplingSettings


@dataclass(frozen=True, kw_only=True)
class GuidanceSettings(SamplingSettings):
    """All settings of `fklit.correct`, of `GuidanceRun` and of `GuidanceTask`.

    The weights of guidance grow by small steps, so more particles that resample sooner are the default.

    Attributes:
        guidance_scale: w in the convention of diffusers, `u + w (c - u)`; the exponent of the conditional law. The
            convention `(1 + w') c - w' u` of Ho and Salimans has `w = 1 + w'`. At least 1; 1 is no guidance. Not used
            by composed prompts, which have scales of their own.
        exponents: of the pipeline and of a guiding pipeline, if there is one: `p^b_1 p_guiding^b_2`, of positive sum.
            None for autoguidance, `(w, 1 - w)` with w the guidance scale; `(1.0, 1.0)` is the product of both models.
        correction: how much of the log weights counts, from 0 (the heuristic) to 1 (exact as K grows).
        increment: "net_interval", or "kernel" (the product of reverse kernels of forward variance), see
            `guidance_weight`.
        weight_schedule: which steps' guidance is weighed; None for all. Steps that are omitted keep the heuristic's
            error; the clean end carries most of the exact weight, but on learned models also most of their own error
            (see `prompt_divergence`).
        resample_schedule: which steps may resample; None for all. Weights of other steps are carried, never dropped.
    """

    num_particles: int = 8
    ess_threshold: float = 0.9
    guidance_scale: float = 7.5
    exponents: tuple[float, float] | None = None
    correction: float = 1.0
    increment: GuidanceIncrement = "net_interval"
    weight_schedule: Schedule | None = None
    resample_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "correction", check_fraction("correction", self.correction))
        check_choice("increment", self.increment, INCREMENTS)
        scale = as_number(self.guidance_scale)
        if scale is None or not 1 <= scale < math.inf:
            raise ValueError(
                "guidance_scale expected a finite number of at least 1 (1 is no guidance), got "
                f"{self.guidance_scale!r}: below 1 "
                "pipelines evaluate no unconditional prediction; use a ComposedPrompt, which takes any scale."
            )
        object.__setattr__(self, "guidance_scale", scale)
        if self.exponents is not None:
            object.__setattr__(self, "exponents", _check_exponents(self.exponents))


def _check_exponents(given: Any) -> tuple[float, float]:
    numbers = [as_number(value) for value in given] if isinstance(given, tuple | list) else []
    if len(numbers) != 2 or not all(n is not None and math.isfinite(n) for n in numbers):
        raise ValueError(
            f"exponents expected two finite numbers, of the pipeline and of the guiding pipeline, got {given!r}; give "
            "for example (1.0, 1.0) for the product of both."
        )
    first, second = (float(n) for n in numbers if n is not None)
    if first + second <= 0:
        raise ValueError(
            f"exponents expected a positive sum, got {first:g} and {second:g}, whose target is no law at the noise "
            "end; raise one of them."
        )
    return first, second


class GuidanceArguments(SamplingArguments, total=False):
    """`GuidanceSettings` as keyword arguments."""

    reward: Reward | Callable[..., Any] | None
    guidance_scale: float
    exponents: tuple[float, float] | None
    correction: float
    increment: GuidanceIncrement
    weight_schedule: Schedule | None
    resample_schedule: Schedule | None

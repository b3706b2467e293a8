"""The path of a pretrained diffusers model, read from its scheduler."""

import bisect
import math
from dataclasses import dataclass
from typing import Any

from fklit.correctors.targets.paths.noise_path import NoisePath


@dataclass(frozen=True)
class SchedulerPath(NoisePath):
    """The variance-preserving path of N discrete noise levels, made continuous: `log alpha_bar` is linear in between.

    Timestep k of the scheduler (0 .. N - 1) is the time `t = (k + 1) / N`, and t = 0 are the data: there `alpha_bar` is
    the scheduler's own, which that of `VariancePreserving` is not (the scaled linear schedule of Stable Diffusion has
    alpha_bar 0.278 at half of the path, `VariancePreserving()` 0.079). Samplers stop at timestep 0.

    Attributes:
        alphas_cumprod: the N values of `alpha_bar`, falling, in (0, 1).
    """

    alphas_cumprod: tuple[float, ...]

    def __post_init__(self) -> None:
        values = tuple(float(value) for value in self.alphas_cumprod)
        falling = all(left > right for left, right in zip((1.0, *values), values, strict=False))
        if not values or not falling or values[-1] <= 0:
            raise ValueError(
                f"expected alphas_cumprod that fall from below 1 and stay above 0, got {len(values)} values"
                f"{f' from {values[0]:g} to {values[-1]:g}' if values else ''}; with a zero terminal signal build the "
                "scheduler with rescale_betas_zero_snr=False."
            )
        object.__setattr__(self, "alphas_cumprod", values)
        object.__setattr__(self, "_logs", (0.0, *(math.log(value) for value in values)))
        object.__setattr__(self, "stop", 1.0 / len(values))

    @classmethod
    def of(cls, scheduler: Any) -> "SchedulerPath":
        """Return the path of a diffusers scheduler (DDPM, DDIM, Euler, DPM-Solver++, PNDM, ...).

        Raises:
            TypeError: if it has no `alphas_cumprod`, as schedulers of flow matching and EDM have none.
        """
        found = getattr(scheduler, "alphas_cumprod", None)
        if found is None:
            raise TypeError(
                f"expected a scheduler with alphas_cumprod, got {type(scheduler).__name__}; for flow matching use "
                "LinearFlow(), for EDM use EDM()."
            )
        return cls(tuple(float(value) for value in found))

    def timestep(self, t: float) -> float:
        """Return the scheduler's timestep of time t, a float in [-1, N - 1]: what the network takes as time."""
        return t * len(self.alphas_cumprod) - 1

    def time_of(self, timestep: float) -> float:
        """Return the time of a timestep."""
        return (timestep + 1) / len(self.alphas_cumprod)

    def alpha_bar(self, t: float) -> float:
        """Return `a(t)^2`."""
        return math.exp(self._log_alpha_bar(t))

    def log_scale(self, t: float) -> float:
        """Return half of `log alpha_bar`."""
        return 0.5 * self._log_alpha_bar(t)

    def sigma(self, t: float) -> float:
        """Return `sqrt(1 - alpha_bar)`."""
        return math.sqrt(-math.expm1(self._log_alpha_bar(t)))

    def drift(self, t: float) -> float:
        """Return half the slope of `log alpha_bar`, constant between two timesteps."""
        return 0.5 * self._slope(t)

    def diffusion(self, t: float) -> float:
        """Return minus the slope of `log alpha_bar`."""
        return -self._slope(t)

    def noise(self, t: float, s: float) -> float:
        """Return `log alpha_bar(s) - log alpha_bar(t)`."""
        return self._log_alpha_bar(s) - self._log_alpha_bar(t)

    def time_at(self, level: float) -> float:
        """Return the time of a noise level; 0 or 1 for levels outside the path."""
        logs: tuple[float, ...] = self._logs  # type: ignore[attr-defined]
        wanted = -math.log1p(level**2)
        last = len(logs) - 1
        # The first knot whose log alpha_bar is at or below the wanted one.
        after = bisect.bisect_left(logs, -wanted, key=lambda value: -value)
        if after == 0 or after > last:
            return min(after, last) / last
        share = (wanted - logs[after - 1]) / (logs[after] - logs[after - 1])
        return (after - 1 + share) / last

    def _place(self, t: float) -> tuple[int, float]:
        """Return the knot before time t and the share of the way to the next."""
        count = len(self.alphas_cumprod)
        before = min(max(math.floor(t * count), 0), count - 1)
        return before, t * count - before

    def _log_alpha_bar(self, t: float) -> float:
        logs: tuple[float, ...] = self._logs  # type: ignore[attr-defined]
        before, share = self._place(t)
        return logs[before] + share * (logs[before + 1] - logs[before])

    def _slope(self, t: float) -> float:
        logs: tuple[float, ...] = self._logs  # type: ignore[attr-defined]
        before, _ = self._place(t)
        return (logs[before + 1] - logs[before]) * len(self.alphas_cumprod)

    def __repr__(self) -> str:
        """Return a short form: N numbers help nobody."""
        values = self.alphas_cumprod
        return f"SchedulerPath({len(values)} levels, alpha_bar {values[0]:.4g} to {values[-1]:.4g})"

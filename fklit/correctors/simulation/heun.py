"""Heun steps of the target's probability-flow ODE, with churn."""

import math
from dataclasses import dataclass

from torch import Tensor

from fklit.checks import check_non_negative
from fklit.correctors.simulation.proposal import Move, Proposal
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import Generators, normals


@dataclass(frozen=True)
class Heun(Proposal):
    """The sampler of Karras et al. 2022 (arXiv 2206.00364, algorithm 2): churn, then a Heun step of the ODE.

    Noise is added by the forward kernel, so that the step is exact for every target; the paper's inflation of that
    noise (`S_noise` above 1) is not, and is not offered.

    Attributes:
        churn: the relative rise of the noise level `s / a` at each step, at least 0 (`S_churn / num_steps` in the
            paper, whose bound is 0.41). At 0 clones never separate.
        lowest: level below which there is no churn (`S_tmin`).
        highest: level above which there is none (`S_tmax`). It never rises above the level at t = 1.
        second_order: whether the step is corrected at its end; False is Euler's step.
    """

    churn: float = 0.1
    lowest: float = 0.0
    highest: float = math.inf
    second_order: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "churn", check_non_negative("churn", self.churn))
        if not 0 <= self.lowest < self.highest:
            raise ValueError(
                f"expected 0 <= lowest < highest, got lowest={self.lowest} and highest={self.highest}; they are levels."
            )

    def prepare(self, target: Target, x: Tensor, interval: Interval, generator: Generators) -> tuple[Tensor, Interval]:
        """Raise the noise level by the forward kernel."""
        path = target.path
        level = path.level(interval.t)
        if self.churn == 0 or not self.lowest <= level <= self.highest:
            return x, interval
        top = path.time_at(level * (1 + self.churn))
        if top <= interval.t:
            return x, interval
        ratio, variance = path.forward(interval.t, top)
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        return ratio * x + math.sqrt(variance) * noise, path.interval(top, interval.s)

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        denoising_interval: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take one step of the ODE."""
        x, path = before.x, target.path
        top, end = denoising_interval.t, denoising_interval.s
        high, low = path.level(top), path.level(end)
        # In y = x / a and the level the ODE is dy / d(level) = -level a S_q, on every path.
        first = -high * path.scale(top) * before.score
        start = x / path.scale(top)
        euler = (start + (low - high) * first) * path.scale(end)
        if shift is not None:
            euler = euler + shift
        if not self.second_order or low == 0:
            return Move(before, interval, euler, denoising_interval)
        # Scores that are not finite show in the weight.
        after = target.evaluate(euler, end, tilt=False, finite=False)
        second = -low * path.scale(end) * after.score
        moved = (start + 0.5 * (low - high) * (first + second)) * path.scale(end)
        return Move(before, interval, moved if shift is None else moved + shift, denoising_interval, after=after)

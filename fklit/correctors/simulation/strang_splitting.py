"""Steps of the target's reverse process with the drift between two halves of the noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from fklit.correctors.simulation.proposal import Move, Proposal, ProposalError
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval, NoisePath
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import Tilt
from fklit.feynman_kac.randomness import Generators, normals


@dataclass(frozen=True)
class StrangSplitting(Proposal):
    """Half of the noise, the drift, the other half of the noise: `EulerMaruyama()` split as Strang does.

    It costs the same one evaluation a step. Euler-Maruyama's drift looks at the sample before the noise, so that every
    step leaves the law too wide, by the share `h / V` of its variance V for a step of noise h: clusters and other data
    with stiff directions come out too hot. Here the drift sees half of the noise of its own step. In `y = x / a`, where
    every path is one of variance h and no drift of its own:

        y' = y + sqrt(h / 2) z_1,   y'' = y' + h (S_q + S)(y') / 2,   y''' = y'' + sqrt(h / 2) z_2

    with the scores of the level at the step's start. For Gaussian data and one model with exponent B, weights of
    `Rate` included, the error of the variance is `1 - B` times that of Euler-Maruyama's: of second order for `B = 1`,
    a third for 4/3, as large for 2, larger above.

    There is no kernel whose density is known, and tilts with a gradient are refused: take `EulerMaruyama()` for these.

    References:
        Strang 1968, SIAM J. Numer. Anal. 5, 506-517; Leimkuhler and Matthews 2013, arXiv 1203.5428 (splitting of
        Langevin dynamics).
    """

    def check(self, target: Target, intervals: Sequence[Interval]) -> None:
        """Refuse tilts with a gradient."""
        if isinstance(target.tilt, Tilt):
            raise ProposalError(
                "expected a target without a differentiable tilt with StrangSplitting(), got one with a tilt, whose "
                "weights need small steps of their own; use EulerMaruyama()."
            )

    def prepare(self, path: NoisePath, x: Tensor, interval: Interval, generator: Generators) -> tuple[Tensor, Interval]:
        """Add half of the noise."""
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        return x + math.sqrt(0.5 * interval.variance) * noise, interval

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        denoising_interval: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take the drift, and add the other half."""
        x, variance = before.x, interval.variance
        mean = (x + 0.5 * variance * (before.score + before.total_score)) / interval.ratio
        if shift is not None:
            mean = mean + shift
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        moved = mean + math.sqrt(0.5 * variance) / interval.ratio * noise
        # The weight's integral over the step, in the same coordinates.
        return Move(before, replace(interval, noise=variance), moved, denoising_interval)

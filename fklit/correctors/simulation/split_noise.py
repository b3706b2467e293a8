"""Steps of the target's reverse process with a share of the noise before the drift."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from fklit.correctors.simulation.proposal import Move, Proposal, ProposalError
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import Tilt
from fklit.feynman_kac.randomness import Generators, normals


@dataclass(frozen=True)
class SplitNoise(Proposal):
    """The step of `EulerMaruyama()` with a part of its noise before the drift, at the same one evaluation a step.

    Euler-Maruyama's drift looks at the sample before the noise, so that a step of noise h leaves a variance V too wide
    by the share `h / V`: clusters and other data with stiff directions come out too hot. Here the drift sees a share
    theta of the noise of its own step. In `y = x / a`, where every path has a variance h and no drift of its own:

        y' = y + sqrt(theta h) z_1,   y'' = y' + h (S_q + S)(y') / 2,   y''' = y'' + sqrt((1 - theta) h) z_2

    with the scores of the level at the step's start, where the weight of `Rate` is taken too, at y'. For Gaussian data
    under one model of exponent B the error of the variance, weights included, is `1 / B - 2 theta` times `h^2 / V` a
    step: theta is `1 / (2 B)`, which leaves none, B being the sum of the exponents at the step's start. For `B = 1`
    that is Strang's splitting. For B below 1/2 all noise comes first, and part of the error stays; so it does in
    products and guidance of models that are unlike one another.

    There is no kernel whose density is known, and tilts with a gradient are refused: take `EulerMaruyama()` for these.

    References:
        Strang 1968, SIAM J. Numer. Anal. 5, 506-517; Leimkuhler and Matthews 2013, arXiv 1203.5428 (splitting of
        Langevin dynamics). The share for exponents is ours.
    """

    def check(self, target: Target, intervals: Sequence[Interval]) -> None:
        """Refuse tilts with a gradient."""
        if isinstance(target.tilt, Tilt):
            raise ProposalError(
                "expected a target without a differentiable tilt with SplitNoise(), got one with a tilt, whose weights "
                "need small steps of their own; use EulerMaruyama()."
            )

    def share(self, target: Target, t: float) -> float:
        """Return theta at time t, in [1/2, 1] for total exponents up to 1, and below for larger ones."""
        total = sum(target.exponents(t))
        return min(0.5 / total, 1.0) if total > 0 else 1.0

    def prepare(self, target: Target, x: Tensor, interval: Interval, generator: Generators) -> tuple[Tensor, Interval]:
        """Add the first share of the noise."""
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        return x + math.sqrt(self.share(target, interval.t) * interval.variance) * noise, interval

    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        denoising_interval: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take the drift, and add the rest."""
        x, variance = before.x, interval.variance
        mean = (x + 0.5 * variance * (before.score + before.total_score)) / interval.ratio
        if shift is not None:
            mean = mean + shift
        noise = normals(generator, x.shape, dtype=x.dtype, device=x.device)
        rest = (1 - self.share(target, interval.t)) * variance
        moved = mean + math.sqrt(rest) / interval.ratio * noise
        # The weight's integral over the step, in the same coordinates.
        return Move(before, replace(interval, noise=variance), moved, denoising_interval)

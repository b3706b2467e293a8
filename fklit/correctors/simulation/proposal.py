"""Proposals: how particles take one step from noise to data. None of them depends on weights.

==================  ==============================================================  ===============================
proposal            step                                                            its kernel
==================  ==============================================================  ===============================
EulerMaruyama       drift `-f + g^2/2 S_q + zeta^2 g^2/2 S`, noise `zeta g`         Gaussian, unless zeta = 0
                    (with a tilt split, see `tilt_step`)                            or the step is split
SplitNoise          the same with zeta = 1, a part of the noise before the drift    none
Heun                churn by the forward kernel, then the probability-flow ODE      none
ReverseKernel       the locally optimal product of the experts' kernels             Gaussian
==================  ==============================================================  ===============================

`f = c x` and `g` belong to the noise path, `S_q` is the combined score and `S` adds the tilt's gradient. Every zeta
leaves the same target (and the same weight), since it only adds a Langevin kernel that leaves the target invariant.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import Generators


class ProposalError(ValueError):
    """A proposal that is not defined for this target."""


@dataclass(frozen=True)
class Move:
    """One step that was taken.

    Attributes:
        before: the evaluation at which the step was computed (for Heun, after the churn).
        interval: the net interval of the step; the one that weights count.
        x: the new samples, (B, K, *event).
        denoising_interval: the interval from the evaluation to the new samples; longer than `interval` after a churn.
        mean: of the Gaussian kernel that the samples were drawn from, (B, K, *event), or None.
        variance: of that kernel, or None.
        after: Heun's second evaluation, or None.
        previous_dispersion: `score_dispersion` of the previous step's second evaluation, (B, K), or None.
        shift_weight: what the drift control adds to the log weight, (B, K), or None.
        tilt_weight: what the tilt adds to the log weight, (B, K), if the step was split (see `tilt_step`), or None.
        limited: (B,) bool, groups in which a stiff tilt lowered zeta, or None.
    """

    before: Evaluation
    interval: Interval
    x: Tensor
    denoising_interval: Interval
    mean: Tensor | None = None
    variance: float | None = None
    after: Evaluation | None = None
    previous_dispersion: Tensor | None = None
    shift_weight: Tensor | None = None
    tilt_weight: Tensor | None = None
    limited: Tensor | None = None


class Proposal(ABC):
    """How particles move; see the module's table for the ones that exist."""

    has_kernel = False
    """Whether the step is a draw from a Gaussian kernel whose density is known."""

    def check(self, target: Target, intervals: Sequence[Interval]) -> None:  # noqa: B027
        """Raise a `ProposalError` if a step is not defined for this target."""

    def prepare(self, target: Target, x: Tensor, interval: Interval, generator: Generators) -> tuple[Tensor, Interval]:
        """Return the samples at which the target is evaluated and the denoising interval that starts there."""
        return x, interval

    @abstractmethod
    def move(
        self,
        target: Target,
        before: Evaluation,
        interval: Interval,
        denoising_interval: Interval,
        shift: Tensor | None,
        generator: Generators,
    ) -> Move:
        """Take the step.

        Args:
            target: for proposals that evaluate it again.
            before: the target at the prepared samples.
            interval: the net interval.
            denoising_interval: the interval from the prepared samples to the step's end.
            shift: displacement of the drift control, of the shape of x, or None.
            generator: for the noise.
        """

    def noise_level(self, target: Target, t: float) -> float | None:
        """Return zeta at time t, or None if the proposal has none."""
        return None

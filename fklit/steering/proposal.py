"""From what law the children of a step are drawn: the sampler's own, or one with a shifted mean."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from fklit.feynman_kac.schedule import Schedule


@dataclass(frozen=True)
class ProposalStep:
    """What a proposal sees of a step: the parents and the law `N(mean, std^2)` of their children in the base sampler.

    Rows are B * K particles in group order, before they are resampled.

    Attributes:
        index: the step, 0 is the noisiest.
        num_steps: steps of the run.
        sample: the parents x_t, (N, C, ...), as the scheduler holds them.
        denoised: their denoised prediction `E[x_0 | x_t]`, (N, C, ...).
        mean: of the children, (N, C, ...).
        std: of the children, above 0.
        scale: `a` of `x_t = a x_0 + sigma e`; None where it is not known.
        sigma: `sigma` of the same.
        reward_scale: of the target.
        reward_gradient: computes the gradient of the reward with respect to `denoised`, through the decoder,
            (N, C, ...) float32; it costs a decode and a score of each row, forward and backward.
        pull_back: turns a gradient with respect to `denoised` into one with respect to `sample`, through the
            denoiser, at the cost of one evaluation of each row, forward and backward. Its second argument says whether
            the denoiser recomputes its blocks.
    """

    index: int
    num_steps: int
    sample: Tensor
    denoised: Tensor
    mean: Tensor
    std: float
    scale: float | None
    sigma: float | None
    reward_scale: float
    reward_gradient: Callable[[], Tensor] = field(repr=False)
    pull_back: Callable[[Tensor, bool], Tensor] = field(repr=False)


class Proposal(ABC):
    """Draws children from `N(mean + shift, std^2)` in place of the sampler's `N(mean, std^2)`.

    The importance ratio `log p - log q` of what was drawn enters the weights, so the target is the same whatever the
    shift, also a poor one: it changes how much the weights vary. Steps without noise are not shifted.

    Subclass it and write `shift`; in YAML the class is named by its path.

    Attributes:
        schedule: the steps that are shifted; None for all.
    """

    schedule: Schedule | None = None

    @abstractmethod
    def shift(self, step: ProposalStep) -> Tensor:
        """Return the shift of the mean, (N, C, ...), finite; row i may depend on row i alone.

        Args:
            step: the step, and what can be computed for it.
        """

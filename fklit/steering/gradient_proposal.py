"""Proposals that follow the gradient of the reward: twisted means, with or without the denoiser's Jacobian."""

import math
from dataclasses import dataclass

from torch import Tensor

from fklit.checks import as_number
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.denoised import UnknownSchedulerError
from fklit.pipelines.transition import as_double
from fklit.steering.proposal import Proposal, ProposalStep


@dataclass(frozen=True, kw_only=True)
class GradientProposal(Proposal):
    """Shifts the mean of a step by `strength * std^2 * reward_scale * grad r(x0_hat(x_t))`, the gradient being in x_t.

    To first order that is the optimal proposal for the intermediate target `p(x_t) exp(reward_scale * r(x0_hat(x_t)))`:
    the twisted kernel of TDS (Wu et al. 2023, arXiv 2306.17775, equation 12), the gradient proposal of FK steering
    (Singhal et al. 2025, arXiv 2501.06848, section 3.3). The reward, and what decodes its samples, must be
    differentiable. Score often (`reward_schedule`): a shift that no potential follows makes weights vary more.

    Attributes:
        strength: step size, above 0; 1 is the twisted kernel.
        jacobian: True takes the gradient through the denoiser, at the cost of one more evaluation of each row, forward
            and backward. False replaces `d x0_hat / d x_t` by `a v / (a^2 v + sigma^2)`, with `x_t = a x_0 + sigma e`
            and `v = data_std^2`: exact for independent data of that variance, and free of the denoiser.
        data_std: standard deviation of what the denoiser predicts, for `jacobian=False`: about 1 for latents; `inf`
            gives the factor `1 / a`.
        max_kl: largest divergence `KL(q || p) = |shift|^2 / (2 std^2)` of one step and particle, in nats; a larger
            shift is shrunk to it, which the ratio accounts for. None for no bound.
        checkpoint: whether the denoiser recomputes its blocks in the backward pass (diffusers' gradient checkpointing),
            for less memory.
        schedule: the steps that are shifted; None for all.

    Raises:
        ValueError: a number is out of its range, or an option is set that would do nothing.
    """

    strength: float = 1.0
    jacobian: bool = True
    data_std: float = 1.0
    max_kl: float | None = 2.0
    checkpoint: bool = False
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        for name in ("strength", "data_std", "max_kl"):
            given = getattr(self, name)
            value = as_number(given)
            if given is None and name == "max_kl":
                continue
            if value is None or not value > 0 or (math.isinf(value) and name != "data_std"):
                raise ValueError(f"expected {name} above 0, got {given!r}; give such a number.")
            object.__setattr__(self, name, float(value))
        if self.checkpoint and not self.jacobian:
            raise ValueError(
                "expected jacobian=True with checkpoint=True, got jacobian=False, which does not call the denoiser; "
                "omit checkpoint."
            )
        if self.jacobian and self.data_std != 1.0:
            raise ValueError(
                f"expected jacobian=False with data_std={self.data_std:g}, got jacobian=True, which needs no such "
                "number; omit data_std."
            )

    def shift(self, step: ProposalStep) -> Tensor:
        """Return the shift, (N, C, ...) float32."""
        gradient = step.reward_gradient()
        gradient = step.pull_back(gradient, self.checkpoint) if self.jacobian else gradient * self._factor(step)
        shift = self.strength * step.reward_scale * step.std**2 * gradient
        if self.max_kl is None:
            return shift
        divergence = (as_double(shift) / step.std).square().flatten(1).sum(dim=1) / 2
        shrink = (self.max_kl / divergence.clamp(min=1e-30)).sqrt().clamp(max=1.0)
        return shift * shrink.to(shift).reshape(-1, *[1] * (shift.ndim - 1))

    def _factor(self, step: ProposalStep) -> float:
        """What stands for `d x0_hat / d x_t`."""
        if step.scale is None or step.sigma is None:
            raise UnknownSchedulerError(
                "expected a scheduler whose noise levels are known with jacobian=False, got another; use jacobian=True."
            )
        if math.isinf(self.data_std):
            return 1 / max(step.scale, 1e-3)  # finite where the signal is gone
        return step.scale * self.data_std**2 / (step.scale**2 * self.data_std**2 + step.sigma**2)

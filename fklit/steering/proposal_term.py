"""What a proposal adds to a run: shifted children, and the log ratio `log p - log q` of what was drawn."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.weights import as_float64
from fklit.pipelines.denoised import UnknownSchedulerError
from fklit.pipelines.finite import finite_rows
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.network_replay import NetworkReplay
from fklit.pipelines.noise_levels import step_levels
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.step_law import has_step_law, step_law
from fklit.pipelines.transition import Transition
from fklit.sampling.reward_term import RewardTerm
from fklit.steering.proposal import Proposal, ProposalStep


class ProposalTerm:
    """Shifts the children of a run's steps and gathers the ratio until the weights take it.

    Args:
        proposal: the proposal.
        reward: the reward of the run, whose gradient the proposal may ask for.
        num_groups: B.
        num_particles: K.
        max_batch: most rows that the denoiser gets at once.

    Attributes:
        evaluations: denoiser evaluations made again for gradients, by rows, each forward and backward.
    """

    def __init__(
        self, proposal: Proposal, reward: RewardTerm, num_groups: int, num_particles: int, *, max_batch: int | None
    ) -> None:
        self.evaluations = 0
        self._proposal = proposal
        self._reward = reward
        self._shape = (num_groups, num_particles)
        self._max_batch = max_batch
        self._steps: frozenset[int] = frozenset()
        self._log_ratio = torch.zeros(self._shape, dtype=torch.float64)

    def begin(self, num_steps: int, scheduler: Any, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Find the steps that are shifted, of which one must draw noise.

        Raises:
            DeterministicSamplerError: none draws noise, so there is no density to correct by.
            UnsupportedPipelineError: the scheduler's steps have no density that fklit knows.
        """
        schedule = self._proposal.schedule
        wanted = range(num_steps) if schedule is None else schedule.resolve(num_steps)
        self._steps = frozenset(step for step, draws in noisy(wanted).items() if draws)
        name = type(scheduler).__name__
        if not self._steps:
            raise DeterministicSamplerError(
                f"proposal expected a sampler that draws noise at a step it shifts, got {name}, which draws none, so "
                "its steps have no density; call with eta=1 (DDIM), use scheduler='auto', or set proposal=None."
            )
        if not has_step_law(scheduler):
            raise UnsupportedPipelineError(
                f"proposal expected a scheduler whose steps have a known density, got {name}; use DDIM with eta=1, "
                "DDPM, Euler ancestral, DPM-Solver++ (SDE) or a flow-matching scheduler with scheduler='auto', or set "
                "proposal=None."
            )

    def take_log_ratio(self) -> Float64[Tensor, "B K"]:
        """Return `log p - log q` of all that was drawn since this was called last."""
        found, self._log_ratio = self._log_ratio, torch.zeros_like(self._log_ratio)
        return found

    def plan(self, call: StepCall, ancestors: Tensor | None) -> Callable[[Tensor], Tensor] | None:
        """Prepare the children of a step.

        Args:
            call: the step, of the parents before they are resampled.
            ancestors: flat ancestors (N,) by which they are, or None.

        Returns:
            Makes of the scheduler's children the proposal's; None where the step is not shifted.
        """
        if call.index not in self._steps or self._reward.reward_scale == 0:
            return None
        base = step_law(call)
        if base.std == 0:
            return None
        shift = self._shift(call, base)
        mean = as_float64(base.mean)
        if ancestors is not None:
            index = ancestors.cpu()
            mean, shift = mean[index.to(mean.device)], shift[index.to(shift.device)]
        return lambda children: self._draw(children, Transition(mean, base.std), shift)

    def _shift(self, call: StepCall, base: Transition) -> Tensor:
        where = f"at step {call.index} of {call.num_steps}"
        x0 = call.denoised()
        scale, sigma = _levels(call)
        found = self._proposal.shift(
            ProposalStep(
                index=call.index,
                num_steps=call.num_steps,
                sample=call.sample,
                denoised=x0,
                mean=base.mean,
                std=base.std,
                scale=scale,
                sigma=sigma,
                reward_scale=self._reward.reward_scale,
                reward_gradient=lambda: self._reward.predictions.gradient(x0, where=where)[1],
                pull_back=lambda cotangent, checkpoint: self._pull_back(call, cotangent, checkpoint),
            )
        )
        name = type(self._proposal).__name__
        if not isinstance(found, Tensor) or found.shape != call.sample.shape:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"{where}: expected a shift {tuple(call.sample.shape)} from {name}, got {given}; return one a sample."
            )
        shift = as_float64(found)
        # A row that on_nan='drop' lets die has no finite law; it is left where it is.
        broken = ~finite_rows(base.mean).to(shift.device)
        shift = shift.masked_fill(broken.reshape(-1, *[1] * (shift.ndim - 1)), 0.0)
        if not bool(torch.isfinite(shift).all()):
            raise ValueError(f"{where}: expected a finite shift from {name}, got NaN or infinities; bound it.")
        return shift

    def _pull_back(self, call: StepCall, cotangent: Tensor, checkpoint: bool) -> Tensor:
        replay = NetworkReplay(
            call,
            max_batch=self._max_batch,
            checkpoint=checkpoint,
            otherwise="use plain guidance, or GradientProposal(jacobian=False), without gradients of the denoiser",
        )
        found = replay.pull_back(cotangent)
        self.evaluations += replay.evaluations
        return found

    def _draw(self, children: Tensor, base: Transition, shift: Tensor) -> Tensor:
        moved = (as_float64(children) + shift).to(device=children.device, dtype=children.dtype)
        # The densities of what is handed on, after it was rounded to the samples' precision.
        values = as_float64(moved)
        ratio = base.log_density(values) - Transition(base.mean + shift, base.std).log_density(values)
        ratio = ratio.reshape(self._shape)
        self._log_ratio = self._log_ratio.to(ratio.device) + ratio
        return moved


def _levels(call: StepCall) -> tuple[float, float] | tuple[None, None]:
    try:
        levels = step_levels(call.scheduler, call.timestep)
    except UnknownSchedulerError:
        return None, None
    return levels.scale, levels.sigma

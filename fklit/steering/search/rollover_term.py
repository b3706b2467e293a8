"""What rollover budget forcing does at a step: further children of the step before, evaluated in their place."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.weights import as_float64
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.network_replay import NetworkReplay
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.step_call import StepCall, StepChange
from fklit.pipelines.step_law import has_step_law, step_law
from fklit.pipelines.transition import Transition, draw
from fklit.sampling.reward_term import RewardTerm
from fklit.steering.search.rollover import RolloverBudget


class RolloverTerm:
    """Redraws the children of the step before, as long as none is better and draws are left.

    Args:
        search: the settings.
        reward: the reward of the run.
        generators: one a row (N), from which further children are drawn.
        max_batch: most rows that the denoiser gets at once.

    Attributes:
        evaluations: denoiser evaluations of further children, by rows.
        draws: children drawn so far by each row (N,), the first of each step among them.
        images: decoded predictions of those that went on at the last step, (N, ...); None before the first.
    """

    def __init__(
        self,
        search: RolloverBudget,
        reward: RewardTerm,
        generators: list[torch.Generator],
        *,
        max_batch: int | None,
    ) -> None:
        count = len(generators)
        self.evaluations = 0
        self.images: Tensor | None = None
        self.draws = torch.zeros(count, dtype=torch.int64)
        self._search = search
        self._reward = reward
        self._generators = generators
        self._max_batch = max_batch
        self._left = torch.zeros(count, dtype=torch.int64)
        self._reached = torch.full((count,), -torch.inf, dtype=torch.float64)
        self._law: Transition | None = None  # of the children that are the parents of the next step

    def begin(self, num_steps: int, scheduler: Any, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Refuse a scheduler whose children cannot be drawn again.

        Raises:
            DeterministicSamplerError: no step before the last draws noise.
            UnsupportedPipelineError: the law of its steps is not known.
        """
        name = type(scheduler).__name__
        if not any(noisy(range(num_steps - 1)).values()):
            raise DeterministicSamplerError(
                f"search={type(self._search).__name__} expected a sampler that draws noise, got {name}, whose children "
                "are all equal; call with eta=1 (DDIM), or use scheduler='auto'."
            )
        if not has_step_law(scheduler):
            raise UnsupportedPipelineError(
                f"search={type(self._search).__name__} expected a scheduler whose steps can be drawn again, got "
                f"{name}; use DDIM with eta=1, DDPM, Euler ancestral, DPM-Solver++ (SDE) or a flow-matching scheduler "
                "with scheduler='auto'."
            )

    def improve(self, call: StepCall) -> StepChange | None:
        """Score the parents of a step, redraw those that are no better than theirs, and remember the law of the next.

        Args:
            call: the step.

        Returns:
            The parents and model outputs that go on, or None if all were good.
        """
        where = f"at step {call.index} of {call.num_steps}"
        rewards, images = self._reward.score(call.denoised(), where=where)
        assert images is not None  # no latent reward goes with a search
        best = as_float64(rewards).cpu().flatten().nan_to_num(nan=-torch.inf)
        sample, output = call.sample, call.model_output
        self.draws += 1
        if self._law is not None and self._law.std > 0:
            self._left += self._search.draws - 1  # the first child of the step was drawn by the pipeline
            replay = None
            while bool((wanted := (best <= self._reached) & (self._left > 0)).any()):
                rows = wanted.nonzero().flatten()
                replay = replay or NetworkReplay(
                    call, max_batch=self._max_batch, otherwise="use plain guidance, or another search"
                )
                children = self._children(rows, call.sample)
                predicted = replay.predict(children, rows)
                everywhere = rows.to(sample.device)
                tried, made = sample.index_copy(0, everywhere, children), output.index_copy(0, everywhere, predicted)
                x0 = _step(call, tried, made).denoised()
                found, shown = self._reward.predictions.score_rows(x0, rows, where=where)
                found = found.cpu().nan_to_num(nan=-torch.inf)
                rises = found > best[rows]
                better = rows[rises]
                best[better] = found[rises]
                images = images.index_copy(0, better.to(images.device), shown[rises.to(shown.device)])
                chosen = better.to(sample.device)
                sample = sample.index_copy(0, chosen, tried[chosen])
                output = output.index_copy(0, chosen, made[chosen])
                self._left[rows] -= 1
                self.draws[rows] += 1
            self.evaluations += 0 if replay is None else replay.evaluations
        self._reached = best
        self.images = images
        self._reward.keep_scores(best.reshape(rewards.shape))
        self._law = step_law(_step(call, sample, output)) if call.index < call.num_steps - 1 else None
        return None if sample is call.sample else StepChange(sample=sample, model_output=output)

    def _children(self, rows: Tensor, like: Tensor) -> Tensor:
        """Further children of the step before, each from its row's own generator."""
        law = self._law
        assert law is not None
        noise = torch.stack([torch.randn(like.shape[1:], generator=self._generators[row]) for row in rows.tolist()]).to(
            like.device
        )
        mean = law.mean[rows.to(law.mean.device)].float()
        return draw(Transition(mean, law.std), noise).to(like.dtype)


def _step(call: StepCall, sample: Tensor, output: Tensor) -> StepCall:
    return replace(call, sample=sample, model_output=output)

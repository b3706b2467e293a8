"""One pipeline call of a search: at its steps the parents are scored, and some take the places of others."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.resampling import get_resampler
from fklit.pipelines.denoised import is_known
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.step_call import StepCall, StepChange
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.settings import RewardSettings
from fklit.steering.run import Demands, SteeringRun
from fklit.steering.search.rollover import RolloverBudget
from fklit.steering.search.rollover_term import RolloverTerm
from fklit.steering.search.search import Search, Selection
from fklit.steering.search.selection_system import SelectionSystem
from fklit.steering.settings import SteeringSettings


class SearchRun(SteeringRun):
    """Context manager that searches in whatever the pipeline is called with inside of it; see `SteeringRun`.

    The result has equal weights and a `log_z` of NaN, as a search does not sample the target.

    Args:
        pipeline: a diffusers pipeline object.
        prompts: B prompts.
        settings: with a `search`.
        prompt_indices: B indices of the prompts in their data set; None for 0 .. B - 1.
        metadata: what else is known about each prompt.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str],
        settings: SteeringSettings,
        *,
        prompt_indices: Sequence[int] | None = None,
        metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(pipeline, prompts, settings, prompt_indices=prompt_indices, metadata=metadata)
        search = settings.search
        assert search is not None
        self._search: Search = search
        self._selection = SelectionSystem(
            len(self.prompts),
            settings.num_particles,
            resampler=get_resampler(settings.resampler),
            ess_threshold=settings.ess_threshold,
            generator=group_generators(settings.seed, self.prompt_indices, stream="search"),
            on_nan=settings.on_nan,
            on_degenerate=settings.on_degenerate,
        )
        self._system = self._selection
        self._rollover: RolloverTerm | None = None
        if isinstance(search, RolloverBudget) and search.draws > 1 and self._term.reward_scale > 0:
            sources = group_generators(settings.seed, self.prompt_indices, stream="search")
            rows = [source for source in sources for _ in range(settings.num_particles)]
            self._rollover = RolloverTerm(search, self._term, rows, max_batch=settings.max_batch)
        off = self._term.reward_scale == 0
        scale = self._term.reward_scale if search.uses_scale or off else None
        self._settings |= dict.fromkeys(("potential", "reward_schedule", "tempering", "resampler", "ess_threshold"))
        self._settings |= {"reward_scale": scale, "search": search.described()}

    def _check_search(self, settings: SteeringSettings) -> None:
        if settings.search is None:
            raise ValueError("SearchRun expected settings with a search, got search=None; use SteeringRun.")

    def _reward_settings(self, settings: SteeringSettings) -> RewardSettings:
        search = settings.search
        if search is not None and not search.uses_scale and settings.reward_scale is None:
            return replace(settings, reward_scale=1.0)  # of which counts only that it is not 0
        return settings

    def _demands(self, settings: SteeringSettings, term: RewardTerm) -> Demands:
        search, on = settings.search, term.reward_scale > 0
        selects = isinstance(search, Selection) and search.steps(10**6) != () and settings.num_particles > 1
        rolls = isinstance(search, RolloverBudget) and search.draws > 1
        return {
            "resamples": on and selects,
            "weighs_steps": on and rolls,
            "needs_noise": on and rolls,
            "keeps_calls": on and rolls,
        }

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Find the steps that score (called by the interception)."""
        scheduler = self._interception.scheduler
        steps: tuple[int, ...] = ()
        if isinstance(self._search, Selection) and self._resamples:
            steps = self._search.steps(num_steps)
        elif self._rollover is not None:
            steps = tuple(range(num_steps))
        if steps and not is_known(scheduler):
            raise UnsupportedPipelineError(
                f"expected a scheduler with a known denoised prediction, got {type(scheduler).__name__}; use DDIM, "
                "DDPM, Euler ancestral or DPM-Solver++ (SDE), or search=SequentialBestOfN."
            )
        self._term.begin(num_steps, steps=steps)
        if self._rollover is not None:
            self._rollover.begin(num_steps, scheduler, noisy)
        self._allow_resampling(steps, noisy, otherwise="search by SequentialBestOfN")

    def weigh(self, call: StepCall) -> Tensor | StepChange | None:
        """Score the parents of a step, and let the search choose among them."""
        term = self._term
        if call.index not in term.steps:
            return None
        if self._rollover is not None:
            change = self._rollover.improve(call)
            if self._rollover.images is not None:
                self._keep_previews(self._rollover.images)
            self._selection.select(term.reward_path[-1], None, reward_scale=0.0, may_select=False)
            return change
        assert isinstance(self._search, Selection)
        rewards, images = term.score(call.denoised(), where=f"at step {call.index} of {call.num_steps}")
        self._keep_previews(images)
        ancestors = self._selection.select(
            rewards, self._search, reward_scale=term.reward_scale, may_select=call.index in self._may_resample
        )
        if ancestors is None:
            return None
        offsets = torch.arange(ancestors.shape[0], device=ancestors.device).unsqueeze(1) * ancestors.shape[1]
        return (ancestors + offsets).flatten()

    def _close(self, rewards: Tensor, log_potential: Tensor) -> None:
        self._selection.close(rewards)
        if self._rollover is not None:
            self._more_calls = self._rollover.evaluations

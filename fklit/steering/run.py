"""One steered pipeline call: scores the parents at the scheduled steps, resamples them, weighs the finished samples."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fklit.feynman_kac.randomness import group_generators
from fklit.pipelines.call import build_call
from fklit.pipelines.denoised import is_known
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.modality import modality_of
from fklit.pipelines.replay import copied
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.samples import as_samples, thumbnails
from fklit.pipelines.step_call import StepCall, StepChange
from fklit.pipelines.waveforms import sampling_rate_of
from fklit.sampling.prompts import check_indices, check_metadata, check_prompts
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.run import SamplingRun, without_broken
from fklit.sampling.settings import RewardSettings
from fklit.steering.calibration.record import as_calibration
from fklit.steering.goals import check_best
from fklit.steering.proposal_term import ProposalTerm
from fklit.steering.result import SteeringResult
from fklit.steering.settings import SteeringSettings

__all__ = ["DeterministicSamplerError", "NoResamplingWarning", "SteeringRun"]


class Demands(TypedDict):
    """What a run needs of the sampler and the interception; see `SamplingRun`."""

    resamples: bool
    weighs_steps: bool
    needs_noise: bool
    keeps_calls: bool


class NoResamplingWarning(UserWarning):
    """Resampling was asked for, but the only step that might do it is the last."""


class SteeringRun(SamplingRun):
    """Context manager that steers whatever the pipeline is called with inside of it.

    ```python
    settings = SteeringSettings(reward=reward, num_particles=4, reward_scale=10.0)
    with SteeringRun(pipeline, ["a red heart"], settings) as run:
        images = pipeline(**run.call_arguments()).images
    result = run.finish(images)
    ```

    `fklit.steer` does exactly this; use the context manager where the call needs more than `pipeline_kwargs` gives
    (`pipeline(..., num_images_per_prompt=4, generator=run.generators)`).

    At each scheduled step the denoised prediction of every parent x_t is decoded and scored, the particle system is
    updated by the potential, and the parents are resampled where it says so, with their model outputs, the solver's
    history and their reward histories. Only then does the scheduler draw the children. The finished samples are scored
    in `finish`; that last update weighs and never resamples.

    Args:
        pipeline: a diffusers pipeline object.
        prompts: B prompts, as the pipeline is called with them.
        settings: see `SteeringSettings`; an `eta` in its `pipeline_kwargs` is not overridden by `scheduler="auto"`.
        prompt_indices: B indices of the prompts in their data set; None for 0 .. B - 1.
        metadata: what else is known about each prompt, B mappings, for rewards that use it; None for nothing.

    Attributes:
        generators: B * K generators to call the pipeline with.

    Raises:
        ValueError, TypeError: for arguments that do not fit, each with the fix.
        DeterministicSamplerError: at the first step, if resampling is possible but no scheduled step injects noise.
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
        if settings.num_sweeps:
            raise ValueError(
                f"expected num_sweeps=0 with a diffusers pipeline, got {settings.num_sweeps}: its states cannot be put "
                "back; raise num_particles."
            )
        texts = check_prompts(prompts)
        indices = check_indices(prompt_indices, len(texts))
        self._kwargs = dict(settings.pipeline_kwargs or {})
        modality = modality_of(pipeline, self._kwargs)
        known = check_metadata(metadata, texts)
        self._check_search(settings)
        rewarding = self._reward_settings(settings)
        term = RewardTerm(
            pipeline,
            texts,
            rewarding,
            settings,
            modality=modality,
            metadata=known,
            look_ahead=settings.look_ahead,
            prompt_indices=indices,
        )
        self._sampling_rate = sampling_rate_of(pipeline) if modality == "audio" else None
        sources = group_generators(settings.seed, indices)
        eta = self._kwargs.get("eta")
        super().__init__(
            pipeline,
            prompts=texts,
            prompt_indices=indices,
            generators=[source for source in sources for _ in range(settings.num_particles)],
            particles=settings,
            reward=term,
            **self._demands(settings, term),
            eta=None if eta is None else float(eta),
            pipeline_kwargs=self._kwargs,
        )
        self._term = term
        self._calibrated = (
            settings.goal,
            None if settings.calibration is None else as_calibration(settings.calibration),
        )
        self._proposal: ProposalTerm | None = None
        if settings.proposal is not None:
            self._proposal = ProposalTerm(
                settings.proposal, term, len(texts), settings.num_particles, max_batch=settings.max_batch
            )
        self._settings |= {"proposal": None if settings.proposal is None else repr(settings.proposal)}
        self._settings |= {"look_ahead": None if settings.look_ahead is None else repr(settings.look_ahead)}
        self._settings |= {
            "fewer_particles": None if settings.fewer_particles is None else repr(settings.fewer_particles)
        }
        self._fewer = settings.fewer_particles
        self._fewer_from = torch.full((len(texts),), -1)
        self._previews: list[Tensor | None] | None = [] if settings.previews else None

    def _check_search(self, settings: SteeringSettings) -> None:
        if settings.search is not None:
            raise ValueError(
                f"SteeringRun expected search=None, got {settings.search!r}; use fklit.steer, or SearchRun of "
                "fklit.steering.search_run."
            )

    def _reward_settings(self, settings: SteeringSettings) -> RewardSettings:
        """The settings of the reward."""
        return settings

    def _demands(self, settings: SteeringSettings, term: RewardTerm) -> Demands:
        """What the run needs of the sampler and the interception."""
        proposes = settings.proposal is not None
        return {
            "resamples": term.steers and term.schedule.resample_at != (),
            "weighs_steps": proposes,
            "needs_noise": proposes,
            "keeps_calls": proposes or (settings.look_ahead is not None and settings.look_ahead.num_steps > 1),
        }

    def call_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments to call the pipeline with, from the prompts and `pipeline_kwargs`."""
        given = build_call(
            self._pipeline,
            self.prompts,
            self._system.num_particles,
            self.generators,
            self._kwargs,
            scheduler=self._interception.scheduler,
        )
        # Pipelines may edit a list of prompts in place; the caller's, and the one for decoding, stay as they are.
        self._term.decoder.replay.arguments = copied(given)
        return given

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Resolve the schedule, once the number of steps is known (called by the interception)."""
        check_best(*self._calibrated, num_steps=num_steps, describe_run=self.describe_run)
        self._term.begin(num_steps, self.describe_run)
        if self._term.steps and not is_known(self._interception.scheduler):
            raise UnsupportedPipelineError(
                "expected a scheduler with a known denoised prediction, got "
                f"{type(self._interception.scheduler).__name__}; use DDIM, DDPM, Euler ancestral or DPM-Solver++ (SDE) "
                "or potential='terminal'."
            )
        if self._resamples:
            steps = self._term.schedule.resolve_resampling(num_steps)
            if steps and min(steps) >= num_steps - 1:
                warnings.warn(
                    f"no step of this run of {num_steps} can resample, as the last is all that its reward_schedule "
                    "holds, after which clones could not part; score earlier, take more steps, or ask for best-of-n "
                    "with potential='terminal'.",
                    NoResamplingWarning,
                    stacklevel=2,
                )
            self._allow_resampling(steps, noisy, otherwise="ask for best-of-n with potential='terminal'")
        if self._proposal is not None and self._term.reward_scale > 0:
            self._proposal.begin(num_steps, self._interception.scheduler, noisy)

    def weigh(self, call: StepCall) -> Tensor | StepChange | None:
        """Score and resample the parents of one step, and prepare the shift of their children."""
        ancestors = self._resampled(call)
        if self._proposal is None:
            return ancestors
        return StepChange(ancestors, children=self._proposal.plan(call, ancestors))

    def _resampled(self, call: StepCall) -> Tensor | None:
        """Score and resample the parents of one step; return flat ancestors or None."""
        term = self._term
        if call.index not in term.steps:
            return None
        rewards, images = term.score(call.denoised(), where=f"at step {call.index} of {call.num_steps}", call=call)
        self._keep_previews(images)
        if self._proposal is None:
            log_potential = term.update(rewards, self._system.log_weights)
        else:
            ratio = self._proposal.take_log_ratio().to(rewards.device)
            log_potential = term.update(rewards, self._system.log_weights.to(ratio.device) + ratio) + ratio
        may_resample = call.index in self._may_resample
        reduced = self._all_above(rewards) if may_resample else None
        number = 1 if self._fewer is None else self._fewer.number
        ancestors = self._system.update(log_potential, may_resample=may_resample, reduced=reduced, num_kept=number)
        if reduced is not None:
            self._go_on_with(number, reduced, call.index)
        if ancestors is None:
            return None
        term.path.select(ancestors)
        offsets = torch.arange(ancestors.shape[0], device=ancestors.device).unsqueeze(1) * ancestors.shape[1]
        return (ancestors + offsets).flatten()

    def _all_above(self, rewards: Float64[Tensor, "B K"]) -> Bool[Tensor, " B"] | None:
        """Which prompts go on with fewer particles from this step on; None if none does."""
        if self._fewer is None:
            return None
        # Prompts that are scored no more have rewards of NaN, which are above nothing.
        above = (rewards > self._fewer.above) | self._term.path.dead.to(rewards.device)
        found = above.all(dim=1).cpu() & (self._fewer_from < 0)
        return found if bool(found.any()) else None

    def _go_on_with(self, number: int, groups: Bool[Tensor, " B"], step: int) -> None:
        """Have prompts go on with fewer particles, but for those whose particles are all dead."""
        groups = groups & ~self._system.degenerate.cpu()
        self._fewer_from[groups] = step
        self._term.stop_scoring(groups)
        self._interception.share_rows(self._fewer_from >= 0, self._system.num_particles // number)

    def _close(self, rewards: Tensor, log_potential: Tensor) -> None:
        """Weigh the finished samples."""
        if self._proposal is not None:
            log_potential = log_potential + self._proposal.take_log_ratio().to(log_potential.device)
            self._gradient_calls = self._more_calls = self._proposal.evaluations
        self._system.update(log_potential, may_resample=False)

    def _keep_previews(self, images: Tensor | None) -> None:
        if self._previews is not None:
            small = None if images is None else thumbnails(images)
            self._previews.append(None if small is None else small.reshape(len(self.prompts), -1, *small.shape[1:]))

    def finish(self, images: Any, *, returned: Any = None, flagged: Sequence[bool] | None = None) -> SteeringResult:
        """Score the finished samples and close the weights.

        Args:
            images: the B * K samples in the pipeline's order. Images: a float tensor (N, C, H, W) in [0, 1], an array
                (N, H, W, C), or a list of PIL images; videos: a tensor (N, F, C, H, W), an array (N, F, H, W, C), or
                lists of PIL images; audio: (N, C, T) or (N, T). These are scored.
            returned: what the result shows where it is not what is scored (images a safety checker has blackened).
            flagged: the safety checker's verdicts.

        Returns:
            The result; see `SteeringResult`.

        Raises:
            RuntimeError: if the pipeline has not run, stopped before the last scheduled step, or finish ran before.
        """
        term = self._term
        self._check_finished()
        if term.num_scored < len(term.steps):
            raise RuntimeError(
                f"the pipeline stopped after {self._interception.steps_taken} of {self._interception.num_steps} steps, "
                f"before scheduled steps {term.steps[term.num_scored :]}; schedule steps that the call reaches."
            )
        groups, particles = len(self.prompts), self._system.num_particles
        samples = as_samples(images, groups * particles, term.modality)
        broken = self.check_samples(samples)
        rewards, log_potential = term.close(samples, broken)
        self._close(rewards, log_potential)
        shown = samples if returned is None else as_samples(returned, groups * particles, term.modality)
        shown = without_broken(shown, broken)
        return SteeringResult(
            **self._shared_results(len(term.steps)),
            samples=shown.cpu().reshape(groups, particles, *shown.shape[1:]),
            sampling_rate=self._sampling_rate,
            rewards=rewards.cpu(),
            steps=term.steps,
            scored_steps=term.steps,
            reward_path=term.reward_path,
            fewer_particles_from=self._fewer_from if bool((self._fewer_from >= 0).any()) else None,
            num_kept=1 if self._fewer is None else self._fewer.number,
            previews=_joined(self._previews or []),
            flagged=None if flagged is None else [list(flagged[b * particles :][:particles]) for b in range(groups)],
        )


def _joined(previews: Sequence[Tensor | None]) -> Tensor | None:
    """Thumbnails (S, B, K, 3, h, w) on the CPU, black where there are none; None if there are none at all."""
    seen = next((small for small in previews if small is not None), None)
    if seen is None:
        return None
    return torch.stack([torch.zeros_like(seen) if small is None else small for small in previews]).cpu()

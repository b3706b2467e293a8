"""One corrected pipeline call: weighs the guidance of every step, resamples the parents, closes with a reward."""

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.correctors.guidance.prompt_layout import PromptLayout
from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.settings import GuidanceSettings
from fklit.correctors.guidance.weight import guidance_weight, stepwise_kl
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.weights import normalize
from fklit.pipelines.call import build_call
from fklit.pipelines.denoised import UnknownSchedulerError, denoised
from fklit.pipelines.guidance_argument import guidance_argument, guidance_value
from fklit.pipelines.guidance_predictions import guidance_predictions
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.modality import Modality, modality_of
from fklit.pipelines.noise_levels import StepLevels, step_levels
from fklit.pipelines.replay import copied
from fklit.pipelines.samples import as_samples
from fklit.pipelines.step_call import StepCall, StepChange
from fklit.pipelines.transition import as_double
from fklit.pipelines.waveforms import sampling_rate_of
from fklit.sampling.prompts import check_indices, check_metadata
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.run import SamplingRun, without_broken

_DEGENERATE_ESS = 1.5  # effective particles below which K particles are one with copies


class WeightDegeneracyWarning(UserWarning):
    """The weights left little more than one effective particle of each prompt."""


class RescaledGuidanceWarning(UserWarning):
    """The pipeline rescales its guidance, which corrected runs do not."""


class GuidanceRun(SamplingRun):
    """Context manager that corrects the guidance of whatever the pipeline is called with inside of it.

    ```python
    with GuidanceRun(pipeline, ["a red heart"], GuidanceSettings(guidance_scale=7.5)) as run:
        images = pipeline(**run.call_arguments()).images
    result = run.finish(images)
    ```

    `fklit.correct` does exactly this. At every step the conditional and unconditional predictions, which the pipeline
    evaluates anyway, give the weight; with a reward the potentials of FK steering are added at the scheduled steps, and
    the target is the guided law times `exp(reward_scale * reward)`. The parents are resampled where the weights ask
    for it, and only then does the scheduler draw the children.

    Args:
        pipeline: a diffusers pipeline object with classifier-free guidance.
        prompts: B prompts.
        settings: see `GuidanceSettings`.
        prompt_indices: B indices of the prompts in their data set; None for 0 .. B - 1.
        metadata: what else is known about each prompt, B mappings, for rewards that use it; None for nothing.

    Attributes:
        texts: the prompts to call the pipeline with: B, or more where some are composed.
        call_scale: the guidance scale to call it with.
        generators: one a sample to call it with.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str | ComposedPrompt],
        settings: GuidanceSettings,
        *,
        prompt_indices: Sequence[int] | None = None,
        metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    ) -> None:
        particles = settings.num_particles
        layout = PromptLayout(prompts, settings.guidance_scale, num_particles=particles)
        indices = check_indices(prompt_indices, len(layout.names))
        self._layout = layout
        self._given = settings
        self._weight_schedule = Schedule() if settings.weight_schedule is None else settings.weight_schedule
        self._resample_schedule = Schedule() if settings.resample_schedule is None else settings.resample_schedule
        # One particle, and one exponent of 1, need no correction.
        guided = self._is_guided(layout) and self._weight_schedule.indices != ()
        self._weighs = settings.correction > 0 and particles > 1 and guided
        known = check_metadata(metadata, layout.names)
        self._kwargs = dict(settings.pipeline_kwargs or {})
        self._modality = modality_of(pipeline, self._kwargs)
        self._sampling_rate = sampling_rate_of(pipeline) if self._modality == "audio" else None
        term = None
        if settings.reward is not None:
            term = RewardTerm(pipeline, layout.names, settings, settings, modality=self._modality, metadata=known)
        steers = term is not None and term.steers
        self._scale_name = self._find_scale_name(pipeline)
        if self._scale_name in self._kwargs:
            raise TypeError(
                f"pipeline_kwargs expected no {self._scale_name!r}, which is an argument of its own; give "
                "guidance_scale=."
            )
        eta = self._kwargs.get("eta")
        super().__init__(
            pipeline,
            prompts=layout.names,
            prompt_indices=indices,
            generators=layout.generators(settings.seed, indices),
            particles=settings,
            reward=term,
            resamples=(self._weighs or steers) and self._resample_schedule.indices != (),
            weighs_steps=self._weighs or self._replaces_output,
            eta=None if eta is None else float(eta),
            pipeline_kwargs=self._kwargs,
        )
        self.texts = layout.texts
        self.call_scale = layout.call_scale
        self._weighted: frozenset[int] = frozenset()
        self._rescaled = False
        self._log_weight_std: list[Tensor] = []
        self._stepwise_kl: list[Tensor] = []
        self._settings |= {
            "guidance_scale": settings.guidance_scale,
            "correction": settings.correction,
            "increment": settings.increment,
            "weight_schedule": repr(self._weight_schedule),
            "resample_schedule": repr(self._resample_schedule),
        }

    def _find_scale_name(self, pipeline: Any) -> str:
        return guidance_argument(pipeline, self._kwargs)

    def _is_guided(self, layout: PromptLayout) -> bool:
        return any(scales != (1.0,) for scales in layout.scales)

    @property
    def _replaces_output(self) -> bool:
        """Whether the model output that is stepped is combined here."""
        return self._layout.composed

    def _combined(self, predictions: tuple[Tensor, Tensor], call: StepCall) -> Tensor:
        return self._layout.combine(*predictions, call.model_output)

    def call_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments to call the pipeline with, from the prompts and `pipeline_kwargs`."""
        given = {**self._kwargs, self._scale_name: guidance_value(self._pipeline, self.call_scale)}
        found = build_call(
            self._pipeline,
            self.texts,
            self._system.num_particles,
            self.generators,
            given,
            scheduler=self._interception.scheduler,
        )
        if self._reward is not None:
            self._reward.decoder.replay.arguments = copied(found)
        return found

    def name_of_row(self, row: int) -> str:
        """Name a row of the call, for messages."""
        return self._layout.name_of_row(row)

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Look at the scheduler, and find the steps that weigh and may resample (called by the interception)."""
        config = getattr(self._interception.scheduler, "config", {})
        if self._weighs and (config.get("clip_sample", False) or config.get("thresholding", False)):
            raise UnsupportedPipelineError(
                f"{type(self._interception.scheduler).__name__} clips or thresholds its predictions, which the weights "
                "of guidance do not account for; build it with clip_sample=False and thresholding=False."
            )
        if self._weighs:
            self._weighted = frozenset(self._weight_schedule.resolve(num_steps))
        if self._reward is not None:
            self._reward.begin(num_steps, self.describe_run)
        if self._resamples:
            steps = self._resample_schedule.resolve_resampling(num_steps)
            self._allow_resampling(steps, noisy, otherwise="set ess_threshold=0 to weigh without resampling")

    def weigh(self, call: StepCall) -> Tensor | StepChange | None:
        """Weigh and resample the parents of one step."""
        predictions = self._predictions(call)
        output = None
        if predictions is not None and (self._replaces_output or self._rescaled):
            output = self._combined(predictions, call)
        increment = self._weigh_step(call, predictions)
        term = self._reward
        if term is not None and call.index in term.steps:
            combined = call.model_output if output is None else output
            latents = self._layout.own(denoised(call.scheduler, combined, call.timestep, call.sample))
            rewards, _ = term.score(latents, where=f"at step {call.index} of {call.num_steps}", call=call)
            increment = increment + term.update(rewards, self._system.log_weights).to(increment.device)
        ancestors = self._system.update(increment, may_resample=call.index in self._may_resample)
        if ancestors is None:
            return None if output is None else StepChange(model_output=output)
        if term is not None:
            term.path.select(ancestors)
        return StepChange(self._layout.flat_ancestors(ancestors), output)

    def _predictions(self, call: StepCall) -> tuple[Tensor, Tensor] | None:
        found = guidance_predictions(call, self.call_scale)
        if found is not None:
            self._rescaled = found.rescaled and self._weighs
            if self._rescaled and call.index == 0:
                warnings.warn(
                    f"{type(self._pipeline).__name__} brings its guided prediction to the norm of the conditional one, "
                    "which is the score of no product; the steps of this run take the plain combination, whose weights "
                    "are known. Set correction=0 for the pipeline's own.",
                    RescaledGuidanceWarning,
                    stacklevel=2,
                )
            return found.conditional, found.unconditional
        if call.index not in self._weighted and not self._layout.composed:
            return None
        raise UnsupportedPipelineError(
            f"at step {call.index} the model output of {type(self._pipeline).__name__} is not unconditional + "
            f"{self.call_scale:g} * (conditional - unconditional) of what its denoiser returned, so its guidance "
            "cannot be weighed; use plain classifier-free guidance at every step (no guidance_rescale, no distilled "
            "guidance, no perturbed attention) with a scale above 1."
        )

    def _weigh_step(self, call: StepCall, predictions: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log weights (B, K) of a step; records the standard deviation of the exact ones and the stepwise KL."""
        groups, particles = self._system.num_groups, self._system.num_particles
        exact = as_double(call.sample.new_zeros(groups, particles))
        divergence = torch.full_like(exact, math.nan)
        known = predictions is not None
        if predictions is not None:
            try:
                levels = step_levels(call.scheduler, call.timestep)
            except UnknownSchedulerError:
                if call.index in self._weighted:
                    raise
                known = False
            else:
                exact, divergence = self._exact(call, predictions, levels)
        unguided = all(scales == (1.0,) for scales in self._layout.scales)
        deviation = self._moments(exact)[1]
        self._log_weight_std.append(deviation if known or unguided else torch.full_like(deviation, math.nan))
        self._stepwise_kl.append(self._moments(divergence)[0])
        return self._given.correction * exact if call.index in self._weighted else torch.zeros_like(exact)

    def _exact(self, call: StepCall, predictions: tuple[Tensor, Tensor], levels: StepLevels) -> tuple[Tensor, Tensor]:
        conditional, unconditional = (
            denoised(call.scheduler, prediction, call.timestep, call.sample) for prediction in predictions
        )
        weights, divergences = [], []
        for b in range(self._system.num_groups):
            experts, exponents = self._layout.experts(b, conditional, unconditional)
            weights.append(guidance_weight(experts, exponents, levels, self._given.increment))
            divergences.append(stepwise_kl(experts, levels))
        return torch.stack(weights), torch.stack(divergences)

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and standard deviation within each prompt's particles, (B,)."""
        weights = normalize(self._system.log_weights).to(values.device)
        values = torch.where(weights > 0, values, 0.0)
        mean = (weights * values).sum(dim=1, keepdim=True)
        return mean.squeeze(1).cpu(), (weights * (values - mean).square()).sum(dim=1).sqrt().cpu()

    def finish(self, samples: Any, *, returned: Any = None, flagged: Sequence[bool] | None = None) -> GuidanceResult:
        """Close the weights with the terminal reward, if there is one.

        Args:
            samples: what the pipeline returned, one a generator: images, videos or audio in any form of
                `fklit.pipelines.samples.as_samples`, or a float tensor (N, ...) of anything else.
            returned: what the result shows where it is not what is scored.
            flagged: the safety checker's verdicts.

        Raises:
            RuntimeError: if the pipeline has not run to its end, or finish ran before.
        """
        self._check_finished()
        steps, expected = self._interception.steps_taken, int(self._interception.num_steps or 0)
        if steps < expected:
            raise RuntimeError(f"the pipeline stopped after {steps} of {expected} steps; let it run to its end.")
        groups, particles = self._system.num_groups, self._system.num_particles
        tensor = _as_tensor(samples, len(self.generators), self._modality)
        found, broken = (self._layout.own(rows) for rows in (tensor, self.check_samples(tensor)))
        term, rewards = self._reward, None
        if term is not None:
            rewards, log_potential = term.close(found, broken)
            self._system.update(log_potential, may_resample=False)
        elif bool(broken.any()):  # weight zero, and a last row of ess
            zeros = torch.zeros(groups, particles, dtype=torch.float64)
            self._system.update(zeros.masked_fill(broken.reshape(groups, particles), math.nan), may_resample=False)
        shown = found
        if returned is not None:
            shown = self._layout.own(_as_tensor(returned, len(self.generators), self._modality))
        shown = without_broken(shown, broken)
        self._warn_of_degeneracy(steps)
        flags = None if flagged is None else self._layout.own(torch.tensor(list(flagged))).reshape(groups, particles)
        return GuidanceResult(
            **self._shared_results(steps),
            samples=shown.cpu().reshape(groups, particles, *shown.shape[1:]),
            sampling_rate=self._sampling_rate,
            log_weight_std=torch.stack(self._log_weight_std),
            stepwise_kl=torch.stack(self._stepwise_kl),
            weighted_steps=tuple(sorted(self._weighted)),
            rewards=None if rewards is None else rewards.cpu(),
            reward_path=None if term is None else term.reward_path,
            steps=tuple(range(steps)),
            scored_steps=() if term is None else term.steps,
            flagged=None if flags is None else flags.tolist(),
        )

    def _warn_of_degeneracy(self, steps: int) -> None:
        particles = self._system.num_particles
        if not self._weighs or particles < 4:
            return
        alone = torch.stack(self._system.ess_trace[:steps]).amin(dim=0) < _DEGENERATE_ESS
        if 2 * int(alone.sum()) <= len(self.prompts):
            return
        warnings.warn(
            f"the weights of guidance left fewer than {_DEGENERATE_ESS} effective particles of {particles} in "
            f"{int(alone.sum())} of {len(self.prompts)} prompts, whose samples are copies of one; raise num_particles, "
            "lower correction or guidance_scale, or weigh fewer steps "
            "(fklit.correctors.guidance.prompt_divergence tells which of them a learned model can be trusted with).",
            WeightDegeneracyWarning,
            stacklevel=4,
        )


def _as_tensor(samples: Any, count: int, modality: Modality) -> Tensor:
    if isinstance(samples, Tensor) and samples.ndim < 4 and samples.is_floating_point() and modality == "image":
        if samples.shape[0] != count:
            raise ValueError(f"expected {count} samples, one a particle, got {samples.shape[0]}; pass all of them.")
        return samples.detach().float()
    return as_samples(samples, count, modality)

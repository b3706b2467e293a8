"""One corrected pipeline call: weighs the guidance of every step, resamples the parents, closes with a reward."""

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice, check_fraction
from fklit.correctors.guidance.prompt_layout import PromptLayout
from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.weight import (
    INCREMENTS,
    GuidanceIncrement,
    as_double,
    guidance_weight,
    prompt_information,
)
from fklit.feynman_kac.potentials import Potential, get_potential
from fklit.feynman_kac.resampling import Resampler
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.weights import OnDegenerate, OnNan, normalize
from fklit.pipelines.call import check_indices
from fklit.pipelines.denoised import UnknownSchedulerError, denoised
from fklit.pipelines.guidance_predictions import guidance_predictions
from fklit.pipelines.images import as_unit_images
from fklit.pipelines.interception import StepCall, StepChange, UnsupportedPipelineError
from fklit.pipelines.noise_levels import StepLevels, step_levels
from fklit.rewards.base import Reward
from fklit.rewards.scoring import as_reward, chosen_scale
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.run import SamplingRun

_ALONE = 1.5  # effective particles below which a group is one particle with copies


class WeightDegeneracyWarning(UserWarning):
    """The weights left little more than one particle of each group."""


class GuidanceRun(SamplingRun):
    """Context manager that corrects the guidance of whatever the pipeline is called with inside of it.

    ::

        with GuidanceRun(pipeline, ["a red heart"], guidance_scale=7.5, num_particles=8) as run:
            images = pipeline(run.texts, guidance_scale=run.call_scale, num_images_per_prompt=8,
                              generator=run.generators).images
        result = run.finish(images)

    ``fklit.correct`` does exactly this. At every step the conditional and unconditional predictions, which the pipeline
    evaluates anyway, give the weight; with a reward the potentials of FK steering are added at the scheduled steps, and
    the target is the guided law times ``exp(reward_scale * reward)``. The parents are resampled where the weights ask
    for it, and only then does the scheduler draw the children.

    Args: as of :func:`fklit.correctors.correct`; ``eta`` is the one that the pipeline will be called with.

    Attributes:
        texts: the prompts to call the pipeline with: B, or more where some are composed.
        call_scale: the guidance scale to call it with.
        generators: one a sample to call it with.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str | ComposedPrompt],
        *,
        guidance_scale: float = 7.5,
        num_particles: int = 8,
        correction: float = 1.0,
        increment: GuidanceIncrement = "net_interval",
        weigh: Schedule | None = None,
        reward: Reward | Callable[..., Any] | None = None,
        reward_scale: float | None = None,
        potential: Potential | str = "difference",
        schedule: Schedule | None = None,
        resample: Schedule | None = None,
        resampler: Resampler | str = "systematic",
        ess_threshold: float = 0.9,
        seed: int = 0,
        prompt_indices: Sequence[int] | None = None,
        scheduler: Literal["auto", "keep"] = "auto",
        eta: float | None = None,
        max_batch: int | None = None,
        on_nan: OnNan = "error",
        on_degenerate: OnDegenerate = "error",
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        layout = PromptLayout(prompts, guidance_scale, num_particles=num_particles)
        indices = check_indices(prompt_indices, len(layout.names))
        self._layout = layout
        self._correction = check_fraction("correction", correction)
        self._increment: GuidanceIncrement = increment
        check_choice("increment", increment, INCREMENTS)
        self._weigh = Schedule() if weigh is None else weigh
        self._resample = Schedule() if resample is None else resample
        # One particle, and one exponent of 1, need no correction.
        guided = any(scales != (1.0,) for scales in layout.scales) and self._weigh.indices != ()
        self._weighs = self._correction > 0 and num_particles > 1 and guided
        term = None
        if reward is not None:
            chosen = as_reward(reward)
            term = RewardTerm(
                pipeline,
                chosen,
                layout.names,
                num_particles,
                reward_scale=chosen_scale(chosen, reward_scale),
                potential=get_potential(potential),
                schedule=schedule,
                max_batch=max_batch,
                on_nan=on_nan,
                decode=decode,
            )
        elif reward_scale is not None:
            raise ValueError(f"reward_scale={reward_scale!r} was given without a reward; give reward= as well.")
        steers = term is not None and term.steers
        super().__init__(
            pipeline,
            prompts=layout.names,
            prompt_indices=indices,
            generators=layout.generators(seed, indices),
            num_particles=num_particles,
            reward=term,
            resamples=(self._weighs or steers) and self._resample.indices != (),
            resampler=resampler,
            ess_threshold=ess_threshold,
            on_nan=on_nan,
            on_degenerate=on_degenerate,
            seed=seed,
            scheduler=scheduler,
            eta=eta,
            max_batch=max_batch,
        )
        self.texts = layout.texts
        self.call_scale = layout.call_scale
        self._weighed: frozenset[int] = frozenset()
        self._spread: list[Tensor] = []
        self._information: list[Tensor] = []
        self._settings |= {
            "guidance_scale": guidance_scale,
            "correction": self._correction,
            "increment": increment,
            "weigh": repr(self._weigh),
            "reward": None if term is None else type(term.reward).__name__,
            "reward_scale": None if term is None else term.reward_scale,
            "potential": None if term is None else repr(term.potential),
            "schedule": None if term is None else repr(term.schedule),
            "resample": repr(self._resample),
        }

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Look at the scheduler, and find the steps that weigh and may resample (called by the interception)."""
        config = getattr(self._interception.scheduler, "config", {})
        if self._weighs and (config.get("clip_sample", False) or config.get("thresholding", False)):
            raise UnsupportedPipelineError(
                f"{type(self._interception.scheduler).__name__} clips or thresholds its predictions, which the weights "
                "of guidance do not account for; build it with clip_sample=False and thresholding=False."
            )
        if self._weighs:
            self._weighed = frozenset(self._weigh.resolve(num_steps))
        if self._reward is not None:
            self._reward.begin(num_steps)
        if self._resamples:
            steps = self._resample.resolve_resampling(num_steps)
            self._allow_resampling(steps, noisy, otherwise="set ess_threshold=0 to weigh without resampling")

    @torch.no_grad()
    def step(self, call: StepCall) -> Tensor | StepChange | None:
        """Weigh and resample the parents of one step (called by the interception)."""
        halves = self._halves(call)
        output = None
        if self._layout.composed and halves is not None:
            output = self._layout.combine(*halves, call.model_output)
        increment = self._weigh_step(call, halves)
        term = self._reward
        if term is not None and call.index in term.steps:
            combined = call.model_output if output is None else output
            latents = self._layout.own(denoised(call.scheduler, combined, call.timestep, call.sample))
            rewards, _ = term.score(latents, where=f"at step {call.index} of {call.num_steps}")
            increment = increment + term.path.update(rewards, term.reward_scale).to(increment.device)
        ancestors = self._system.update(increment, may_resample=call.index in self._may_resample)
        if ancestors is None:
            return None if output is None else StepChange(model_output=output)
        if term is not None:
            term.path.select(ancestors)
        return StepChange(self._layout.flat_ancestors(ancestors), output)

    def _halves(self, call: StepCall) -> tuple[Tensor, Tensor] | None:
        halves = guidance_predictions(call, self.call_scale)
        if halves is not None:
            return halves.conditional, halves.unconditional
        if call.index not in self._weighed and not self._layout.composed:
            return None
        raise UnsupportedPipelineError(
            f"at step {call.index} the model output of {type(self._pipeline).__name__} is not unconditional + "
            f"{self.call_scale:g} * (conditional - unconditional) of what its denoiser returned, so its guidance "
            "cannot be weighed; use plain classifier-free guidance at every step (no guidance_rescale, no distilled "
            "guidance, no perturbed attention) with a scale above 1."
        )

    def _weigh_step(self, call: StepCall, halves: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log weights (B, K) of a step; remembers how far the exact ones spread and how much the prompts tell."""
        groups, particles = self._system.num_groups, self._system.num_particles
        exact = as_double(call.sample.new_zeros(groups, particles))
        nats = torch.full_like(exact, math.nan)
        known = halves is not None
        if halves is not None:
            try:
                levels = step_levels(call.scheduler, call.timestep)
            except UnknownSchedulerError:
                if call.index in self._weighed:
                    raise
                known = False
            else:
                exact, nats = self._exact(call, halves, levels)
        unguided = all(scales == (1.0,) for scales in self._layout.scales)
        deviation = self._moments(exact)[1]
        self._spread.append(deviation if known or unguided else torch.full_like(deviation, math.nan))
        self._information.append(self._moments(nats)[0])
        return self._correction * exact if call.index in self._weighed else torch.zeros_like(exact)

    def _exact(self, call: StepCall, halves: tuple[Tensor, Tensor], levels: StepLevels) -> tuple[Tensor, Tensor]:
        conditional, unconditional = (denoised(call.scheduler, half, call.timestep, call.sample) for half in halves)
        weights, nats = [], []
        for b in range(self._system.num_groups):
            predictions, exponents = self._layout.experts(b, conditional, unconditional)
            weights.append(guidance_weight(predictions, exponents, levels, self._increment))
            nats.append(prompt_information(predictions, levels))
        return torch.stack(weights), torch.stack(nats)

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and standard deviation within each group, (B,)."""
        weights = normalize(self._system.log_weights).to(values.device)
        values = torch.where(weights > 0, values, 0.0)
        mean = (weights * values).sum(dim=1, keepdim=True)
        return mean.squeeze(1).cpu(), (weights * (values - mean).square()).sum(dim=1).sqrt().cpu()

    def finish(self, samples: Any, *, returned: Any = None, flagged: Sequence[bool] | None = None) -> GuidanceResult:
        """Close the weights with the terminal reward, if there is one.

        Args:
            samples: what the pipeline returned, one a generator: images in any form of
                :func:`fklit.pipelines.images.as_unit_images`, or a float tensor (N, ...) of anything else.
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
        found = self._layout.own(_as_tensor(samples, len(self.generators)))
        term, rewards = self._reward, None
        if term is not None:
            rewards, log_potential = term.close(found)
            self._system.update(log_potential, may_resample=False)
        shown = found if returned is None else self._layout.own(_as_tensor(returned, len(self.generators)))
        self._warn_of_collapse(steps)
        flags = None if flagged is None else self._layout.own(torch.tensor(list(flagged))).reshape(groups, particles)
        return GuidanceResult(
            **self._shared_results(steps),
            samples=shown.cpu().reshape(groups, particles, *shown.shape[1:]),
            spread=torch.stack(self._spread),
            weighed=tuple(sorted(self._weighed)),
            information=torch.stack(self._information),
            rewards=None if rewards is None else rewards.cpu(),
            reward_path=None if term is None else term.reward_path,
            steps=() if term is None else term.steps,
            flagged=None if flags is None else flags.tolist(),
        )

    def _warn_of_collapse(self, steps: int) -> None:
        particles = self._system.num_particles
        if not self._weighs or particles < 4:
            return
        alone = torch.stack(self._system.ess_trace[:steps]).amin(dim=0) < _ALONE
        if 2 * int(alone.sum()) <= len(self.prompts):
            return
        warnings.warn(
            f"the weights of guidance left fewer than {_ALONE} effective particles of {particles} in "
            f"{int(alone.sum())} of {len(self.prompts)} groups, whose samples are copies of one; raise num_particles, "
            "lower correction or guidance_scale, or weigh fewer steps "
            "(fklit.correctors.guidance.prompt_divergence tells which of them a learned model can be trusted with).",
            WeightDegeneracyWarning,
            stacklevel=4,
        )


def _as_tensor(samples: Any, count: int) -> Tensor:
    if isinstance(samples, Tensor) and samples.ndim != 4 and samples.is_floating_point():
        if samples.shape[0] != count:
            raise ValueError(f"{samples.shape[0]} samples were given for {count} particles; give one a particle.")
        return samples.detach().float()
    return as_unit_images(samples, count)

"""One corrected pipeline call: weighs the guidance of every step, resamples the parents, closes with a reward."""

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.correctors.guidance_weight import INCREMENTS, GuidanceIncrement, guidance_weight, prompt_information
from fklit.correctors.guided_result import GuidedResult
from fklit.correctors.prompt_layout import PromptLayout
from fklit.correctors.prompts import ComposedPrompt
from fklit.feynman_kac._checks import check_choice, check_fraction
from fklit.feynman_kac.genealogy import roots
from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.potentials import Potential, RewardPath
from fklit.feynman_kac.potentials import potential as potential_by_name
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.resampling import Resampler
from fklit.feynman_kac.resampling import resampler as resampler_by_name
from fklit.feynman_kac.result import Budget
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.weights import OnDegenerate, OnNan, normalise
from fklit.models.call import check_indices
from fklit.models.decode import decode_latents
from fklit.models.denoised import UnknownSchedulerError, denoised
from fklit.models.halves import guidance_halves
from fklit.models.images import as_unit_images
from fklit.models.meter import Meter
from fklit.models.noise_levels import StepLevels, step_levels
from fklit.models.pipeline import Interception, StepCall, StepChange, UnsupportedPipelineError
from fklit.models.sampler import DeterministicSamplerError, choose_sampler
from fklit.models.stochasticity import SchedulerSwapWarning
from fklit.rewards.base import Reward
from fklit.rewards.scoring import Scorer, as_reward, chosen_scale


class GuidanceRun:
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
        self._layout = PromptLayout(prompts, guidance_scale, num_particles=num_particles)
        self.prompts = self._layout.names
        self.prompt_indices = check_indices(prompt_indices, len(self.prompts))
        self.texts = self._layout.texts
        self.call_scale = self._layout.call_scale
        self._correction = check_fraction("correction", correction)
        self._increment: GuidanceIncrement = increment
        check_choice("increment", increment, INCREMENTS)
        self._pipeline = pipeline
        self._weigh = Schedule() if weigh is None else weigh
        self._resample = Schedule() if resample is None else resample
        self._system = ParticleSystem(
            len(self.prompts),
            num_particles,
            resampler=resampler_by_name(resampler),
            ess_threshold=ess_threshold,
            generator=group_generators(seed, self.prompt_indices, stream="resampling"),
            on_nan=on_nan,
            on_degenerate=on_degenerate,
        )
        self.generators = self._layout.generators(seed, self.prompt_indices)
        self._reward: Reward | None = None if reward is None else as_reward(reward)
        self._reward_scale = _check_scale(reward_scale, self._reward)
        self._potential = potential_by_name(potential)
        self._schedule = Schedule(start=0.2, stop=0.8, every=0.1) if schedule is None else schedule
        self._scorer = None
        if self._reward is not None:
            self._scorer = Scorer(self._reward, self.prompts, num_particles, max_batch=max_batch, on_nan=on_nan)
        self._path: RewardPath | None = None
        self._scored: tuple[int, ...] = ()
        self._rewards: list[Tensor] = []
        self._spread: list[Tensor] = []
        self._information: list[Tensor] = []
        self._weighed: frozenset[int] = frozenset()
        self._may_resample: frozenset[int] = frozenset()
        self._decode = decode
        self._own_decodes = 0
        self._finished = False
        sampler = choose_sampler(pipeline, scheduler, eta=eta, resamples=self._can_resample)
        self._swap = sampler.swap
        self._sampler = sampler.name
        self._interception = Interception(
            pipeline, self, generators=self.generators, scheduler=sampler.scheduler, eta=sampler.eta,
            max_batch=max_batch,
        )  # fmt: skip
        self._meter: Meter | None = None
        self._settings = {
            "seed": seed,
            "num_particles": num_particles,
            "guidance_scale": guidance_scale,
            "correction": self._correction,
            "increment": increment,
            "weigh": repr(self._weigh),
            "reward": None if self._reward is None else type(self._reward).__name__,
            "reward_scale": None if self._reward is None else self._reward_scale,
            "potential": None if self._reward is None else repr(self._potential),
            "schedule": None if self._reward is None else repr(self._schedule),
            "resample": repr(self._resample),
            "resampler": getattr(self._system.resampler, "__name__", repr(self._system.resampler)),
            "ess_threshold": ess_threshold,
            "sampler": sampler.name,
            "max_batch": max_batch,
        }

    @property
    def _weighs(self) -> bool:
        """Whether the guidance changes the weights: one particle, and one exponent of 1, need no correction."""
        guided = any(scales != (1.0,) for scales in self._layout.scales) and self._weigh.indices != ()
        return self._correction > 0 and self._system.num_particles > 1 and guided

    @property
    def _steers(self) -> bool:
        scores = self._potential.scores_intermediate and self._schedule.indices != ()
        return self._reward is not None and self._reward_scale > 0 and scores and self._system.num_particles > 1

    @property
    def _can_resample(self) -> bool:
        return (self._weighs or self._steers) and self._system.ess_threshold > 0 and self._resample.indices != ()

    def __enter__(self) -> "GuidanceRun":
        if self._swap is not None:
            warnings.warn(self._swap, SchedulerSwapWarning, stacklevel=3)
        if self._reward is not None:
            self._reward.load()
        self._meter = Meter(getattr(self._pipeline, "_execution_device", "cpu"))
        self._interception.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        return self._interception.__exit__(kind, error, trace)

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Look at the scheduler, and find the steps that may resample (called by the interception)."""
        config = getattr(self._interception.scheduler, "config", {})
        if self._weighs and (config.get("clip_sample", False) or config.get("thresholding", False)):
            raise UnsupportedPipelineError(
                f"{type(self._interception.scheduler).__name__} clips or thresholds its predictions, which the weights "
                "of guidance do not account for; build it with clip_sample=False and thresholding=False."
            )
        if self._weighs:
            self._weighed = frozenset(self._weigh.resolve(num_steps))
        if self._reward is not None:
            if self._potential.scores_intermediate:
                self._scored = self._schedule.resolve(num_steps)
            self._path = RewardPath(
                self._potential, len(self.prompts), self._system.num_particles, num_points=len(self._scored)
            )
        if not self._can_resample:
            return
        wanted = [step for step in self._resample.resolve_resampling(num_steps) if step < num_steps - 1]
        found = noisy(wanted)
        self._may_resample = frozenset(step for step in wanted if found[step])
        if wanted and not self._may_resample:
            raise DeterministicSamplerError(
                f"the sampler {self._sampler} injects no noise at any step, so clones of a particle would never "
                "separate; call with eta=1 (DDIM), use algorithm_type='sde-dpmsolver++' (DPM-Solver++) or "
                "scheduler='auto', or set ess_threshold=0 to weigh without resampling."
            )

    @torch.no_grad()
    def step(self, call: StepCall) -> Tensor | StepChange | None:
        """Weigh and resample the parents of one step (called by the interception)."""
        halves = self._halves(call)
        output = None
        if self._layout.composed and halves is not None:
            output = self._layout.combine(*halves, call.model_output)
        increment = self._weigh_step(call, halves)
        if call.index in self._scored:
            increment = increment + self._reward_potential(call, output).to(increment.device)
        ancestors = self._system.update(increment, may_resample=call.index in self._may_resample)
        if ancestors is None:
            return None if output is None else StepChange(model_output=output)
        if self._path is not None:
            self._path.select(ancestors)
        return StepChange(self._layout.flat_ancestors(ancestors), output)

    def _halves(self, call: StepCall) -> tuple[Tensor, Tensor] | None:
        halves = guidance_halves(call, self.call_scale)
        if halves is not None:
            return halves.conditional, halves.unconditional
        if not self._weighs and not self._layout.composed:
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
        exact = torch.zeros(groups, particles, dtype=torch.float64, device=call.sample.device)
        nats = torch.full_like(exact, math.nan)
        known = halves is not None
        if halves is not None:
            try:
                levels = step_levels(call.scheduler, call.timestep)
            except UnknownSchedulerError:
                if self._weighs:
                    raise
                known = False
            else:
                exact, nats = self._exact(call, halves, levels)
        unguided = all(scales == (1.0,) for scales in self._layout.scales)
        deviation = self._moments(exact)[1]
        self._spread.append(deviation if known or unguided else torch.full_like(deviation, math.nan))
        self._information.append(self._moments(nats)[0])
        weighed = self._weighs and call.index in self._weighed
        return self._correction * exact if weighed else torch.zeros_like(exact)

    def _exact(self, call: StepCall, halves: tuple[Tensor, Tensor], levels: StepLevels) -> tuple[Tensor, Tensor]:
        conditional, unconditional = (denoised(call.scheduler, half, call.timestep, call.sample) for half in halves)
        weights, nats = [], []
        for b in range(self._system.num_groups):
            predictions, exponents = self._layout.experts(b, conditional, unconditional)
            weights.append(guidance_weight(predictions, exponents, levels, self._increment))
            nats.append(prompt_information(predictions, levels))
        return torch.stack(weights), torch.stack(nats)

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and standard deviation within each swarm, (B,)."""
        weights = normalise(self._system.log_weights).to(values.device)
        values = torch.where(weights > 0, values, 0.0)
        mean = (weights * values).sum(dim=1, keepdim=True)
        return mean.squeeze(1).cpu(), (weights * (values - mean).square()).sum(dim=1).sqrt().cpu()

    def _reward_potential(self, call: StepCall, output: Tensor | None) -> Tensor:
        assert self._path is not None and self._scorer is not None
        combined = call.model_output if output is None else output
        latents = self._layout.own(denoised(call.scheduler, combined, call.timestep, call.sample))
        if self._decode is None:
            images = decode_latents(self._pipeline, latents)
        else:
            self._own_decodes += latents.shape[0]
            images = as_unit_images(self._decode(latents), latents.shape[0])
        rewards = self._scorer(images, where=f"at step {call.index} of {call.num_steps}")
        self._rewards.append(rewards.cpu())
        return self._path.update(rewards, self._reward_scale)

    def decoded(self) -> Tensor | None:
        """What the pipeline decoded last, before a safety checker touched it; None without an autoencoder."""
        return self._interception.decoder.last

    def finish(self, samples: Any, *, returned: Any = None, flagged: Sequence[bool] | None = None) -> GuidedResult:
        """Close the weights with the terminal reward, if there is one.

        Args:
            samples: what the pipeline returned, one a generator: images in any form of
                :func:`fklit.models.images.as_unit_images`, or a float tensor (N, ...) of anything else.
            returned: what the result shows where it is not what is scored.
            flagged: the safety checker's verdicts.

        Raises:
            RuntimeError: if the pipeline has not run to its end, or finish ran before.
        """
        if self._meter is None or self._interception.steps_taken == 0 or self._finished:
            raise RuntimeError(
                "finish() needs one finished call of the pipeline inside the context, and is called once; make a new "
                "GuidanceRun for another call."
            )
        if self._interception.steps_taken < int(self._interception.num_steps or 0):
            raise RuntimeError(
                f"the pipeline stopped after {self._interception.steps_taken} of {self._interception.num_steps} steps."
            )
        self._finished = True
        groups, particles = self._system.num_groups, self._system.num_particles
        found = self._layout.own(_as_tensor(samples, len(self.generators)))
        rewards = None
        if self._scorer is not None:
            assert self._path is not None
            rewards = self._scorer(found, where="at the finished samples")
            self._system.update(self._path.terminal(rewards, self._reward_scale), may_resample=False)
            rewards = rewards.cpu()
        shown = found if returned is None else self._layout.own(_as_tensor(returned, len(self.generators)))
        shown = shown.cpu().reshape(groups, particles, *shown.shape[1:])
        if flagged is not None:
            flags = self._layout.own(torch.tensor(list(flagged))).reshape(groups, particles).tolist()
            return self._result(shown, rewards, flags)
        return self._result(shown, rewards, None)

    def _result(self, samples: Tensor, rewards: Tensor | None, flagged: list[list[bool]] | None) -> GuidedResult:
        system, steps = self._system, len(self._spread)
        groups, particles = system.num_groups, system.num_particles
        identity = torch.arange(particles).expand(groups, particles)
        ancestors = [identity if a is None else a.cpu() for a in system.ancestors[:steps]]
        living = system.log_weights.cpu() > -math.inf
        origin = roots(ancestors, num_groups=groups, num_particles=particles)[-1]
        meter = self._meter
        assert meter is not None
        scored = self._reward is not None
        empty = torch.zeros(0, groups, particles, dtype=torch.float64)
        return GuidedResult(
            prompts=self.prompts,
            prompt_indices=self.prompt_indices,
            samples=samples,
            log_weights=torch.log_softmax(system.log_weights, dim=1).cpu(),
            log_z=system.log_z.cpu(),
            ess=torch.stack(system.ess_trace).cpu(),
            spread=torch.stack(self._spread),
            information=torch.stack(self._information),
            ancestors=torch.stack(ancestors),
            resampled=torch.stack(system.resampled_trace[:steps]).cpu(),
            degenerate=system.degenerate.cpu(),
            unique_roots=torch.tensor([len(set(r[a].tolist())) for r, a in zip(origin, living, strict=True)]),
            num_steps=steps,
            rewards=rewards,
            reward_path=(torch.stack(self._rewards) if self._rewards else empty) if scored else None,
            steps=self._scored,
            flagged=flagged,
            settings=self._settings,
            budget=Budget(
                denoiser_calls=self._interception.denoiser_calls,
                decodes=self._interception.decoder.decodes + self._own_decodes,
                reward_calls=0 if self._scorer is None else self._scorer.reward_calls,
                seconds=meter.seconds(),
                peak_memory_bytes=meter.peak_memory_bytes(),
            ),
        )


def _check_scale(scale: float | None, reward: Reward | None) -> float:
    if reward is None:
        if scale is not None:
            raise ValueError(f"reward_scale={scale!r} was given without a reward; give reward= as well.")
        return 0.0
    return chosen_scale(reward, scale)


def _as_tensor(samples: Any, count: int) -> Tensor:
    if isinstance(samples, Tensor) and samples.ndim != 4 and samples.is_floating_point():
        if samples.shape[0] != count:
            raise ValueError(f"{samples.shape[0]} samples were given for {count} particles; give one a particle.")
        return samples.detach().float()
    return as_unit_images(samples, count)

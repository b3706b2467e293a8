"""One intercepted pipeline call with weighted particles: what steering and corrected guidance share."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.resampling import get_resampler
from fklit.pipelines.call_rows import shares_encoding
from fklit.pipelines.finite import check_finite, finite_rows
from fklit.pipelines.interception import Interception
from fklit.pipelines.sampler import DeterministicSamplerError, choose_sampler
from fklit.pipelines.seeds import reads_seeds, separate_generators
from fklit.pipelines.step_call import StepCall, StepChange
from fklit.pipelines.stochasticity import SchedulerSwapWarning
from fklit.sampling.describe_run import describe_run
from fklit.sampling.resource_monitor import ResourceMonitor
from fklit.sampling.reward_term import REWARD_RECORD, RewardTerm
from fklit.sampling.settings import ParticleSettings


class SamplingRun(ABC):
    """Context manager around one call of a pipeline, whose particles a method weighs and resamples step by step.

    A method says in `begin` which steps it looks at, in `step` what a step does to the weights, and in a `finish`
    of its own what the result is.

    Args:
        pipeline: a diffusers pipeline object.
        prompts: B texts that describe the prompts.
        prompt_indices: their B indices, from which with the seed all noise follows.
        generators: one a row of the call, the same object for the particles of a prompt; samplers that read their
            seeds get one for each particle, made from these.
        particles: how the particles are carried.
        reward: the reward of the run, or None.
        resamples: whether any resampling before the end is possible: if not, every sampler will do.
        weighs_steps: whether weights come from the law of each step, as those of corrected guidance do.
        needs_noise: whether steps must draw noise even where nothing is resampled.
        keeps_calls: whether the method makes the denoiser's calls again.
        eta: the `eta` the pipeline will be called with, or None.
        pipeline_kwargs: further arguments of its call.

    Attributes:
        generators: what to call the pipeline with.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        prompts: Sequence[str],
        prompt_indices: Sequence[int],
        generators: Sequence[torch.Generator],
        particles: ParticleSettings,
        reward: RewardTerm | None,
        resamples: bool,
        weighs_steps: bool,
        needs_noise: bool = False,
        keeps_calls: bool = False,
        eta: float | None,
        pipeline_kwargs: Mapping[str, Any],
    ) -> None:
        self.prompts = list(prompts)
        self.prompt_indices = list(prompt_indices)
        self.generators = list(generators)
        if reads_seeds(getattr(pipeline, "scheduler", None)):
            self.generators = separate_generators(self.generators)
        self._pipeline = pipeline
        self._kwargs = dict(pipeline_kwargs)
        self._reward = reward
        self._system = ParticleSystem(
            len(self.prompts),
            particles.num_particles,
            resampler=get_resampler(particles.resampler),
            ess_threshold=particles.ess_threshold,
            generator=group_generators(particles.seed, self.prompt_indices, stream="resampling"),
            on_nan=particles.on_nan,
            on_degenerate=particles.on_degenerate,
        )
        self._needs_noise = needs_noise
        self._resamples = resamples and particles.ess_threshold > 0
        sampler = choose_sampler(
            pipeline,
            particles.scheduler,
            eta=eta,
            resamples=self._resamples or needs_noise,
            flow_kernel=particles.flow_kernel,
            noise_level=particles.noise_level,
        )
        self._swap = sampler.swap
        self._interception = Interception(
            pipeline,
            self,
            generators=self.generators,
            scheduler=sampler.scheduler,
            kernel=sampler.kernel,
            eta=sampler.eta,
            max_batch=particles.max_batch,
            decode_batch=particles.decode_batch,
            group_size=particles.num_particles,
            shares_encoding=len(self.prompts) > 1 and shares_encoding(pipeline, pipeline_kwargs),
            resamples=self._resamples,
            keeps_calls=keeps_calls,
            may_edit=not (self._resamples or weighs_steps),
        )
        self._on_nan = particles.on_nan
        self._meter: ResourceMonitor | None = None
        self._stack = ExitStack()
        self._may_resample: frozenset[int] = frozenset()
        self._finished = False
        self._gradient_calls = 0
        self._more_calls = 0  # denoiser evaluations beside the pipeline's own and those of a look-ahead
        self._settings: dict[str, Any] = {
            "seed": particles.seed,
            "num_particles": particles.num_particles,
            "resampler": getattr(self._system.resampler, "__name__", repr(self._system.resampler)),
            "ess_threshold": particles.ess_threshold,
            "sampler": sampler.name,
            "max_batch": particles.max_batch,
            "decode_batch": particles.decode_batch,
            **(dict.fromkeys(REWARD_RECORD) if reward is None else reward.record()),
        }

    @abstractmethod
    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Prepare, once the number of steps is known (called by the interception)."""

    def describe_run(self) -> dict[str, Any]:
        """Return what runs, JSON-able, for potentials that belong to a run."""
        assert self._reward is not None
        ahead = self._reward.look_ahead
        return describe_run(
            self._reward.reward,
            model=type(self._pipeline).__name__,
            sampler=str(self._settings["sampler"]),
            arguments=self._kwargs,
            score_scale=None if ahead is None or ahead.settings.num_samples == 1 else self._reward.reward_scale,
            latent_reward=None if self._reward.latent is None else repr(self._reward.latent.reward),
            look_ahead=None if ahead is None else repr(ahead.settings),
        )

    @abstractmethod
    def weigh(self, call: StepCall) -> Tensor | StepChange | None:
        """Weigh and resample the parents of one step; return what of the step changes."""

    @torch.no_grad()
    def step(self, call: StepCall) -> Tensor | StepChange | None:
        """Check the numbers of a step, and weigh it (called by the interception)."""
        if self._on_nan == "error":
            where = f"at step {call.index} of {call.num_steps}"
            before = ("scheduler", call.scheduler) if call.index else ("call", self._pipeline)
            check_finite(call.sample, *before, where=where, name=self.name_of_row)
            network = getattr(self._pipeline, "unet", None) or getattr(self._pipeline, "transformer", None)
            check_finite(call.model_output, "denoiser", network, where=where, name=self.name_of_row)
        return self.weigh(call)

    def name_of_row(self, row: int) -> str:
        """Name a row of the call, for messages."""
        b, particle = divmod(row, self._system.num_particles)
        return f"particle {particle} of prompt {self.prompts[b]!r}"

    def check_samples(self, samples: Tensor) -> Bool[Tensor, " N"]:
        """Return which finished samples (N, ...) are not finite, all False unless `on_nan="drop"`.

        Raises:
            NonFiniteError: with `on_nan="error"`, naming the part that returned NaN or infinities first.
        """
        finished = (
            ("scheduler", self._interception.scheduler, self._interception.returned),
            ("decoder", getattr(self._pipeline, "vae", None), self.decoded()),
            ("decoder", self._pipeline, samples),
        )
        broken = torch.zeros(samples.shape[0], dtype=torch.bool)
        for part, kind, values in finished:
            if values is None or values.shape[0] != samples.shape[0]:
                continue
            if self._on_nan == "error":
                check_finite(values, part, kind, where="at the end", name=self.name_of_row)
            broken |= ~finite_rows(values).cpu()
        return broken

    def __enter__(self) -> Self:
        if self._swap is not None:
            warnings.warn(self._swap, SchedulerSwapWarning, stacklevel=3)
        if self._reward is not None:
            # Before the clock starts, and before a denoiser call is spent on a reward that cannot load.
            self._reward.load()
        self._meter = ResourceMonitor(getattr(self._pipeline, "_execution_device", "cpu"))
        with ExitStack() as stack:
            stack.enter_context(self._interception)
            if self._reward is not None and (self._reward.steers or self._needs_noise):
                stack.enter_context(self._reward.decoder.replay.recording())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._stack.close()
        return False

    def decoded(self) -> Tensor | None:
        """What the pipeline decoded last, (N, 3, H, W) in [-1, 1], before checker and watermark; None without one."""
        return self._interception.decoder.last

    def _allow_resampling(
        self, steps: Collection[int], noisy: Callable[[Collection[int]], dict[int, bool]], *, otherwise: str
    ) -> None:
        """Let those steps resample that inject noise, of which there must be one.

        Args:
            steps: where the method would resample; the last of the run is weighed only: whatever its noise, clones
                could not separate by more than that.
            noisy: tells which steps inject noise.
            otherwise: what the user can do without any resampling, for the error.
        """
        if not self._resamples:
            return
        last = int(self._interception.num_steps or 0) - 1
        wanted = [step for step in steps if step < last]
        found = noisy(wanted)
        self._may_resample = frozenset(step for step in wanted if found[step])
        if wanted and not self._may_resample:
            raise DeterministicSamplerError(
                f"the sampler {self._settings['sampler']} injects no noise at any step that may resample, so clones of "
                "a particle would never separate; call with eta=1 (DDIM), use algorithm_type='sde-dpmsolver++' "
                f"(DPM-Solver++) or scheduler='auto', or {otherwise}."
            )

    def _check_finished(self) -> None:
        """Refuse to close what has not run, or twice."""
        if self._meter is None or self._interception.steps_taken == 0:
            raise RuntimeError(
                "finish() was called before the pipeline ran; call the pipeline inside the context first."
            )
        if self._finished:
            raise RuntimeError(
                f"finish() was called twice; make a new {type(self).__name__} for another call of the pipeline."
            )

    def _shared_results(self, steps: int) -> dict[str, Any]:
        """The fields that all results have; ancestors and resampling of the first updates of the weights."""
        system, meter = self._system, self._meter
        assert meter is not None
        self._finished = True
        groups, particles = system.num_groups, system.num_particles
        identity = torch.arange(particles).expand(groups, particles)
        ancestors = [identity if a is None else a.cpu() for a in system.ancestors[:steps]]
        nowhere = torch.zeros(0, groups, dtype=torch.bool)
        reward = self._reward
        ahead = None if reward is None else reward.look_ahead
        looked = 0 if ahead is None else sum(ahead.evaluations)
        return {
            "prompts": self.prompts,
            "prompt_indices": self.prompt_indices,
            "log_weights": torch.log_softmax(system.log_weights, dim=1).cpu(),
            "log_z": system.log_z.cpu(),
            "ess": torch.stack(system.ess_trace).cpu(),
            "ancestors": torch.stack(ancestors) if ancestors else torch.zeros(0, groups, particles, dtype=torch.long),
            "resampled": torch.stack(system.resampled_trace[:steps]).cpu() if ancestors else nowhere,
            "degenerate": system.degenerate.cpu(),
            "dropped": system.dropped.cpu(),
            "num_steps": int(self._interception.num_steps or 0),
            "settings": self._settings,
            "terms": {} if reward is None else reward.terms,
            "latent_steps": () if reward is None or reward.latent is None else tuple(reward.latent.steps),
            "scored": None if reward is None or not reward.scored else torch.stack(reward.scored),
            "score_draws": () if ahead is None else tuple(ahead.draws),
            "look_ahead_calls": () if ahead is None else tuple(ahead.evaluations),
            "budget": Budget(
                denoiser_calls=self._interception.denoiser_calls + self._more_calls + looked,
                gradient_calls=self._gradient_calls,
                decodes=self._interception.decoder.decodes + (0 if reward is None else reward.decoder.decodes),
                preview_decodes=0 if reward is None else reward.decoder.preview_decodes,
                reward_calls=0 if reward is None else reward.reward_calls,
                latent_reward_calls=0 if reward is None or reward.latent is None else reward.latent.calls,
                reward_checks=0 if reward is None else reward.reward_checks,
                seconds=meter.seconds(),
                score_seconds=0.0 if reward is None else reward.seconds,
                peak_memory_bytes=meter.peak_memory_bytes(),
            ),
        }


def without_broken(samples: Tensor, broken: Bool[Tensor, " N"]) -> Tensor:
    """Return samples (N, ...) with zeros in place of those that are not finite, whose particles were dropped."""
    return samples.masked_fill(broken.to(samples.device).reshape(-1, *[1] * (samples.ndim - 1)), 0.0)

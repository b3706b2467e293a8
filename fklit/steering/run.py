"""One steered pipeline call: scores the parents at the scheduled steps, resamples them, weighs the finished samples."""

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.feynman_kac.genealogy import roots
from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.potentials import Potential, RewardPath
from fklit.feynman_kac.potentials import potential as potential_by_name
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.resampling import Resampler
from fklit.feynman_kac.resampling import resampler as resampler_by_name
from fklit.feynman_kac.result import Budget
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Constant, Tempering
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.models.call import check_indices, check_prompts
from fklit.models.decode import decode_latents
from fklit.models.denoised import is_known
from fklit.models.images import as_unit_images, thumbnails
from fklit.models.meter import Meter
from fklit.models.pipeline import Interception, StepCall, UnsupportedPipelineError
from fklit.models.sampler import DeterministicSamplerError, choose_sampler
from fklit.models.stochasticity import SchedulerSwapWarning
from fklit.rewards.base import Reward
from fklit.rewards.scoring import Scorer, as_reward, chosen_scale
from fklit.steering.result import SteeringResult

DEFAULT_SCHEDULE = Schedule(start=0.2, stop=0.8, every=0.1)


class SteeringRun:
    """Context manager that steers whatever the pipeline is called with inside of it.

    ::

        with SteeringRun(pipeline, ["a red heart"], reward=reward, num_particles=4, reward_scale=10.0) as run:
            images = pipeline(prompt="a red heart", num_images_per_prompt=4, generator=run.generators).images
        result = run.finish(images)

    ``fklit.steer`` does exactly this; use the context manager where the call needs more than ``call=`` gives.

    At each scheduled step the denoised prediction of every parent x_t is decoded and scored, the particle system is
    updated by the potential, and the parents are resampled where it says so, with their model outputs, the solver's
    history and their reward histories. Only then does the scheduler draw the children. The finished samples are scored
    in :meth:`finish`; that last update weighs and never resamples.

    Args:
        pipeline: a diffusers pipeline object.
        prompts: B prompts, as the pipeline is called with them.
        reward: a fklit reward, or a function of (images, prompts).
        num_particles: K, samples of each prompt.
        potential: a :class:`~fklit.feynman_kac.potentials.Potential` or its name; "terminal" is best-of-n.
        reward_scale: multiplies the reward in the target ``p(x | prompt) exp(reward_scale * reward(x))``, at least 0;
            None takes the reward's ``suggested_scale``.
        tempering: how the scale grows towards ``reward_scale`` along the run.
        schedule: which scheduler steps are scored, and which of these may resample.
        resampler: a resampler of :mod:`fklit.feynman_kac.resampling` or its name.
        ess_threshold: a prompt resamples if its effective sample size is below this fraction of K; 0 never, 1 always.
        seed: with the index of a prompt, the seed of its noise.
        prompt_indices: B indices; 0 .. B - 1 if not given.
        scheduler: "auto" runs a stochastic sibling of a deterministic scheduler where resampling is possible, and
            warns; "keep" runs the pipeline's own and refuses if it must resample without noise.
        eta: the ``eta`` the pipeline will be called with, if any; "auto" does not override it.
        max_batch: most rows for the denoiser, the decoder and the reward at once; chunks are padded to exactly this
            size, so that results do not depend on what else is in the batch. None for no limit.
        on_nan: "error", or "drop" to let particles with NaN or +inf rewards die.
        on_degenerate: "error", or "keep" for prompts all of whose particles died.
        decode: function from latents (N, ...) to images (N, C, H, W) in [0, 1], for pipelines fklit cannot decode.
        previews: whether thumbnails of the denoised predictions are kept.

    Attributes:
        generators: B * K generators to call the pipeline with.

    Raises:
        ValueError, TypeError: for arguments that do not fit, each with a sentence.
        DeterministicSamplerError: at the first step, if resampling is possible but no scheduled step injects noise.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str],
        *,
        reward: Reward | Callable[..., Any],
        num_particles: int = 4,
        potential: Potential | str = "difference",
        reward_scale: float | None = None,
        tempering: Tempering | None = None,
        schedule: Schedule | None = None,
        resampler: Resampler | str = "systematic",
        ess_threshold: float = 0.5,
        seed: int = 0,
        prompt_indices: Sequence[int] | None = None,
        scheduler: Literal["auto", "keep"] = "auto",
        eta: float | None = None,
        max_batch: int | None = None,
        on_nan: OnNan = "error",
        on_degenerate: OnDegenerate = "error",
        decode: Callable[[Tensor], Tensor] | None = None,
        previews: bool = True,
    ) -> None:
        self.prompts = check_prompts(prompts)
        self.prompt_indices = check_indices(prompt_indices, len(self.prompts))
        self._pipeline = pipeline
        self._reward = as_reward(reward)
        self._reward_scale = chosen_scale(self._reward, reward_scale)
        self._potential = potential_by_name(potential)
        self._tempering = Constant() if tempering is None else tempering
        self._schedule = DEFAULT_SCHEDULE if schedule is None else schedule
        self._system = ParticleSystem(
            len(self.prompts),
            num_particles,
            resampler=resampler_by_name(resampler),
            ess_threshold=ess_threshold,
            generator=group_generators(seed, self.prompt_indices, stream="resampling"),
            on_nan=on_nan,
            on_degenerate=on_degenerate,
        )
        per_prompt = group_generators(seed, self.prompt_indices)
        self.generators = [generator for generator in per_prompt for _ in range(num_particles)]
        self._scorer = Scorer(self._reward, self.prompts, num_particles, max_batch=max_batch, on_nan=on_nan)
        self._decode = decode
        self._keep_previews = previews
        self._path: RewardPath | None = None
        self._scored: tuple[int, ...] = ()
        self._may_resample: frozenset[int] = frozenset()
        self._rewards: list[Tensor] = []
        self._previews: list[Tensor] = []
        self._own_decodes = 0
        self._finished = False
        sampler = choose_sampler(pipeline, scheduler, eta=eta, resamples=self._can_resample)
        self._swap = sampler.swap
        self._interception = Interception(
            pipeline,
            self,
            generators=self.generators,
            scheduler=sampler.scheduler,
            eta=sampler.eta,
            max_batch=max_batch,
        )
        self._meter: Meter | None = None
        self._settings = {
            "seed": seed,
            "num_particles": num_particles,
            "reward": type(self._reward).__name__,
            "potential": repr(self._potential),
            "reward_scale": self._reward_scale,
            "tempering": repr(self._tempering),
            "schedule": repr(self._schedule),
            "resampler": getattr(self._system.resampler, "__name__", repr(self._system.resampler)),
            "ess_threshold": ess_threshold,
            "sampler": sampler.name,
            "max_batch": max_batch,
        }

    @property
    def _can_resample(self) -> bool:
        """Whether any resampling before the end is possible: if not, every sampler will do."""
        intermediate = self._potential.scores_intermediate and self._schedule.indices != ()
        several = self._system.num_particles > 1 and self._system.ess_threshold > 0 and self._reward_scale > 0
        return several and intermediate and self._schedule.resample_at != ()

    def __enter__(self) -> "SteeringRun":
        if self._swap is not None:
            warnings.warn(self._swap, SchedulerSwapWarning, stacklevel=3)
        self._reward.load()  # before the clock starts, and before a denoiser call is spent on a reward that cannot load
        self._meter = Meter(getattr(self._pipeline, "_execution_device", "cpu"))
        self._interception.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        return self._interception.__exit__(kind, error, trace)

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Resolves the schedule, once the number of steps is known (called by the interception)."""
        if self._potential.scores_intermediate:
            self._scored = self._schedule.resolve(num_steps)
        self._path = RewardPath(
            self._potential, len(self.prompts), self._system.num_particles, num_points=len(self._scored)
        )
        if self._scored and not is_known(self._interception.scheduler):
            raise UnsupportedPipelineError(
                f"{type(self._interception.scheduler).__name__} was given, for which the denoised prediction is not "
                "known; use DDIM, DDPM, Euler ancestral or DPM-Solver++ (SDE), or potential='terminal'."
            )
        if not self._can_resample:
            return
        # The last call is weighed only: whatever its noise, clones could not separate by more than that.
        wanted = [step for step in self._schedule.resolve_resampling(num_steps) if step < num_steps - 1]
        found = noisy(wanted)
        self._may_resample = frozenset(step for step in wanted if found[step])
        if wanted and not self._may_resample:
            raise DeterministicSamplerError(
                f"the sampler {self._settings['sampler']} injects no noise at any scheduled step, so clones of a "
                "particle would never separate; call with eta=1 (DDIM), use algorithm_type='sde-dpmsolver++' "
                "(DPM-Solver++) or scheduler='auto', or ask for best-of-n with potential='terminal'."
            )

    @torch.no_grad()
    def step(self, call: StepCall) -> Tensor | None:
        """Scores and resamples the parents of one step (called by the interception); returns flat ancestors or None."""
        if call.index not in self._scored:
            return None
        assert self._path is not None
        images = self._to_images(call.denoised())
        rewards = self._scorer(images, where=f"at step {call.index} of {call.num_steps}")
        self._rewards.append(rewards.cpu())
        if self._keep_previews:
            small = thumbnails(images)
            self._previews.append(small.reshape(*rewards.shape, *small.shape[1:]))
        scale = self._tempering.scale(
            self._path,
            rewards,
            log_weights=self._system.log_weights,
            reward_scale=self._reward_scale,
            point=len(self._rewards) - 1,
            num_points=len(self._scored),
        )
        log_potential = self._path.update(rewards, scale)
        ancestors = self._system.update(log_potential, may_resample=call.index in self._may_resample)
        if ancestors is None:
            return None
        self._path.select(ancestors)
        offsets = torch.arange(ancestors.shape[0], device=ancestors.device).unsqueeze(1) * ancestors.shape[1]
        return (ancestors + offsets).flatten()

    def _to_images(self, latents: Tensor) -> Tensor:
        if self._decode is None:
            return decode_latents(self._pipeline, latents)
        self._own_decodes += latents.shape[0]
        return as_unit_images(self._decode(latents), latents.shape[0])

    def decoded(self) -> Tensor | None:
        """What the pipeline decoded last, (N, 3, H, W) in [-1, 1], before checker and watermark; None without one."""
        return self._interception.decoder.last

    def finish(self, images: Any, *, returned: Any = None, flagged: Sequence[bool] | None = None) -> SteeringResult:
        """Scores the finished samples and closes the weights.

        Args:
            images: the B * K images in the pipeline's order: a float tensor (N, C, H, W) in [0, 1], an array (N, H, W,
                C), or a list of PIL images. These are scored.
            returned: what the result shows where it is not what is scored (images a safety checker has blackened).
            flagged: the safety checker's verdicts.

        Returns:
            The result; see :class:`SteeringResult`.

        Raises:
            RuntimeError: if the pipeline has not run, stopped before the last scheduled step, or finish ran before.
        """
        if self._path is None or self._meter is None:
            raise RuntimeError(
                "finish() was called before the pipeline ran; call the pipeline inside the context first."
            )
        if self._finished:
            raise RuntimeError("finish() was called twice; make a new SteeringRun for another call of the pipeline.")
        if len(self._rewards) < len(self._scored):
            raise RuntimeError(
                f"the pipeline stopped after {self._interception.steps_taken} of {self._interception.num_steps} steps, "
                f"before scheduled steps {self._scored[len(self._rewards) :]}; schedule steps that the call reaches."
            )
        groups, particles = len(self.prompts), self._system.num_particles
        samples = as_unit_images(images, groups * particles)
        rewards = self._scorer(samples, where="at the finished samples")
        self._system.update(self._path.terminal(rewards, self._reward_scale), may_resample=False)
        self._finished = True
        shown = samples if returned is None else as_unit_images(returned, groups * particles)
        return self._result(shown.cpu().reshape(groups, particles, *shown.shape[1:]), rewards.cpu(), flagged)

    def _result(self, samples: Tensor, rewards: Tensor, flagged: Sequence[bool] | None) -> SteeringResult:
        system, (groups, particles) = self._system, rewards.shape
        identity = torch.arange(particles).expand(groups, particles)
        ancestors = [identity if a is None else a.cpu() for a in system.ancestors[:-1]]
        living = system.log_weights.cpu() > -math.inf
        origin = roots(ancestors, num_groups=groups, num_particles=particles)[-1] if ancestors else identity
        unique = [len(set(row[alive].tolist())) for row, alive in zip(origin, living, strict=True)]
        meter = self._meter
        assert meter is not None
        return SteeringResult(
            prompts=self.prompts,
            prompt_indices=self.prompt_indices,
            samples=samples,
            rewards=rewards,
            log_weights=torch.log_softmax(system.log_weights, dim=1).cpu(),
            log_z=system.log_z.cpu(),
            steps=self._scored,
            num_steps=int(self._interception.num_steps or 0),
            ess=torch.stack(system.ess_trace).cpu(),
            reward_path=torch.stack(self._rewards) if self._rewards else torch.zeros(0, groups, particles).double(),
            ancestors=torch.stack(ancestors) if ancestors else torch.zeros(0, groups, particles, dtype=torch.long),
            resampled=torch.stack(system.resampled_trace[:-1]).cpu() if ancestors else torch.zeros(0, groups).bool(),
            degenerate=system.degenerate.cpu(),
            unique_roots=torch.tensor(unique),
            previews=torch.stack(self._previews) if self._previews else None,
            flagged=None if flagged is None else [list(flagged[b * particles :][:particles]) for b in range(groups)],
            settings=self._settings,
            budget=Budget(
                denoiser_calls=self._interception.denoiser_calls,
                decodes=self._interception.decoder.decodes + self._own_decodes,
                reward_calls=self._scorer.reward_calls,
                seconds=meter.seconds(),
                peak_memory_bytes=meter.peak_memory_bytes(),
            ),
        )

"""One steered pipeline call: scores the parents at the scheduled steps, resamples them, weighs the finished samples."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.feynman_kac.potentials import Potential, get_potential
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.resampling import Resampler
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Constant, Tempering
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.pipelines.call import check_indices, check_prompts
from fklit.pipelines.denoised import is_known
from fklit.pipelines.images import as_unit_images, thumbnails
from fklit.pipelines.interception import StepCall, UnsupportedPipelineError
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.rewards.base import Reward
from fklit.rewards.scoring import as_reward, chosen_scale
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.run import SamplingRun
from fklit.steering.result import SteeringResult

__all__ = ["DeterministicSamplerError", "SteeringRun"]


class SteeringRun(SamplingRun):
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
        texts = check_prompts(prompts)
        indices = check_indices(prompt_indices, len(texts))
        chosen = as_reward(reward)
        term = RewardTerm(
            pipeline,
            chosen,
            texts,
            num_particles,
            reward_scale=chosen_scale(chosen, reward_scale),
            potential=get_potential(potential),
            schedule=schedule,
            max_batch=max_batch,
            on_nan=on_nan,
            decode=decode,
        )
        super().__init__(
            pipeline,
            prompts=texts,
            prompt_indices=indices,
            generators=[source for source in group_generators(seed, indices) for _ in range(num_particles)],
            num_particles=num_particles,
            reward=term,
            resamples=term.steers and term.schedule.resample_at != (),
            resampler=resampler,
            ess_threshold=ess_threshold,
            on_nan=on_nan,
            on_degenerate=on_degenerate,
            seed=seed,
            scheduler=scheduler,
            eta=eta,
            max_batch=max_batch,
        )
        self._term = term
        self._tempering = Constant() if tempering is None else tempering
        self._previews: list[Tensor] | None = [] if previews else None
        self._settings |= {
            "reward": type(chosen).__name__,
            "potential": repr(term.potential),
            "reward_scale": term.reward_scale,
            "tempering": repr(self._tempering),
            "schedule": repr(term.schedule),
        }

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Resolves the schedule, once the number of steps is known (called by the interception)."""
        self._term.begin(num_steps)
        if self._term.steps and not is_known(self._interception.scheduler):
            raise UnsupportedPipelineError(
                f"{type(self._interception.scheduler).__name__} was given, for which the denoised prediction is not "
                "known; use DDIM, DDPM, Euler ancestral or DPM-Solver++ (SDE), or potential='terminal'."
            )
        if self._resamples:
            steps = self._term.schedule.resolve_resampling(num_steps)
            self._allow_resampling(steps, noisy, otherwise="ask for best-of-n with potential='terminal'")

    @torch.no_grad()
    def step(self, call: StepCall) -> Tensor | None:
        """Scores and resamples the parents of one step (called by the interception); returns flat ancestors or None."""
        term = self._term
        if call.index not in term.steps:
            return None
        rewards, images = term.score(call.denoised(), where=f"at step {call.index} of {call.num_steps}")
        if self._previews is not None:
            small = thumbnails(images)
            self._previews.append(small.reshape(*rewards.shape, *small.shape[1:]))
        scale = self._tempering.scale(
            term.path,
            rewards,
            log_weights=self._system.log_weights,
            reward_scale=term.reward_scale,
            point=term.num_scored - 1,
            num_points=len(term.steps),
        )
        log_potential = term.path.update(rewards, scale)
        ancestors = self._system.update(log_potential, may_resample=call.index in self._may_resample)
        if ancestors is None:
            return None
        term.path.select(ancestors)
        offsets = torch.arange(ancestors.shape[0], device=ancestors.device).unsqueeze(1) * ancestors.shape[1]
        return (ancestors + offsets).flatten()

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
        term = self._term
        self._check_finished()
        if term.num_scored < len(term.steps):
            raise RuntimeError(
                f"the pipeline stopped after {self._interception.steps_taken} of {self._interception.num_steps} steps, "
                f"before scheduled steps {term.steps[term.num_scored :]}; schedule steps that the call reaches."
            )
        groups, particles = len(self.prompts), self._system.num_particles
        samples = as_unit_images(images, groups * particles)
        rewards, log_potential = term.close(samples)
        self._system.update(log_potential, may_resample=False)
        shown = samples if returned is None else as_unit_images(returned, groups * particles)
        return SteeringResult(
            **self._shared_results(len(term.steps)),
            samples=shown.cpu().reshape(groups, particles, *shown.shape[1:]),
            rewards=rewards.cpu(),
            steps=term.steps,
            reward_path=term.reward_path,
            previews=torch.stack(self._previews) if self._previews else None,
            flagged=None if flagged is None else [list(flagged[b * particles :][:particles]) for b in range(groups)],
        )

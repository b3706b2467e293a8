"""Calibration in one line: `fklit.calibrate(pipeline, prompts, reward=...)`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fklit.checks import check_count
from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.potentials import Difference, Potential
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.flow.names import DEFAULT_KERNEL, FlowKernelName
from fklit.rewards.base import Reward
from fklit.rewards.scoring import as_reward
from fklit.sampling.look_ahead import LookAhead
from fklit.sampling.prompts import check_indices, check_metadata, check_prompts
from fklit.sampling.settings import SchedulerChoice
from fklit.steering.api import steer
from fklit.steering.calibration.record import Calibration
from fklit.steering.own_steps import Steerable
from fklit.steering.result import SteeringResult

DEFAULT_SCHEDULE = Schedule(start=0.1, stop=0.95, every=0.05)
DEFAULT_SEED = 20_000  # far from those of runs, which should not be weighed by their own samples
DEFAULT_SAMPLES = 8


@dataclass(frozen=True)
class _Listener(Difference):
    """A difference that keeps what the run says of itself."""

    heard: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def prepare(
        self,
        steps: Sequence[int],
        *,
        num_steps: int,
        reward_scale: float,
        describe_run: Callable[[], Mapping[str, Any]] | None = None,
    ) -> Potential:
        """Return a plain difference."""
        if describe_run is not None:
            self.heard.update(describe_run())
        return Difference()


def calibrate(
    pipeline: Any,
    prompts: str | Sequence[str] | None = None,
    *,
    reward: Reward | Callable[..., Any],
    num_samples: int = DEFAULT_SAMPLES,
    schedule: Schedule | None = None,
    upper_bound: float | None = None,
    reward_scale: float | None = None,
    seed: int = DEFAULT_SEED,
    batch_size: int = 1,
    prompt_indices: Sequence[int] | None = None,
    metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    scheduler: SchedulerChoice = "auto",
    flow_kernel: FlowKernelName = DEFAULT_KERNEL,
    noise_level: float | None = None,
    max_batch: int | None = None,
    decode_batch: int | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
    look_ahead: LookAhead | None = None,
    pipeline_kwargs: Mapping[str, Any] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Calibration:
    """Measure what scores on the way say of the finished samples, on unsteered samples of the sampler of steering.

    n samples of each prompt run without weights; the denoised predictions are scored at every step of a dense schedule,
    and the finished samples at the end. What comes out fits potentials for any reward scale (`goal="sample"`), proposes
    a scale and a schedule, and tells what a score costs. Take prompts like those that will be steered: 16 prompts with
    8 samples are enough to see which steps tell something; for scales at which a target keeps few of a prompt's samples
    take more.

    Args:
        pipeline: As for `fklit.steer`.
        prompts: P prompts, as for `fklit.steer`; None for an unconditional pipeline, or where `pipeline_kwargs` hold
            embeddings or class labels, which are then sampled side by side.
        reward: As for `fklit.steer`.
        num_samples: n of each prompt, at least 2.
        schedule: Steps that are scored; None for every twentieth of the run from 0.1 to 0.95 of it, among which are the
            steps of the default `reward_schedule`.
        upper_bound: What no reward exceeds; None for the reward's own `upper_bound`. With one, curves are logistic.
        reward_scale: Only where several clean samples are drawn for a score, which depends on it (by a look-ahead, or a
            model that owns its steps); None for the reward's suggestion.
        seed: Of the samples.
        batch_size: Prompts side by side.
        prompt_indices: P indices of the prompts in their data set; None for 0 .. P - 1.
        metadata: What else is known about each prompt.
        scheduler: "auto" and "stochastic" take the stochastic sampler of steering, "keep" the pipeline's own.
        flow_kernel: As for `fklit.steer`.
        noise_level: As for `fklit.steer`.
        max_batch: As for `fklit.steer`.
        decode_batch: As for `fklit.steer`.
        decode: As for `fklit.steer`.
        look_ahead: As for `fklit.steer`; the calibration belongs to it.
        pipeline_kwargs: As for `fklit.steer`; the calibration belongs to them.
        on_batch: Called with the number of prompts that are done, after each batch.

    Returns:
        The calibration; `save(path)` keeps it.

    Raises:
        ValueError, TypeError: For arguments that do not fit.
        RewardError: If the reward fails, or gives NaN.
    """
    texts = None if prompts is None else check_prompts([prompts] if isinstance(prompts, str) else prompts)
    samples = check_count("num_samples", num_samples, minimum=2)
    size = check_count("batch_size", batch_size)
    measured = as_reward(reward)
    given = reward_scale if reward_scale is not None else measured.load().suggested_scale
    scale = 1.0 if given is None else float(given)  # only weighs, and weights are not looked at
    if not scale > 0:
        raise ValueError(f"expected reward_scale above 0, got {scale:g}; the curves are fitted for any later.")
    steering: dict[str, Any] = {
        "reward": measured,
        "reward_scale": scale,
        "num_particles": samples,
        "ess_threshold": 0.0,
        "reward_schedule": DEFAULT_SCHEDULE if schedule is None else schedule,
        "seed": seed,
        "max_batch": max_batch,
        "decode": decode,
        "previews": False,
        "pipeline_kwargs": pipeline_kwargs,
        "on_degenerate": "keep",
    }
    if not isinstance(pipeline, Steerable):
        steering["scheduler"] = "stochastic" if scheduler == "auto" else scheduler
    else:
        steering["scheduler"] = scheduler
    steering |= {"look_ahead": look_ahead}
    steering |= {"decode_batch": decode_batch, "flow_kernel": flow_kernel, "noise_level": noise_level}
    listener, results = _Listener(), list[SteeringResult]()
    steering["potential"] = listener
    if texts is None:
        results.append(steer(pipeline, None, prompt_indices=prompt_indices, metadata=metadata, **steering))
    else:
        indices, known = check_indices(prompt_indices, len(texts)), check_metadata(metadata, texts)
        for start in range(0, len(texts), size):
            rows = slice(start, start + size)
            found = steer(pipeline, texts[rows], prompt_indices=indices[rows], metadata=known[rows], **steering)
            results.append(found)
            if on_batch is not None:
                on_batch(min(start + size, len(texts)))
    return _calibration(results, measured, upper_bound, listener.heard)


def _calibration(
    results: Sequence[SteeringResult],
    reward: Reward,
    upper_bound: float | None,
    run: Mapping[str, Any],
) -> Calibration:
    """What the runs measured."""
    first, prompts = results[0], [prompt for found in results for prompt in found.prompts]
    budget = sum((found.budget for found in results), Budget())
    rows, steps = len(prompts) * first.rewards.shape[1], len(first.scored_steps)
    if steps == 0:
        raise ValueError("expected a schedule with steps that score, got one without any; give a dense one.")
    score = budget.score_seconds / (steps * rows)
    # A score is `looked` calls of the denoiser and `draws` times a decode and a reward, of which the finished samples
    # take one more: that is no part of the time of the denoiser's own calls.
    draws = sum(sum(found.score_draws or (1,) * steps) for found in results) / (len(results) * steps)
    looked = sum(sum(found.look_ahead_calls) for found in results)
    calls = budget.denoiser_calls - looked
    denoiser = (budget.seconds - budget.score_seconds - score * rows / draws) / max(calls - looked / (steps * draws), 1)
    return Calibration(
        scores=torch.cat([found.reward_path for found in results], dim=1).permute(1, 2, 0),
        rewards=torch.cat([found.rewards for found in results]),
        steps=first.scored_steps,
        num_steps=first.num_steps,
        prompts=prompts,
        run=run,
        upper_bound=reward.upper_bound if upper_bound is None else upper_bound,
        score_seconds=score,
        denoiser_seconds=denoiser if denoiser > 0 else None,
        calls_per_step=calls / (rows * first.num_steps),
    )

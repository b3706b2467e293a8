"""A steered run of a model that owns its steps: its draws, our rewards, on the engine's loop."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.budget import peak_memory_bytes
from fklit.feynman_kac.engine import run
from fklit.feynman_kac.potentials import get_potential
from fklit.feynman_kac.randomness import Generators, group_generators
from fklit.feynman_kac.resampling import get_resampler
from fklit.feynman_kac.result import ParticleResult
from fklit.feynman_kac.reward_path import RewardPath
from fklit.feynman_kac.tempering import Constant
from fklit.rewards.base import Reward
from fklit.rewards.scoring import chosen_scale
from fklit.sampling.prompts import check_indices, check_metadata, check_prompts
from fklit.sampling.settings import DEFAULT_REWARD_SCHEDULE
from fklit.steering.model_reward import SampleScorer
from fklit.steering.own_steps import Steerable, SteeringModel, check_settings, soft_mean
from fklit.steering.result import SteeringResult
from fklit.steering.settings import SteeringSettings


@dataclass(frozen=True, kw_only=True)
class ModelSteeringResult(SteeringResult):
    """What `fklit.steer` returns for a model that owns its steps.

    `samples` is the tensor (B, K, ...) that the model gives, such as tokens; `items`, `best()` and `sample(n)` give
    what the reward scored, such as texts.

    Attributes:
        made: B lists of K samples as the reward takes them.
        kind: The modality.
    """

    made: list[list[Any]] = field(repr=False)
    kind: str

    @property
    def modality(self) -> Any:
        """What the samples are."""
        return self.kind

    @property
    def items(self) -> list[list[Any]]:
        """B lists of K samples in slot order."""
        return self.made


class _Rewarded:
    """The model with the rewards' log potentials, for the engine; a state is the model's and the reward histories."""

    def __init__(self, model: SteeringModel, settings: SteeringSettings, scorer: SampleScorer, num_groups: int) -> None:
        self.model, self.scorer, self.settings = model, scorer, settings
        self.num_steps = model.num_steps
        self.scale = chosen_scale(scorer.reward, settings.reward_scale)
        self.potential = get_potential(settings.potential)
        self.schedule = settings.reward_schedule or DEFAULT_REWARD_SCHEDULE
        self.tempering = settings.tempering or Constant()
        self.steps = self.schedule.resolve(model.num_steps) if self.potential.scores_intermediate else ()
        self.reward_path: list[Tensor] = []
        self.rewards: Tensor | None = None
        self.made: Any = None
        self.shown: Tensor | None = None

    @property
    def resample_at(self) -> tuple[int, ...]:
        """Steps of the engine after which particles may be resampled: a score at step i judges what i - 1 has left."""
        steers = self.steps and self.scale > 0
        return tuple(step - 1 for step in self.schedule.resolve_resampling(self.num_steps)) if steers else ()

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> tuple[Any, RewardPath]:
        path = RewardPath(self.potential, num_groups, num_particles, num_points=len(self.steps))
        self._generator = generator
        return self.model.initial(num_groups, num_particles, generator), path

    def step(
        self, state: tuple[Any, RewardPath], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[tuple[Any, RewardPath], Tensor]:
        inner, path = state
        inner, log_potential = self.model.step(inner, t, log_weights, generator)
        log_potential = log_potential.cpu()
        if t + 1 in self.steps:
            inner, more = self.score(inner, path, t + 1, log_weights.cpu() + log_potential, generator)
            log_potential = log_potential + more
        if t == self.num_steps - 1:
            self.made, self.shown = self.model.finished(inner)
            self.rewards = self.scorer(self.made, where="at the finished samples")
            log_potential = log_potential + path.terminal(self.rewards, self.scale)
        return (inner, path), log_potential

    def score(
        self, inner: Any, path: RewardPath, step: int, log_weights: Tensor, generator: Generators
    ) -> tuple[Any, Float64[Tensor, "B K"]]:
        """Score the clean samples that a state predicts; return the state and the log potential."""
        inner, samples = self.model.clean_samples(inner, generator)
        found = self.scorer(samples, where=f"at step {step} of {self.num_steps}")
        rewards = soft_mean(found.reshape(*path.shape, -1), self.scale)
        self.reward_path.append(rewards)
        scale = self.tempering.scale(
            path,
            rewards,
            log_weights=log_weights,
            reward_scale=self.scale,
            point=len(self.reward_path) - 1,
            num_points=len(self.steps),
        )
        return inner, path.update(rewards, scale)


class _RewardedFromStart(_Rewarded):
    """With a score before the first step."""

    def initial_log_weights(self, state: tuple[Any, RewardPath]) -> Tensor:
        inner, path = state
        # What the model keeps of the predictions is asked for again by step 0: a state is not replaced here.
        _, log_potential = self.score(inner, path, 0, torch.zeros(path.shape, dtype=torch.float64), self._generator)
        return log_potential


def steer_model(
    source: Steerable,
    prompts: Sequence[str],
    settings: SteeringSettings,
    *,
    prompt_indices: Sequence[int] | None = None,
    metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
) -> ModelSteeringResult:
    """Steer a model that owns its steps; see `fklit.steer`.

    Args:
        source: Makes the model of the run.
        prompts: B prompts.
        settings: Of the run.
        prompt_indices: B indices of the prompts in their data set; None for 0 .. B - 1.
        metadata: What else is known about each prompt.

    Raises:
        ValueError: Arguments do not fit, or the reward cannot score what the model makes.
    """
    start = time.perf_counter()
    texts = check_prompts(prompts)
    indices = check_indices(prompt_indices, len(texts))
    check_settings(settings, source)
    reward = settings.reward
    assert isinstance(reward, Reward)
    model = source.steering_model(texts, settings)
    part = reward.refused(model.modality)  # type: ignore[arg-type]
    if part is not None:
        raise ValueError(
            f"reward expected one of {model.modality} samples, as {type(source).__name__} makes them, got "
            f"{part.display_name}, which takes {part.accepts}s; give another reward."
        )
    reward.load()
    known = check_metadata(metadata, texts)
    scorer = SampleScorer(reward, texts, known, max_batch=settings.max_batch, on_nan=settings.on_nan)
    plan = _Rewarded(model, settings, scorer, len(texts))
    rewarded = _RewardedFromStart(model, settings, scorer, len(texts)) if 0 in plan.steps else plan
    result = run(
        rewarded,
        num_groups=len(texts),
        num_particles=settings.num_particles,
        resampler=get_resampler(settings.resampler),
        ess_threshold=settings.ess_threshold,
        generator=group_generators(settings.seed, indices),
        on_nan=settings.on_nan,
        on_degenerate=settings.on_degenerate,
        resample_steps=rewarded.resample_at,
    )
    return _result(result, rewarded, texts, indices, seconds=time.perf_counter() - start)


def _result(
    found: ParticleResult[Any], rewarded: _Rewarded, prompts: list[str], indices: list[int], *, seconds: float
) -> ModelSteeringResult:
    model, settings, steps = rewarded.model, rewarded.settings, rewarded.steps
    groups, particles = found.num_groups, found.num_particles
    rows = [found.steps.index(step - 1) for step in steps]
    identity = torch.arange(particles).expand(groups, particles)
    traced = [found.ancestors[row] for row in rows]
    ancestors = [identity if moved is None else moved.cpu() for moved in traced]
    assert rewarded.rewards is not None and rewarded.shown is not None
    made = list(rewarded.made)
    budget = replace(
        model.budget,
        reward_calls=rewarded.scorer.reward_calls,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes(rewarded.shown.device),
    )
    return ModelSteeringResult(
        samples=rewarded.shown.cpu(),
        made=[made[b * particles : (b + 1) * particles] for b in range(groups)],
        kind=model.modality,
        log_weights=found.log_weights.cpu(),
        log_z=found.log_z.cpu(),
        steps=steps,
        scored_steps=steps,
        ess=found.ess[[*rows, -1]].cpu(),
        ancestors=torch.stack(ancestors) if ancestors else torch.zeros(0, groups, particles, dtype=torch.long),
        resampled=found.resampled[rows].cpu(),
        degenerate=found.degenerate.cpu(),
        dropped=found.dropped.cpu(),
        rewards=rewarded.rewards,
        reward_path=torch.stack(rewarded.reward_path)
        if rewarded.reward_path
        else torch.zeros(0, groups, particles, dtype=torch.float64),
        prompts=prompts,
        prompt_indices=indices,
        num_steps=model.num_steps,
        terms=rewarded.scorer.terms,
        settings={
            "seed": settings.seed,
            "num_particles": particles,
            "resampler": getattr(get_resampler(settings.resampler), "__name__", repr(settings.resampler)),
            "ess_threshold": settings.ess_threshold,
            "sampler": model.sampler,
            "max_batch": settings.max_batch,
            "decode_batch": None,
            "reward": rewarded.scorer.reward.display_name,
            "reward_scale": rewarded.scale,
            "potential": repr(rewarded.potential),
            "reward_schedule": repr(rewarded.schedule),
            "tempering": repr(rewarded.tempering),
        },
        budget=budget,
    )

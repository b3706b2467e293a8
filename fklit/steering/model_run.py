"""A steered run of a model that owns its steps: its draws, our rewards, on the engine's loop."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.budget import Budget, peak_memory_bytes
from fklit.feynman_kac.particle_gibbs import particle_gibbs
from fklit.feynman_kac.potentials import get_potential
from fklit.feynman_kac.randomness import Generators, group_generators
from fklit.feynman_kac.resampling import get_resampler
from fklit.feynman_kac.result import ParticleResult
from fklit.feynman_kac.reward_path import RewardPath
from fklit.feynman_kac.soft_mean import soft_mean
from fklit.feynman_kac.tempering import Adaptive, Constant
from fklit.rewards.base import Reward
from fklit.rewards.scoring import chosen_scale
from fklit.sampling.describe_run import describe_run
from fklit.sampling.prompts import check_indices, check_metadata, check_prompts
from fklit.sampling.settings import DEFAULT_REWARD_SCHEDULE
from fklit.steering.calibration.record import as_calibration
from fklit.steering.goals import check_best
from fklit.steering.model_result import ModelSteeringResult
from fklit.steering.model_reward import SampleScorer
from fklit.steering.own_steps import Describes, Steerable, SteeringModel, check_settings, name_of
from fklit.steering.particle_scores import ParticleScores
from fklit.steering.settings import SteeringSettings


@dataclass(frozen=True)
class _State:
    """The model's state with the reward histories and the last scores of its particles."""

    inner: Any
    path: RewardPath
    scores: ParticleScores


class _Rewarded:
    """The model with the rewards' log potentials, for the engine."""

    def __init__(
        self, model: SteeringModel, settings: SteeringSettings, scorer: SampleScorer, clean: Generators
    ) -> None:
        # Clean samples have a stream of their own (`clean`): what the model draws must not depend on when rewards look.
        self.model, self.scorer, self.settings, self.clean = model, scorer, settings, clean
        self.num_steps = model.num_steps
        self.scale = chosen_scale(scorer.reward, settings.reward_scale)
        potential = get_potential(settings.potential)
        self.schedule = settings.reward_schedule or DEFAULT_REWARD_SCHEDULE
        self.tempering = settings.tempering or Constant()
        if settings.calibration is not None:
            made = as_calibration(settings.calibration)
            check_best(settings.goal, made, num_steps=model.num_steps, describe_run=self.describe_run)
        self.steps = self.schedule.resolve(model.num_steps) if potential.scores_intermediate else ()
        self.potential = potential.prepare(
            self.steps, num_steps=model.num_steps, reward_scale=self.scale, describe_run=self.describe_run
        )
        self.score_seconds = 0.0
        self.reward_path: list[Tensor] = []
        self.predictions: list[list[list[str]]] = []

    @property
    def budget(self) -> Budget:
        """What the model spent since `initial`."""
        return self.model.budget

    def describe_run(self) -> dict[str, Any]:
        """What runs, for potentials that belong to a run."""
        return describe_run(
            self.scorer.reward,
            model=type(self.model).__name__,
            sampler=self.model.sampler,
            arguments=self.settings.pipeline_kwargs or {},
            score_scale=self.scale if self.model.num_draws > 1 else None,
        )

    @property
    def resample_at(self) -> tuple[int, ...]:
        """Steps of the engine after which particles may be resampled: a score at step i judges what i - 1 has left."""
        steers = self.steps and self.scale > 0
        return tuple(step - 1 for step in self.schedule.resolve_resampling(self.num_steps)) if steers else ()

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> _State:
        path = RewardPath(self.potential, num_groups, num_particles, steps=self.steps)
        self.reward_path, self.predictions = [], []  # of the last sweep
        scores = ParticleScores(torch.zeros(num_groups, num_particles, dtype=torch.float64))
        return _State(self.model.initial(num_groups, num_particles, generator), path, scores)

    def step(self, state: _State, t: int, log_weights: Tensor, generator: Generators) -> tuple[_State, Tensor]:
        inner, log_potential = self.model.step(state.inner, t, log_weights, generator)
        state, log_potential = replace(state, inner=inner), log_potential.cpu()
        if t + 1 in self.steps:
            state, more = self.score(state, t + 1, log_weights.cpu() + log_potential)
            log_potential = log_potential + more
        if t == self.num_steps - 1:
            made, _ = self.model.finished(state.inner)
            rewards = self.scorer(made, where="at the finished samples")
            state.scores.take(rewards, terms=self.scorer.terms)
            log_potential = log_potential + state.path.terminal(rewards, self.scale)
        return state, log_potential

    def score(self, state: _State, step: int, log_weights: Tensor) -> tuple[_State, Float64[Tensor, "B K"]]:
        """Score the clean samples that a state predicts; return the state and the log potential."""
        began = time.perf_counter()
        inner, samples = self.model.clean_samples(state.inner, self.clean)
        found = self.scorer(samples, where=f"at step {step} of {self.num_steps}")
        rewards, texts = soft_mean(found.reshape(*state.path.shape, -1), self.scale), None
        if self.settings.previews and isinstance(samples[0], str):
            texts = _by_group(samples[:: len(samples) // rewards.numel()], len(rewards))
        state.scores.take(rewards, texts=texts)
        self.score_seconds += time.perf_counter() - began
        scale = self.tempering.scale(
            state.path,
            rewards,
            log_weights=log_weights,
            reward_scale=self.scale,
            point=self.steps.index(step),
            num_points=len(self.steps),
        )
        return replace(state, inner=inner), state.path.update(rewards, scale)

    def observe(self, t: int, state: _State) -> None:
        """Keep the scores of a step, of all particles before they are resampled."""
        if t + 1 in self.steps:
            self.reward_path.append(state.scores.rewards)
            if state.scores.texts is not None:
                self.predictions.append(state.scores.texts)


class _RewardedFromStart(_Rewarded):
    """With a score before the first step."""

    def initial_log_weights(self, state: _State) -> Tensor:
        # What the model keeps of the predictions is asked for again by step 0: a state is not replaced here.
        weights = torch.zeros(state.path.shape, dtype=torch.float64)
        _, log_potential = self.score(state, 0, weights)
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
    if settings.num_sweeps and isinstance(settings.tempering, Adaptive):
        raise ValueError(
            f"expected num_sweeps=0 with tempering={settings.tempering!r}, got {settings.num_sweeps}: a scale that "
            "follows from all particles changes the weight of the one that is kept; use Linear or Constant."
        )
    reward = settings.reward
    assert isinstance(reward, Reward)
    model = source.steering_model(texts, settings)
    part = reward.refused(model.modality)  # type: ignore[arg-type]
    if part is not None:
        raise ValueError(
            f"reward expected one of {model.modality} samples, as {name_of(source)} makes them, got "
            f"{part.display_name}, which takes {part.accepts}s; give another reward."
        )
    reward.load()
    known = check_metadata(metadata, texts)
    scorer = SampleScorer(reward, texts, known, max_batch=settings.max_batch, on_nan=settings.on_nan)
    clean = group_generators(settings.seed, indices, stream="clean")
    plan = _Rewarded(model, settings, scorer, clean)
    rewarded = _RewardedFromStart(model, settings, scorer, clean) if 0 in plan.steps else plan
    result = particle_gibbs(
        rewarded,
        num_sweeps=settings.num_sweeps,
        num_groups=len(texts),
        num_particles=settings.num_particles,
        resampler=get_resampler(settings.resampler),
        ess_threshold=settings.ess_threshold,
        generator=group_generators(settings.seed, indices),
        on_nan=settings.on_nan,
        on_degenerate=settings.on_degenerate,
        resample_steps=rewarded.resample_at,
        observe=rewarded.observe,
    )
    return _result(result, rewarded, texts, indices, seconds=time.perf_counter() - start)


def _result(
    found: ParticleResult[_State], rewarded: _Rewarded, prompts: list[str], indices: list[int], *, seconds: float
) -> ModelSteeringResult:
    model, settings, steps = rewarded.model, rewarded.settings, rewarded.steps
    groups, particles = found.num_groups, found.num_particles
    rows = [found.steps.index(step - 1) for step in steps]
    identity = torch.arange(particles).expand(groups, particles)
    traced = [found.ancestors[row] for row in rows]
    ancestors = [identity if moved is None else moved.cpu() for moved in traced]
    last = found.samples
    made, shown = model.finished(last.inner)
    details = None
    if settings.previews and isinstance(model, Describes):
        details = _by_group(model.described(last.inner), groups)
    budget = replace(
        found.budget,
        reward_calls=rewarded.scorer.reward_calls,
        seconds=seconds,
        score_seconds=rewarded.score_seconds,
        peak_memory_bytes=peak_memory_bytes(shown.device),
    )
    return ModelSteeringResult(
        samples=shown.cpu(),
        made=_by_group(list(made), groups),
        kind=model.modality,
        predictions=rewarded.predictions or None,
        details=details,
        log_weights=found.log_weights.cpu(),
        log_z=found.log_z.cpu(),
        steps=steps,
        scored_steps=steps,
        ess=found.ess[[*rows, -1]].cpu(),
        ancestors=torch.stack(ancestors) if ancestors else torch.zeros(0, groups, particles, dtype=torch.long),
        resampled=found.resampled[rows].cpu(),
        degenerate=found.degenerate.cpu(),
        dropped=found.dropped.cpu(),
        rewards=last.scores.rewards,
        reward_path=torch.stack(rewarded.reward_path)
        if rewarded.reward_path
        else torch.zeros(0, groups, particles, dtype=torch.float64),
        prompts=prompts,
        prompt_indices=indices,
        num_steps=model.num_steps,
        terms=last.scores.terms,
        settings={
            "seed": settings.seed,
            "num_particles": particles,
            "resampler": getattr(get_resampler(settings.resampler), "__name__", repr(settings.resampler)),
            "ess_threshold": settings.ess_threshold,
            "num_sweeps": settings.num_sweeps,
            "sampler": model.sampler,
            "max_batch": settings.max_batch,
            "decode_batch": None,
            "reward": rewarded.scorer.reward.display_name,
            "reward_scale": rewarded.scale,
            "potential": repr(settings.potential),
            "reward_schedule": repr(rewarded.schedule),
            "tempering": repr(rewarded.tempering),
        },
        budget=budget,
    )


def _by_group(rows: list[Any], groups: int) -> list[list[Any]]:
    """B * K rows as B lists of K."""
    each = len(rows) // groups
    return [rows[b * each : (b + 1) * each] for b in range(groups)]

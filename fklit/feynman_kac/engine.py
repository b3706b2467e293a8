"""The engine: sequential Monte Carlo over any model that owns its steps.

Importance sampling, best-of-n, FK steering and twisted samplers are settings of this one loop: the model says what a
step does and what it weighs, `ParticleSystem` does the rest.
"""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fklit.feynman_kac.budget import Budget, peak_memory_bytes
from fklit.feynman_kac.checks import check_count
from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.randomness import Generators
from fklit.feynman_kac.resampling import Resampler, systematic
from fklit.feynman_kac.result import ParticleResult
from fklit.feynman_kac.trees import check_leaves, select
from fklit.feynman_kac.weights import OnDegenerate, OnNan

State = TypeVar("State")


@runtime_checkable
class FeynmanKacModel(Protocol[State]):
    """A chain with potentials. Steps run from t = 0 (the noisiest) to `num_steps - 1`.

    A model may also have

    - `initial_log_weights(state) -> Tensor` (B, K): the potential of the initial state, taken before step 0;
    - `budget`: a `Budget` of what was spent since `initial` was called.

    Attributes:
        num_steps: at least 1.
    """

    num_steps: int

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> State:
        """Return the initial state, a tree (see `trees`) of tensors (B, K, ...)."""
        ...

    def step(self, state: State, t: int, log_weights: Tensor, generator: Generators) -> tuple[State, Tensor]:
        """Return the state after step t and the log potential (B, K) of that step.

        The log potential includes the importance ratio `log p(new | old) - log q(new | old)` if the step was drawn
        from another kernel q than the model's p.

        Args:
            state: the state, resampled if the last update did so.
            t: the step.
            log_weights: carried log-weights (B, K), float64.
            generator: as given to `run`.
        """
        ...


@runtime_checkable
class WeightsInitial(Protocol):
    """A model with weights on its initial state."""

    def initial_log_weights(self, state: object) -> Tensor:
        """Return the log potential (B, K) of the initial state."""
        ...


@dataclass(frozen=True)
class StepRecord(Generic[State]):
    """One update of a run.

    Attributes:
        t: the step, -1 for the initial weights.
        state: the state after the step and its resampling; do not change it in place.
        log_potential: (B, K), as the model returned it (before resampling).
        log_weights: (B, K) float64, after resampling.
        log_z: (B,) float64.
        ess: (B,) float64, before resampling.
        ancestors: (B, K) int64, or None if no group resampled.
        resampled: (B,) bool.
    """

    t: int
    state: State
    log_potential: Tensor
    log_weights: Float64[Tensor, "B K"]
    log_z: Float64[Tensor, " B"]
    ess: Float64[Tensor, " B"]
    ancestors: Tensor | None
    resampled: Bool[Tensor, " B"]


def iterate(
    model: FeynmanKacModel[State],
    *,
    num_groups: int = 1,
    num_particles: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    generator: Generators = None,
    on_nan: OnNan = "error",
    on_degenerate: OnDegenerate = "error",
    resample_steps: Collection[int] | None = None,
) -> Iterator[StepRecord[State]]:
    """Yield one record a step; arguments as for `run`. Stop iterating to stop the run."""
    system = _system(num_groups, num_particles, resampler, ess_threshold, generator, on_nan, on_degenerate)
    return _records(model, system, check_steps(model, resample_steps))


def run(
    model: FeynmanKacModel[State],
    *,
    num_groups: int = 1,
    num_particles: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    generator: Generators = None,
    on_nan: OnNan = "error",
    on_degenerate: OnDegenerate = "error",
    resample_steps: Collection[int] | None = None,
) -> ParticleResult[State]:
    """Run all steps and return the weighted particles. The last step never resamples.

    Args:
        model: the chain and its potentials.
        num_groups: B, independent runs side by side.
        num_particles: K of each group.
        resampler: see `resampling`.
        ess_threshold: fraction of K below which a group resamples; 0 never, 1 whenever weights differ.
        generator: one, or one for each group, for the model's draws and for resampling; None is torch's global one.
        on_nan: "error", or "drop" particles with NaN or `+inf`, see `ParticleSystem`.
        on_degenerate: "error", or "keep" groups whose particles are all dead, see `ParticleSystem`.
        resample_steps: the steps that may resample (-1 for the initial weights); None means all.

    Raises:
        TypeError, ValueError: for settings or states that do not fit.
        InvalidWeightError, DegenerateGroupError: by policy.
    """
    start = time.perf_counter()
    system = _system(num_groups, num_particles, resampler, ess_threshold, generator, on_nan, on_degenerate)
    steps, record = [], None
    for record in _records(model, system, check_steps(model, resample_steps)):
        steps.append(record.t)
    assert record is not None  # a model has at least one step
    spent = getattr(model, "budget", None)
    budget = spent if isinstance(spent, Budget) else Budget()
    peak = max(budget.peak_memory_bytes, peak_memory_bytes(record.log_potential.device))
    return ParticleResult(
        samples=record.state,
        log_weights=torch.log_softmax(system.log_weights, dim=1),
        log_z=system.log_z,
        steps=tuple(steps),
        ess=torch.stack(system.ess_trace),
        ancestors=tuple(system.ancestors),
        resampled=torch.stack(system.resampled_trace),
        degenerate=system.degenerate,
        dropped=system.dropped,
        budget=replace(budget, seconds=time.perf_counter() - start, peak_memory_bytes=peak),
    )


def _system(
    num_groups: int,
    num_particles: int,
    resampler: Resampler,
    ess_threshold: float,
    generator: Generators,
    on_nan: OnNan,
    on_degenerate: OnDegenerate,
) -> ParticleSystem:
    return ParticleSystem(
        num_groups,
        num_particles,
        resampler=resampler,
        ess_threshold=ess_threshold,
        generator=generator,
        on_nan=on_nan,
        on_degenerate=on_degenerate,
    )


def check_steps(model: FeynmanKacModel[State], resample_steps: Collection[int] | None) -> frozenset[int]:
    """Steps of a model that may resample; None means all.

    Raises:
        ValueError: One lies outside the run.
    """
    num_steps = check_count("num_steps of the model", model.num_steps)
    if resample_steps is None:
        return frozenset(range(-1, num_steps))
    outside = sorted(step for step in resample_steps if not -1 <= step < num_steps)
    if outside:
        raise ValueError(
            f"resample_steps {outside} are outside the run; give steps from -1 (initial weights) to {num_steps - 1}."
        )
    return frozenset(resample_steps)


def _records(
    model: FeynmanKacModel[State], system: ParticleSystem, resample_steps: frozenset[int]
) -> Iterator[StepRecord[State]]:
    state = model.initial(system.num_groups, system.num_particles, system.generator)
    check_leaves(state, system.num_groups, system.num_particles)
    first = 0
    log_potential = None
    if isinstance(model, WeightsInitial):
        first, log_potential = -1, model.initial_log_weights(state)
    for t in range(first, model.num_steps):
        if t >= 0:
            state, log_potential = model.step(state, t, system.log_weights, system.generator)
        assert log_potential is not None
        last = t == model.num_steps - 1
        ancestors = system.update(log_potential, may_resample=t in resample_steps and not last)
        state = select(state, ancestors)
        yield StepRecord(
            t=t,
            state=state,
            log_potential=log_potential,
            log_weights=system.log_weights,
            log_z=system.log_z,
            ess=system.ess,
            ancestors=ancestors,
            resampled=system.resampled,
        )

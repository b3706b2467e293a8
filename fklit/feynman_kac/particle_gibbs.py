"""Particle Gibbs: further sweeps of conditional SMC in place of more particles.

A sweep runs all particles but one anew, and keeps one trajectory of the last sweep, drawn by weight, with the weights
it had. The trajectories drawn so form a Markov chain whose law is the target for any number of particles (Andrieu,
Doucet and Holenstein 2010, J. R. Stat. Soc. B 72; over diffusion language models Dang et al. 2025, arXiv:2507.08390).
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.feynman_kac.budget import Budget, peak_memory_bytes
from fklit.feynman_kac.checks import check_count
from fklit.feynman_kac.engine import FeynmanKacModel, WeightsInitial, check_steps
from fklit.feynman_kac.genealogy import lineages
from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.randomness import Generators, uniforms
from fklit.feynman_kac.resampling import Resampler, systematic
from fklit.feynman_kac.result import ParticleResult
from fklit.feynman_kac.trees import check_leaves, join, remembered, select
from fklit.feynman_kac.weights import OnDegenerate, OnNan, normalize

State = TypeVar("State")


@dataclass(frozen=True)
class _Trajectory(Generic[State]):
    """One trajectory of each group.

    Attributes:
        start: The initial state (B, 1, ...).
        states: The state after each update, before its resampling.
        log_potentials: (B, 1) of each update.
    """

    start: State
    states: list[State]
    log_potentials: list[Tensor]


def particle_gibbs(
    model: FeynmanKacModel[State],
    *,
    num_sweeps: int,
    num_groups: int = 1,
    num_particles: int,
    resampler: Resampler = systematic,
    ess_threshold: float = 0.5,
    generator: Generators = None,
    on_nan: OnNan = "error",
    on_degenerate: OnDegenerate = "error",
    resample_steps: Collection[int] | None = None,
    observe: Callable[[int, State], None] | None = None,
) -> ParticleResult[State]:
    """Run SMC once, then `num_sweeps` sweeps of conditional SMC; return the weighted particles of the last.

    Without further sweeps it is `run`, bit for bit. A step's log potential must depend on its particle alone; what the
    model keeps in a state must be joinable (see `trees.join`). Sweeps after the first resample multinomially, which
    keeps the law exact with one particle held in place. The model's `budget` adds up over sweeps.

    Args:
        model: As for `run`.
        num_sweeps: Sweeps after the first run, at least 0.
        num_groups: B.
        num_particles: K; at least 2 with sweeps.
        resampler: Of the first run.
        ess_threshold: As for `run`.
        generator: As for `run`.
        on_nan: As for `run`.
        on_degenerate: As for `run`.
        resample_steps: As for `run`.
        observe: Called with the step and all particles' state after each update, before its resampling (-1 for
            initial weights).

    Returns:
        Particles, weights and lineages of the last sweep; `log_z` of the first run, as only that is unbiased.

    Raises:
        TypeError, ValueError: For settings or states that do not fit.
        InvalidWeightError, DegenerateGroupError: By policy.
    """
    check_count("num_sweeps", num_sweeps, minimum=0)
    if num_sweeps and check_count("num_particles", num_particles) < 2:
        raise ValueError(
            f"expected num_particles of at least 2 with num_sweeps={num_sweeps}, got {num_particles}: one is kept; "
            "raise it."
        )
    began = time.perf_counter()
    steps, spent, evidence = check_steps(model, resample_steps), Budget(), None
    kept: _Trajectory[State] | None = None
    for sweep in range(num_sweeps + 1):
        system = ParticleSystem(
            num_groups,
            num_particles,
            resampler=resampler if kept is None else _conditional_multinomial,
            ess_threshold=ess_threshold,
            generator=generator,
            on_nan=on_nan,
            on_degenerate=on_degenerate,
        )
        state, times, trace = _sweep(model, system, steps, kept, observe, records=sweep < num_sweeps)
        budget = getattr(model, "budget", None)
        spent = spent + budget if isinstance(budget, Budget) else spent
        evidence = system.log_z if evidence is None else evidence
        if sweep < num_sweeps:
            kept = _drawn(system, trace)
    assert evidence is not None
    peak = max(spent.peak_memory_bytes, peak_memory_bytes(system.log_weights.device))
    return ParticleResult(
        samples=state,
        log_weights=torch.log_softmax(system.log_weights, dim=1),
        log_z=evidence,
        steps=tuple(times),
        ess=torch.stack(system.ess_trace),
        ancestors=tuple(system.ancestors),
        resampled=torch.stack(system.resampled_trace),
        degenerate=system.degenerate,
        dropped=system.dropped,
        budget=replace(spent, seconds=time.perf_counter() - began, peak_memory_bytes=peak),
    )


def _sweep(
    model: FeynmanKacModel[State],
    system: ParticleSystem,
    resample_steps: Collection[int],
    kept: _Trajectory[State] | None,
    observe: Callable[[int, State], None] | None,
    *,
    records: bool,
) -> tuple[State, list[int], _Trajectory[State]]:
    """One sweep; the kept trajectory, if there is one, stands in slot 0.

    Returns:
        The final state, the step of each update, and what all particles went through, if it is recorded.
    """
    groups, particles = system.num_groups, system.num_particles
    free = torch.arange(0 if kept is None else 1, particles).expand(groups, -1)
    moving = model.initial(groups, free.shape[1], system.generator)
    check_leaves(moving, groups, free.shape[1])
    state = moving if kept is None else join(kept.start, moving)
    every = torch.arange(particles).expand(groups, -1)
    trace = _Trajectory(select(remembered(state), every), [], [])  # a copy: objects may change with a step
    weighs = isinstance(model, WeightsInitial)
    times = list(range(-1 if weighs else 0, model.num_steps))
    for update, t in enumerate(times):
        if t < 0:
            assert isinstance(model, WeightsInitial)
            log_potential = model.initial_log_weights(moving)
        else:
            moving = state if kept is None else select(state, free)
            weights = system.log_weights[:, particles - free.shape[1] :]
            moving, log_potential = model.step(moving, t, weights, system.generator)
        state = moving
        if kept is not None:  # the kept particle goes where it went, and weighs what it weighed
            state = join(kept.states[update], moving)
            log_potential = torch.cat([kept.log_potentials[update].to(log_potential), log_potential], dim=1)
        if observe is not None:
            observe(t, state)
        if records:
            trace.states.append(select(remembered(state), every))
            trace.log_potentials.append(log_potential)
        ancestors = system.update(log_potential, may_resample=t in resample_steps and update < len(times) - 1)
        state = select(state, ancestors)
    return state, times, trace


def _drawn(system: ParticleSystem, trace: _Trajectory[State]) -> _Trajectory[State]:
    """One trajectory of each group, drawn by its weight at the end."""
    slot = _indices(system.log_weights, 1, system.generator)
    lines = lineages(system.ancestors, num_groups=system.num_groups, num_particles=system.num_particles)
    own = [row.gather(1, slot.to(row.device)) for row in lines]
    return _Trajectory(
        start=select(trace.start, own[0]),
        states=[select(state, line) for state, line in zip(trace.states, own, strict=False)],
        log_potentials=[
            values.gather(1, line.to(values.device)) for values, line in zip(trace.log_potentials, own, strict=False)
        ],
    )


def _conditional_multinomial(log_weights: Tensor, generators: Generators = None, /) -> Int64[Tensor, "B K"]:
    """Independent ancestors by weight, but for slot 0, whose particle stays."""
    drawn = _indices(log_weights, log_weights.shape[1] - 1, generators)
    return torch.cat([torch.zeros_like(drawn[:, :1]), drawn], dim=1)


def _indices(log_weights: Float64[Tensor, "B K"], number: int, generators: Generators) -> Int64[Tensor, "B n"]:
    """Independent draws of slots by weight, by inversion of the distribution function."""
    edges = normalize(log_weights).cumsum(dim=1)
    points = uniforms(generators, (len(edges), number), device=edges.device)
    found = torch.searchsorted(edges, points * edges[:, -1:], right=True)
    # Rounding may reach the sum itself: then it is the last slot of positive weight.
    return torch.minimum(found, (edges < edges[:, -1:]).sum(dim=1, keepdim=True))

"""Parallel tempering: the reference sampler of clusters, by their energies alone."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.checks import check_count
from fklit.molecules.clusters.energy import ClusterEnergy
from fklit.molecules.clusters.langevin import LangevinState, mala_step
from fklit.molecules.clusters.quench import quench

_ACCEPTANCE = 0.574  # optimal for MALA (Roberts and Rosenthal 1998)
_SWAP_EVERY = 10


@dataclass(frozen=True)
class TemperedSamples:
    """Chains of all temperatures.

    Attributes:
        temperatures: T of them, rising.
        samples: (T, S, C, d) coordinates of C chains, S kept of each; neighbors along S are correlated.
        energies: (T, S, C).
        acceptance: (T,), share of accepted MALA steps after the burn-in.
        swaps: (T - 1,), share of accepted swaps between neighbors after the burn-in.
        step_sizes: (T,), as adapted during the burn-in.
    """

    temperatures: tuple[float, ...]
    samples: Float[Tensor, "T S C d"]
    energies: Float[Tensor, "T S C"]
    acceptance: Float[Tensor, " T"]
    swaps: Float[Tensor, " P"]
    step_sizes: Float[Tensor, " T"]

    def at(self, temperature: float) -> Float[Tensor, "n d"]:
        """Return the samples of one temperature, (S C, d), those of one time side by side.

        Raises:
            ValueError: for a temperature that was not sampled.
        """
        return self.samples[index_of(self.temperatures, temperature)].flatten(0, 1)


def index_of(temperatures: Sequence[float], temperature: float) -> int:
    """Return the place of a temperature among those of a ladder."""
    for number, value in enumerate(temperatures):
        if abs(value - temperature) <= 1e-9 * abs(value):
            return number
    raise ValueError(
        f"expected one of the temperatures {', '.join(f'{value:g}' for value in temperatures)}, got {temperature:g}; "
        "add it to temperatures."
    )


def check_ladder(temperatures: Sequence[float]) -> tuple[float, ...]:
    """Return temperatures as rising, positive numbers."""
    ladder = tuple(float(value) for value in temperatures)
    rising = all(low < high for low, high in itertools.pairwise((0.0, *ladder, math.inf)))
    if not ladder or not rising:
        raise ValueError(f"expected rising, positive temperatures, got {list(ladder)}; sort them.")
    return ladder


@torch.no_grad()
def parallel_tempering(
    system: ClusterEnergy,
    temperatures: Sequence[float],
    *,
    num_chains: int = 32,
    num_steps: int = 20_000,
    burn_in: int = 6_000,
    every: int = 10,
    seed: int = 0,
) -> TemperedSamples:
    """Sample `exp(-E / T)` at several temperatures by MALA, with swaps of neighbors (Swendsen and Wang 1986).

    Chains start from quenched random positions. Each temperature adapts its step size during the burn-in, which is
    thrown away. All in float64; `len(temperatures) * num_chains` energies a step.

    Args:
        system: the energy.
        temperatures: rising. Swaps need neighbors whose energies overlap; at the highest the chains should mix alone.
        num_chains: chains at each temperature; those of one number swap.
        num_steps: MALA steps of each chain, the burn-in included.
        burn_in: steps before the first sample, below `num_steps`.
        every: steps between samples of a chain.
        seed: of everything.

    Raises:
        ValueError: for temperatures that do not rise, or numbers out of range.
    """
    ladder = check_ladder(temperatures)
    for name, number in (("num_chains", num_chains), ("num_steps", num_steps), ("every", every)):
        check_count(name, number)
    if not 0 <= burn_in < num_steps:
        raise ValueError(f"expected a burn_in of 0 to num_steps - 1, got {burn_in} of {num_steps}; keep some steps.")
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor(ladder, dtype=torch.float64).unsqueeze(1)
    start = torch.randn(len(ladder), num_chains, system.space.dim, generator=generator, dtype=torch.float64)
    state = LangevinState.at(system, quench(system, start, num_steps=200).coordinates)
    sizes = 0.05 * levels.sqrt()
    kept: list[tuple[Tensor, Tensor]] = []
    accepted, swapped, tried = torch.zeros(len(ladder)), torch.zeros(len(ladder) - 1), 0
    for step in range(num_steps):
        state, moved = mala_step(system, state, temperature=levels, step_size=sizes, generator=generator)
        rate = moved.double().mean(dim=1, keepdim=True)
        if step < burn_in:  # Robbins-Monro on the log of the step size
            sizes = sizes * ((rate - _ACCEPTANCE) * (step + 1) ** -0.6).exp()
        else:
            accepted += rate.squeeze(1)
        if step % _SWAP_EVERY == 0:
            state, pairs = _swap(state, levels, (step // _SWAP_EVERY) % 2, generator)
            if step >= burn_in:
                swapped, tried = swapped + pairs, tried + 1
        if step >= burn_in and (step - burn_in) % every == every - 1:
            kept.append((state.x, state.energy))
    if not kept:
        raise ValueError(f"expected samples, got none in {num_steps - burn_in} steps with every={every}; lower every.")
    return TemperedSamples(
        ladder,
        torch.stack([x for x, _ in kept], dim=1),
        torch.stack([energy for _, energy in kept], dim=1),
        (accepted / (num_steps - burn_in)).double(),
        (swapped / max(tried / 2, 1)).double(),  # a pair is tried every second time
        sizes.squeeze(1),
    )


def _swap(state: LangevinState, levels: Tensor, first: int, generator: torch.Generator) -> tuple[LangevinState, Tensor]:
    """Swap neighbors (first, first + 1), (first + 2, first + 3), ... of each chain; return the share by pair, too."""
    count, chains = state.energy.shape
    order = torch.arange(count).unsqueeze(1).repeat(1, chains)
    shares = torch.zeros(count - 1)
    draws = torch.rand(count, chains, generator=generator, dtype=torch.float64).log()
    for low in range(first, count - 1, 2):
        # exp((1/T_low - 1/T_high) (E_low - E_high)), at most 1
        ratio = (1 / levels[low] - 1 / levels[low + 1]) * (state.energy[low] - state.energy[low + 1])
        accept = draws[low] < ratio
        order[low] += accept.long()
        order[low + 1] -= accept.long()
        shares[low] = accept.float().mean()
    chain = torch.arange(chains).unsqueeze(0)
    return LangevinState(state.x[order, chain], state.energy[order, chain], state.gradient[order, chain]), shares

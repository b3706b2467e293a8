"""Metropolis-adjusted Langevin steps: exact for every step size, by energies and gradients alone."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fklit.checks import check_count
from fklit.correctors.simulation.polish import Polish
from fklit.feynman_kac.randomness import Generators, normals, uniforms
from fklit.molecules.clusters.energy import ClusterEnergy


@dataclass
class LangevinState:
    """Samples with their energies and gradients.

    Attributes:
        x: (B, C, d).
        energy: (B, C).
        gradient: (B, C, d).
    """

    x: Tensor
    energy: Tensor
    gradient: Tensor

    @classmethod
    def at(cls, system: ClusterEnergy, x: Tensor) -> "LangevinState":
        """Return the state of samples (B, C, d)."""
        return cls(x, *system.energy_and_gradient(x))


def mala_step(
    system: ClusterEnergy, state: LangevinState, *, temperature: Tensor, step_size: Tensor, generator: Generators
) -> tuple[LangevinState, Tensor]:
    """Take one step of MALA (Roberts and Tweedie 1996), which leaves `exp(-E / T)` as it is.

    Args:
        system: the energy.
        state: where the chains are, (B, C, d).
        temperature: (B, 1) or a scalar tensor.
        step_size: standard deviation h of the noise, of the shape of the temperatures.
        generator: for the noise: one, or one for each of B.

    Returns:
        The new state, and which chains moved, (B, C) bool.
    """
    shape, half = step_size.unsqueeze(-1), 0.5 * (step_size.square() / temperature).unsqueeze(-1)
    noise = normals(generator, state.x.shape, dtype=state.x.dtype, device=state.x.device)
    x = state.x - half * state.gradient + shape * noise
    new = LangevinState.at(system, x)
    # log of the reverse kernel less that of the kernel: -|x - x' + h^2 g' / 2T|^2 / 2h^2 + |noise|^2 / 2.
    back = (state.x - x + half * new.gradient) / shape
    ratio = (state.energy - new.energy) / temperature - 0.5 * (back.square() - noise.square()).sum(dim=-1)
    moved = uniforms(generator, ratio.shape, device=ratio.device).log() < ratio  # NaN is rejected
    kept = moved.unsqueeze(-1)
    state = LangevinState(
        torch.where(kept, new.x, state.x),
        torch.where(moved, new.energy, state.energy),
        torch.where(kept, new.gradient, state.gradient),
    )
    return state, moved


class LangevinPolish(Polish):
    """Steps of MALA at the target's exact energy after a run: they leave the target, and so the weights, as they are.

    What a network got wrong at the last noise levels is repaired where barriers are low. On a system whose energy is
    cheap, plain sampling of that energy may be better than any network: compare with it.

    Args:
        system: The energy.
        temperature: Of the target, positive.
        num_steps: Steps.
        step_size: Standard deviation of a step's noise, positive; the acceptance rate should be near 0.57. Several are
            taken in turn: large ones move samples on, and small ones free those that have two particles too close,
            whose huge gradient has every large step rejected.

    Raises:
        ValueError: For numbers that are not positive and finite.

    Warns:
        UserWarning: A sample was moved by no step, with the fix.
    """

    def __init__(
        self,
        system: ClusterEnergy,
        temperature: float,
        *,
        num_steps: int = 200,
        step_size: float | Sequence[float] = 0.03,
    ) -> None:
        sizes = (step_size,) if isinstance(step_size, int | float) else tuple(step_size)
        if not sizes or not all(0 < value < math.inf for value in (temperature, *sizes)):
            raise ValueError(
                f"expected a positive temperature and step_size, got {temperature} and {step_size}; give finite ones."
            )
        self.system, self.temperature = system, temperature
        self.num_steps, self.step_size = check_count("num_steps", num_steps), step_size
        self._sizes = sizes

    def __call__(self, samples: Tensor, generator: Generators) -> Tensor:
        """Return moved samples (B, K, d), in the dtype of the given ones; steps are taken in float64."""
        state = LangevinState.at(self.system, samples.double())
        device = samples.device
        temperature = torch.tensor([self.temperature], dtype=torch.float64, device=device)
        sizes = torch.tensor(self._sizes, dtype=torch.float64, device=device).unsqueeze(1)
        ever = torch.zeros(samples.shape[:2], dtype=torch.bool, device=device)
        for number in range(self.num_steps):
            size = sizes[number % len(sizes)]
            state, moved = mala_step(self.system, state, temperature=temperature, step_size=size, generator=generator)
            ever |= moved
        if not bool(ever.all()):
            stuck = int((~ever).sum())
            warnings.warn(
                f"{stuck} of {ever.numel()} samples were moved by none of {self.num_steps} steps of the polish: their "
                f"gradients are too large for step_size={self.step_size}; take small steps in turn, such as "
                f"step_size={[*self._sizes, min(self._sizes) / 10]}.",
                stacklevel=2,
            )
        return state.x.to(samples.dtype)

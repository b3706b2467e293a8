"""One iteration of a field: what is relaxed, one update of every layer, and how far it moved each sample."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from fklit.eqprop.network.execution import Execution
from fklit.eqprop.network.state import State, halves
from fklit.eqprop.relaxation.settings import Relaxation


class Field(Protocol):
    """What is relaxed: a map whose fixed point is wanted."""

    @property
    def parts(self) -> int:
        """Rows of a state for each sample: 1, or 2 if the state is split into real and imaginary half."""
        ...

    @property
    def colors(self) -> Sequence[Sequence[int]]:
        """Layers that may be updated together, in the order of a sequential iteration."""
        ...

    @property
    def execution(self) -> Execution:
        """Whether and how iterations are compiled."""
        ...

    def update(self, state: State, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """New activities of some layers."""
        ...

    def select(self, samples: Tensor) -> Self:
        """The same map for some of the samples only."""
        ...


def iterate(field: Field, state: State, relaxation: Relaxation) -> State:
    """Update every layer once. Differentiable if the field is."""
    colors = field.colors
    if relaxation.order == "synchronous":
        colors = [[layer for color in colors for layer in color]]
    current = list(state)
    for color in colors:
        for layer, value in field.update(tuple(current), color).items():
            if relaxation.rate < 1:
                value = torch.lerp(current[layer], value, relaxation.rate)
            current[layer] = value
    return tuple(current)


def advance(field: Field, point: State, relaxation: Relaxation, imaginary: bool) -> tuple[State, Tensor, Tensor]:
    """One iteration and what the test of convergence reads: all that is compiled.

    Args:
        field: The map.
        point: Activities to start from.
        relaxation: Order, rate and bound.
        imaginary: Take the change of the imaginary parts only.

    Returns:
        The new activities; the largest change of each sample, divided by the rate; and whether its activities are
        within the bound (False for NaN).
    """
    proposal = iterate(field, point, relaxation)
    change = change_of(proposal, point, field.parts, imaginary)
    if relaxation.rate < 1:
        change = change / relaxation.rate
    return proposal, change, _largest_modulus(proposal, field.parts) <= relaxation.bound


def change_of(new: State, old: State, parts: int, imaginary: bool = False) -> Tensor:
    """Largest change of each sample over all its activities; NaN if one is NaN."""
    differences = [a - b for a, b in zip(new, old, strict=True)]
    if imaginary:
        return _largest([halves(part)[1].abs() if parts == 2 else part.imag.abs() for part in differences])
    return _largest_modulus(differences, parts)


def _largest(sizes: Sequence[Tensor]) -> Tensor:
    """Largest entry of each row over all layers; NaN if one is NaN."""
    return torch.stack([size.amax(tuple(range(1, size.dim()))) for size in sizes]).amax(0)


def _largest_modulus(state: Sequence[Tensor], parts: int) -> Tensor:
    """Largest modulus of each sample."""
    if parts == 1:
        return _largest([part.abs() for part in state])
    # A root for each sample instead of each activity; squares overflow only far beyond what is relaxed
    pairs = [halves(part) for part in state]
    return _largest([real * real + imaginary * imaginary for real, imaginary in pairs]).sqrt()

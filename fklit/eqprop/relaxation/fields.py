"""The maps that are relaxed: the network itself (free or nudged), its linear response, the corrected nudged phase."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from fklit.eqprop.network.linearized import LinearizedRecurrence
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, pick_rows


class OutputForce(Protocol):
    """A force on the output layer that depends on its activities."""

    def __call__(self, out: Tensor) -> Tensor:
        """The force at these activities, shaped as they are."""
        ...

    def select(self, samples: Tensor) -> Self:
        """The same force for some of the samples only."""
        ...


def new_activities(
    network: RecurrentNetwork, given: Sequence[Tensor], state: State, layers: tuple[int, ...], split: bool
) -> list[Tensor]:
    """`act(given + H(s))` for some layers, in their order.

    Args:
        network: The network.
        given: What each of these layers gets from outside.
        state: Activities s of all layers.
        layers: Which.
        split: Whether tensors are split into real and imaginary half.
    """
    inputs = network.recurrent(state, layers, split=split)
    totals = (part + inputs[i] if i in inputs else part for i, part in zip(layers, given, strict=True))
    return [network.activate(i, total, split=split) for i, total in zip(layers, totals, strict=True)]


class NetworkField:
    """`s <- act(H(s) + drive [+ beta dL/ds])`.

    Args:
        network: Whose connections and activations.
        drive: Static input of every layer: biases, input links, a constant nudge. Split as the state is.
        split: Whether states are split into real and imaginary half.
        force: A nudge of the output layer that is evaluated at every update.
    """

    def __init__(
        self, network: RecurrentNetwork, drive: State, *, split: bool = False, force: OutputForce | None = None
    ) -> None:
        self.network, self.drive, self.split, self.force = network, drive, split, force
        self.parts = 2 if split else 1
        self.colors, self.execution = network.colors, network.execution

    def update(self, state: State, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """New activities of some layers."""
        chosen = tuple(layers)
        given = [self.drive[i] for i in chosen]
        if self.force is not None and self.network.output in chosen:
            k = chosen.index(self.network.output)
            given[k] = given[k] + self.force(state[self.network.output])
        return dict(zip(chosen, new_activities(self.network, given, state, chosen, self.split), strict=True))

    def select(self, samples: Tensor) -> Self:
        """The same for some samples."""
        count = len(self.drive[0]) // self.parts
        rows = torch.cat([samples + part * count for part in range(self.parts)])
        force = None if self.force is None else self.force.select(samples)
        return type(self)(self.network, pick_rows(self.drive, rows), split=self.split, force=force)


class ResponseField:
    """`v <- D (H' v + f)` or, transposed, `v <- D (H'^T v + f)`, with D the activations' slopes.

    The fixed points are the response `ds/dbeta` and the error of recurrent backpropagation (Almeida, Pineda 1987).

    Args:
        network: Whose connections.
        state: Free state.
        drive: Its static input.
        force: f.
        transposed: Which of the two.
    """

    parts = 1

    def __init__(
        self, network: RecurrentNetwork, state: State, drive: State, force: State, *, transposed: bool
    ) -> None:
        self.network, self.state, self.drive, self.force, self.transposed = network, state, drive, force, transposed
        self.colors, self.execution = network.colors, network.execution
        self.slopes = network.slopes(state, drive)
        self._linear = LinearizedRecurrence(network, state)

    def update(self, state: State, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """New values for some layers."""
        product = self._linear.vjp if self.transposed else self._linear.jvp
        products = product(state, layers)
        return {
            i: self.slopes[i] * (self.force[i] if i not in products else self.force[i] + products[i]) for i in layers
        }

    def select(self, samples: Tensor) -> Self:
        """The same for some samples."""
        return type(self)(
            self.network,
            pick_rows(self.state, samples),
            pick_rows(self.drive, samples),
            pick_rows(self.force, samples),
            transposed=self.transposed,
        )


class CorrectedField:
    """`s <- act(H(s0) + H'^T (s - s0) + drive + beta dL/ds)`: deviations propagate by the transposed derivative.

    Its response to the nudge is the true error vector whatever the symmetry (AsymEP, arXiv 2602.03670).

    Args:
        network: Whose connections.
        state: Free state s0, once for each row.
        drive: Static input with the nudge.
        force: A nudge of the output layer that is evaluated at every update.
    """

    parts = 1

    def __init__(
        self, network: RecurrentNetwork, state: State, drive: State, *, force: OutputForce | None = None
    ) -> None:
        self.network, self.state, self.drive, self.force = network, state, drive, force
        self.colors, self.execution = network.colors, network.execution
        self._base = network.total_input(drive, state)
        self._linear = LinearizedRecurrence(network, state)

    def update(self, state: State, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """New activities of some layers."""
        deviation = tuple(new - free for new, free in zip(state, self.state, strict=True))
        products = self._linear.vjp(deviation, layers)
        new = {}
        for i in layers:
            total = self._base[i] + products[i] if i in products else self._base[i]
            if self.force is not None and i == self.network.output:
                total = total + self.force(state[i])
            new[i] = self.network.activate(i, total)
        return new

    def select(self, samples: Tensor) -> Self:
        """The same for some rows."""
        force = None if self.force is None else self.force.select(samples)
        return type(self)(self.network, pick_rows(self.state, samples), pick_rows(self.drive, samples), force=force)

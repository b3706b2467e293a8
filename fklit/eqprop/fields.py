"""The maps that are relaxed: the network itself (free or nudged), and its linear response forwards and backwards."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fklit.eqprop.nudges import LiveForce
from fklit.eqprop.state import State, pick_rows

if TYPE_CHECKING:
    from fklit.eqprop.networks import EquilibriumNetwork


def new_activities(
    network: "EquilibriumNetwork", given: Sequence[Tensor], state: State, populations: tuple[int, ...], split: bool
) -> list[Tensor]:
    """``act(given + H(s))`` for some populations, in their order.

    Args:
        network: The network.
        given: What each of these populations gets from outside.
        state: Activities s of all populations.
        populations: Which.
        split: Whether tensors are split into real and imaginary half.
    """
    inputs = network.recurrent(state, populations, split=split)
    totals = (part + inputs[i] if i in inputs else part for i, part in zip(populations, given, strict=True))
    return [network.activate(i, total, split=split) for i, total in zip(populations, totals, strict=True)]


@cache
def _compiled() -> Callable[..., list[Tensor]]:
    compiled: Callable[..., list[Tensor]] = torch.compile(new_activities)
    return compiled


def _compiled_activities(
    network: "EquilibriumNetwork", given: Sequence[Tensor], state: State, populations: tuple[int, ...], split: bool
) -> list[Tensor]:
    for part in (*given, *state):
        torch._dynamo.maybe_mark_dynamic(part, 0)  # samples leave the batch: one graph for all its sizes
    return _compiled()(network, given, state, populations, split)


class NetworkField:
    """``s <- act(H(s) + drive [+ beta dL/ds])``.

    Args:
        network: Whose connections and activations.
        drive: Static input of every population: biases, input links, a constant nudge. Split as the state is.
        split: Whether states are split into real and imaginary half.
        live: A nudge that is evaluated at every update.
    """

    def __init__(
        self, network: "EquilibriumNetwork", drive: State, *, split: bool = False, live: LiveForce | None = None
    ) -> None:
        self.network, self.drive, self.split, self.live = network, drive, split, live
        self.parts = 2 if split else 1
        self.colors = network.colors

    def update(self, state: State, populations: Sequence[int]) -> Mapping[int, Tensor]:
        """New activities of some populations."""
        chosen = tuple(populations)
        given = [self.drive[i] for i in chosen]
        if self.live is not None and self.network.output in chosen:
            k = chosen.index(self.network.output)
            given[k] = given[k] + self.live(state[self.network.output])
        compiled = self.network.execution.compile and not torch.is_grad_enabled()
        run = _compiled_activities if compiled else new_activities
        return dict(zip(chosen, run(self.network, given, state, chosen, self.split), strict=True))

    def select(self, samples: Tensor) -> "NetworkField":
        """The same for some samples."""
        count = len(self.drive[0]) // self.parts
        rows = torch.cat([samples + part * count for part in range(self.parts)])
        live = None if self.live is None else self.live.select(samples)
        return NetworkField(self.network, pick_rows(self.drive, rows), split=self.split, live=live)


class Linearized:
    """The derivative H' of the recurrent input with respect to the activities, at a real state.

    Directions may have a multiple of the state's rows, copy after copy of the batch.

    Args:
        network: Whose connections.
        state: Where.
        differentiable: Whether products may be differentiated with respect to the weights (not to the state).
    """

    def __init__(self, network: "EquilibriumNetwork", state: State, *, differentiable: bool = False) -> None:
        self.network, self.differentiable = network, differentiable
        point = tuple(part.detach() for part in state)
        with torch.set_grad_enabled(differentiable):
            self._links = [
                (pre, post, network.link(name).reciprocal, network.link(name).derivative(point[pre], point[post]))
                for name, (pre, post) in network.ends.items()
                if pre >= 0
            ]

    def forwards(self, direction: State, populations: Sequence[int] | None = None) -> dict[int, Tensor]:
        """``H' v`` for some populations; those without recurrent input are left out."""
        total = _Total(self, populations)
        with torch.set_grad_enabled(self.differentiable):
            for pre, post, reciprocal, link in self._links:
                if post in total:
                    total.add(post, link.up(direction[pre]))
                if reciprocal and pre in total:
                    total.add(pre, link.down(direction[post], direction[pre]))
        return total.parts

    def backwards(self, direction: State, populations: Sequence[int] | None = None) -> dict[int, Tensor]:
        """``H'^T v`` for some populations; those that feed no other are left out."""
        total = _Total(self, populations)
        with torch.set_grad_enabled(self.differentiable):
            for pre, post, reciprocal, link in self._links:
                if pre in total:
                    total.add(pre, link.up_transposed(direction[post]))
                if reciprocal and post in total:
                    total.add(post, link.down_transposed(direction[pre]))
                if reciprocal and pre in total:
                    total.add(pre, link.bend_transposed(direction[pre]))
        return total.parts

    def asymmetry(self, direction: State) -> dict[int, Tensor]:
        """``(H' - H'^T) v``; what is symmetric by construction is left out of the computation."""
        total = _Total(self, None)
        with torch.set_grad_enabled(self.differentiable):
            for pre, post, reciprocal, link in self._links:
                total.add(post, link.up(direction[pre]))
                total.add(pre, -link.up_transposed(direction[post]))
                if reciprocal:
                    total.add(pre, link.down(direction[post]))
                    total.add(post, -link.down_transposed(direction[pre]))
                    if not link.symmetric:
                        bend, transposed = link.bend(direction[pre]), link.bend_transposed(direction[pre])
                        total.add(pre, bend)
                        total.add(pre, None if transposed is None else -transposed)
        return total.parts


class _Total:
    """Sums of what links bring to the populations that are asked for."""

    def __init__(self, linear: Linearized, populations: Sequence[int] | None) -> None:
        self._wanted = set(range(len(linear.network.names)) if populations is None else populations)
        self.parts: dict[int, Tensor] = {}

    def __contains__(self, population: int) -> bool:
        return population in self._wanted

    def add(self, population: int, product: Tensor | None) -> None:
        if product is not None:
            earlier = self.parts.get(population)
            self.parts[population] = product if earlier is None else earlier + product


class ResponseField:
    """``v <- D (H' v + f)`` or, transposed, ``v <- D (H'^T v + f)``, with D the activations' slopes.

    The fixed points are the response ``ds/dbeta`` and the error of recurrent backpropagation (Almeida, Pineda 1987).

    Args:
        network: Whose connections.
        state: Free state.
        drive: Its static input.
        force: f.
        transposed: Which of the two.
    """

    parts = 1

    def __init__(
        self, network: "EquilibriumNetwork", state: State, drive: State, force: State, *, transposed: bool
    ) -> None:
        self.network, self.state, self.drive, self.force, self.transposed = network, state, drive, force, transposed
        self.colors = network.colors
        self.slopes = network.slopes(state, drive)
        self._linear = Linearized(network, state)

    def update(self, state: State, populations: Sequence[int]) -> Mapping[int, Tensor]:
        """New values for some populations."""
        apply = self._linear.backwards if self.transposed else self._linear.forwards
        products = apply(state, populations)
        return {
            i: self.slopes[i] * (self.force[i] if i not in products else self.force[i] + products[i])
            for i in populations
        }

    def select(self, samples: Tensor) -> "ResponseField":
        """The same for some samples."""
        return ResponseField(
            self.network,
            pick_rows(self.state, samples),
            pick_rows(self.drive, samples),
            pick_rows(self.force, samples),
            transposed=self.transposed,
        )


class CorrectedField:
    """``s <- act(H(s0) + H'^T (s - s0) + drive + beta dL/ds)``: deviations travel along the transposed derivative.

    Its response to the nudge is the true error vector whatever the symmetry (AsymEP, arXiv 2602.03670).

    Args:
        network: Whose connections.
        state: Free state s0, once for each row.
        drive: Static input with the nudge.
        live: A nudge that is evaluated at every update.
    """

    parts = 1

    def __init__(
        self, network: "EquilibriumNetwork", state: State, drive: State, *, live: LiveForce | None = None
    ) -> None:
        self.network, self.state, self.drive, self.live = network, state, drive, live
        self.colors = network.colors
        inputs = network.recurrent(state)
        self._base = tuple(part + inputs[i] if i in inputs else part for i, part in enumerate(drive))
        self._linear = Linearized(network, state)

    def update(self, state: State, populations: Sequence[int]) -> Mapping[int, Tensor]:
        """New activities of some populations."""
        deviation = tuple(new - free for new, free in zip(state, self.state, strict=True))
        products = self._linear.backwards(deviation, populations)
        new = {}
        for i in populations:
            total = self._base[i] + products[i] if i in products else self._base[i]
            if self.live is not None and i == self.network.output:
                total = total + self.live(state[i])
            new[i] = self.network.activate(i, total)
        return new

    def select(self, samples: Tensor) -> "CorrectedField":
        """The same for some rows."""
        live = None if self.live is None else self.live.select(samples)
        return CorrectedField(self.network, pick_rows(self.state, samples), pick_rows(self.drive, samples), live=live)

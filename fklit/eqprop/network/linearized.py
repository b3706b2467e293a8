"""The derivative of the recurrent input with respect to the activities, as products with directions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State


class LinearizedRecurrence:
    """The derivative H' of the recurrent input with respect to the activities, at a real state.

    Directions may have a multiple of the state's rows, copy after copy of the batch.

    Args:
        network: Whose connections.
        state: Where.
        differentiable: Whether products may be differentiated with respect to the weights (not to the state).
    """

    def __init__(self, network: RecurrentNetwork, state: State, *, differentiable: bool = False) -> None:
        self._all_layers, self._differentiable = range(len(network.names)), differentiable
        point = tuple(part.detach() for part in state)
        with torch.set_grad_enabled(differentiable):
            self._links = [
                (pre, post, network.link(name).reciprocal, network.link(name).derivative(point[pre], point[post]))
                for name, (pre, post) in network.ends.items()
                if pre >= 0
            ]

    def jvp(self, direction: State, layers: Sequence[int] | None = None) -> dict[int, Tensor]:
        """`H' v`.

        Args:
            direction: v.
            layers: The layers whose entries are wanted; None for all.

        Returns:
            The product by place; layers without recurrent input are left out.
        """
        total = _Sum(self._all_layers if layers is None else layers)
        with torch.set_grad_enabled(self._differentiable):
            for pre, post, reciprocal, link in self._links:
                if post in total:
                    total.add(post, link.forward_jvp(direction[pre]))
                if reciprocal and pre in total:
                    total.add(pre, link.backward_jvp(direction[post], direction[pre]))
        return total.parts

    def vjp(self, direction: State, layers: Sequence[int] | None = None) -> dict[int, Tensor]:
        """`H'^T u`.

        Args:
            direction: u.
            layers: The layers whose entries are wanted; None for all.

        Returns:
            The product by place; layers that no layer gets input from are left out.
        """
        total = _Sum(self._all_layers if layers is None else layers)
        with torch.set_grad_enabled(self._differentiable):
            for pre, post, reciprocal, link in self._links:
                if pre in total:
                    total.add(pre, link.forward_vjp(direction[post]))
                if reciprocal and post in total:
                    total.add(post, link.backward_vjp(direction[pre]))
                if reciprocal and pre in total:
                    total.add(pre, link.curvature_vjp(direction[pre]))
        return total.parts

    def asymmetry(self, direction: State) -> dict[int, Tensor]:
        """`(H' - H'^T) v`; what is symmetric by construction is left out of the computation.

        Args:
            direction: v.

        Returns:
            The product by place.
        """
        total = _Sum(self._all_layers)
        with torch.set_grad_enabled(self._differentiable):
            for pre, post, reciprocal, link in self._links:
                total.add(post, link.forward_jvp(direction[pre]))
                total.add(pre, -link.forward_vjp(direction[post]))
                if reciprocal:
                    total.add(pre, link.backward_jvp(direction[post]))
                    total.add(post, -link.backward_vjp(direction[pre]))
                    if not link.symmetric_curvature:
                        product, transposed = link.curvature_jvp(direction[pre]), link.curvature_vjp(direction[pre])
                        total.add(pre, product)
                        total.add(pre, None if transposed is None else -transposed)
        return total.parts


class _Sum:
    """Sums of what links contribute to the layers that are wanted."""

    def __init__(self, layers: Sequence[int]) -> None:
        self._wanted = set(layers)
        self.parts: dict[int, Tensor] = {}

    def __contains__(self, layer: int) -> bool:
        return layer in self._wanted

    def add(self, layer: int, product: Tensor | None) -> None:
        if product is not None:
            earlier = self.parts.get(layer)
            self.parts[layer] = product if earlier is None else earlier + product

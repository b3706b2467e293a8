"""Graphs: layers, the links between them, and the colors of layers that may be updated together."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from fklit.eqprop.network.activations import Activation
from fklit.eqprop.network.connections import Connection
from fklit.eqprop.network.links import Shape


@dataclass(frozen=True)
class Layer:
    """Neurons that share an activation function.

    Attributes:
        name: An identifier; `"input"` is taken.
        shape: (neurons,) or (channels, height, width).
        activation: Their activation function; None for the network's.
        bias: Whether they have one, per neuron or per channel.
    """

    name: str
    shape: Sequence[int]
    activation: Activation | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name == "input":
            raise ValueError(
                f"expected a layer name of letters, digits and _ other than 'input', got {self.name!r}; rename it."
            )
        if not self.shape or any(side < 1 for side in self.shape):
            raise ValueError(f"expected sides of at least 1 for layer {self.name}, got shape {tuple(self.shape)}.")


def color(count: int, pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Color the graph greedily, layer by layer, so that no two layers of a color are connected.

    A chain of layers has two colors, its even and its odd layers; a loop of three has three.

    Args:
        count: Number of layers.
        pairs: Pairs of connected layers.

    Returns:
        The layers of each color.
    """
    groups: list[list[int]] = []
    for i in range(count):
        neighbors = {b for a, b in pairs if a == i} | {a for a, b in pairs if b == i}
        free = [group for group in groups if not neighbors & set(group)]
        if free:
            free[0].append(i)
        else:
            groups.append([i])
    return tuple(tuple(group) for group in groups)


def build_links(
    input_shape: Shape, layers: Sequence[Layer], connections: Sequence[Connection]
) -> tuple[nn.ModuleDict, dict[str, tuple[int, int]]]:
    """Make the links of a graph.

    Args:
        input_shape: Of one sample.
        layers: With different names.
        connections: Between them; at most one for each ordered pair.

    Returns:
        Links by name, and the places (pre, post) of the layers that each connects; -1 is the input.

    Raises:
        ValueError: If a connection names no layer, repeats a direction or does not fit, or a layer gets none.
    """
    shapes = {"input": input_shape} | {layer.name: tuple(layer.shape) for layer in layers}
    place = {"input": -1} | {layer.name: i for i, layer in enumerate(layers)}
    links, ends = nn.ModuleDict(), {}
    taken: set[tuple[str, str]] = set()
    for connection in connections:
        unknown = {connection.pre, connection.post} - set(shapes)
        if unknown:
            raise ValueError(f"expected layers of {list(shapes)} in {connection.name}, got {sorted(unknown)}.")
        directions = {(connection.pre, connection.post)}
        if connection.reciprocal:
            directions.add((connection.post, connection.pre))
        if directions & taken:
            raise ValueError(
                f"expected at most one connection for each direction, got another one with {connection.name}; remove "
                "one."
            )
        taken |= directions
        links[connection.name] = connection.build(shapes[connection.pre], shapes[connection.post])
        ends[connection.name] = (place[connection.pre], place[connection.post])
    alone = {layer.name for layer in layers} - {post for _, post in taken}
    if alone:
        raise ValueError(
            f"expected a connection to every layer, got none to {sorted(alone)}; connect them or leave them out."
        )
    return links, ends

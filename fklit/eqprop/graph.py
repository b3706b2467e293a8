"""Graphs: populations, the links between them, and the groups that may be updated together."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from fklit.eqprop.activations import Activation
from fklit.eqprop.connections import Connection, Shape


@dataclass(frozen=True)
class Population:
    """Neurons of one kind.

    Attributes:
        name: An identifier; ``"input"`` is taken.
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
            raise ValueError(f"A population is named {self.name!r}; use letters, digits and _, and not 'input'.")
        if not self.shape or any(side < 1 for side in self.shape):
            raise ValueError(f"Population {self.name} has shape {tuple(self.shape)}; every side is at least 1.")


def color(count: int, pairs: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Group populations greedily, in their order, so that no two of a group are connected.

    Layers give two groups, odd ones and even ones; a loop of three gives three.
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
    input_shape: Shape, populations: Sequence[Population], connections: Sequence[Connection]
) -> tuple[nn.ModuleDict, dict[str, tuple[int, int]]]:
    """Make the links of a graph.

    Args:
        input_shape: Of one sample.
        populations: With different names.
        connections: Between them; at most one for each ordered pair.

    Returns:
        Links by name, and the places (lower, upper) of the populations that each joins; -1 is the input.

    Raises:
        ValueError: If a connection names no population, repeats a direction or does not fit, or a population gets none.
    """
    shapes = {"input": input_shape} | {p.name: tuple(p.shape) for p in populations}
    place = {"input": -1} | {p.name: i for i, p in enumerate(populations)}
    links, ends = nn.ModuleDict(), {}
    taken: set[tuple[str, str]] = set()
    for connection in connections:
        unknown = {connection.pre, connection.post} - set(shapes)
        if unknown:
            raise ValueError(f"{connection.name} names {sorted(unknown)}; the populations are {list(shapes)}.")
        ways = {(connection.pre, connection.post)}
        if connection.reciprocal:
            ways.add((connection.post, connection.pre))
        if ways & taken:
            raise ValueError(f"{connection.name} repeats a direction that another connection has; remove one.")
        taken |= ways
        links[connection.name] = connection.build(shapes[connection.pre], shapes[connection.post])
        ends[connection.name] = (place[connection.pre], place[connection.post])
    alone = {p.name for p in populations} - {post for _, post in taken}
    if alone:
        raise ValueError(f"Populations {sorted(alone)} get no connection; connect them or leave them out.")
    return links, ends

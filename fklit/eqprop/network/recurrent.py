"""Recurrent networks: a graph of layers and links, and the input that each layer gets."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fklit.eqprop.network.activations import Activation, ShiftedSigmoid, is_holomorphic
from fklit.eqprop.network.connections import Connection, lecun_
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.network.graph import Layer, build_links, color
from fklit.eqprop.network.links import Link
from fklit.eqprop.network.state import State, halves


class RecurrentNetwork(nn.Module):
    """Layers, the links between them, and a linear readout outside the recurrence.

    Activities at a fixed point obey `s = act(H(s) + drive)`, with the recurrent input H(s) and the static drive of
    biases and input. Parameters are named `links.PRE-POST.forward_weight`, `links.PRE-POST.backward_weight`,
    `biases.LAYER`, `readout.weight` and `readout.bias`.

    Args:
        input_shape: Of one sample.
        layers: In the order of updates and of states.
        connections: Between them; at most one for each ordered pair.
        output: Name of the layer that is read and nudged; None for the last.
        num_classes: Size of a trainable linear readout of the output layer; None for no readout.
        activation: For layers that name none; None for the shifted sigmoid.
        execution: Switches for speed; None for the defaults.

    Attributes:
        names: Names of the layers.
        output: Place of the output layer.
        activations: Of each layer.
        ends: Places (pre, post) of the layers that each link connects, by its name; -1 is the input.
        colors: Layers that may be updated together, as no two of them are connected.
        holomorphic: Whether all activations are, and all links between layers.

    Raises:
        ValueError: If names, shapes or connections do not fit.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Sequence[Layer],
        *,
        connections: Sequence[Connection],
        output: str | None = None,
        num_classes: int | None = None,
        activation: Activation | None = None,
        execution: Execution | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.layers = tuple(layers)
        self.names = tuple(layer.name for layer in self.layers)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"expected at least one layer, with different names, got {list(self.names)}.")
        if output is not None and output not in self.names:
            raise ValueError(f"expected output to be one of {list(self.names)}, got {output!r}.")
        self.output = len(self.names) - 1 if output is None else self.names.index(output)
        default = ShiftedSigmoid() if activation is None else activation
        self.activations = tuple(layer.activation or default for layer in self.layers)
        self.execution = Execution() if execution is None else execution
        self.links, self.ends = build_links(self.input_shape, self.layers, connections)
        self.colors = color(len(self.names), [ends for ends in self.ends.values() if ends[0] >= 0])
        self.biases = nn.ParameterDict()
        for layer in self.layers:
            if layer.bias:
                sides = len(layer.shape) - 1
                self.biases[layer.name] = nn.Parameter(torch.zeros(layer.shape[0], *[1] * sides))
        self.readout: nn.Linear | None = None
        if num_classes is not None:
            size = math.prod(self.layers[self.output].shape)
            self.readout = nn.Linear(size, num_classes)
            lecun_(self.readout.weight.data, size)
            nn.init.zeros_(self.readout.bias)
        self.holomorphic = not self.not_holomorphic()
        if self.execution.channels_last:
            self.to(memory_format=torch.channels_last)  # convolutions then return states in that format

    @property
    def dtype(self) -> torch.dtype:
        """Number format of states."""
        return torch.promote_types(next(self.parameters()).dtype, torch.float32)

    @property
    def num_neurons(self) -> int:
        """Neurons of all layers, D in the paper."""
        return sum(math.prod(layer.shape) for layer in self.layers)

    def link(self, name: str) -> Link:
        """A link by its name `PRE-POST`."""
        module = self.links[name]
        assert isinstance(module, Link)
        return module

    def not_holomorphic(self) -> list[str]:
        """What has no complex derivative: activations, and links between layers; those of the input stay real."""
        wrong = {repr(activation) for activation in self.activations if not is_holomorphic(activation)}
        links = (name for name, (pre, _) in self.ends.items() if pre >= 0 and not self.link(name).holomorphic)
        return sorted(wrong) + [f"the pooling of {name}" for name in links]

    def dynamics_parameters(self) -> dict[str, nn.Parameter]:
        """Weights and biases of the dynamics by name: all parameters but the readout's."""
        return {name: weight for name, weight in self.named_parameters() if not name.startswith("readout.")}

    def drive(self, x: Tensor) -> State:
        """Static input of each layer: bias and links from the input, `(samples, *shape)` each.

        Raises:
            ValueError: If x does not have the network's input shape.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(f"expected samples of shape {self.input_shape}, got a batch of shape {tuple(x.shape)}.")
        given = {post: self.link(name).to_post(x) for name, (pre, post) in self.ends.items() if pre < 0}
        parts = (given[i] if i in given else self._zeros(len(x), layer) for i, layer in enumerate(self.layers))
        return tuple(
            part + self.biases[layer.name] if layer.bias else part
            for part, layer in zip(parts, self.layers, strict=True)
        )

    def recurrent(self, state: State, layers: Sequence[int] | None = None, *, split: bool = False) -> dict[int, Tensor]:
        """Input H(s) that layers get from one another, without the static drive.

        Args:
            state: Activities of all layers (real, complex or split).
            layers: Whose input; None for all.
            split: Whether the state is split into real and imaginary half.

        Returns:
            The input by place; layers that get none are left out.
        """
        wanted = set(range(len(self.names)) if layers is None else layers)
        inputs: dict[int, Tensor] = {}

        def add(i: int, given: Tensor) -> None:
            inputs[i] = inputs[i] + given if i in inputs else given

        for name, (pre, post) in self.ends.items():
            if pre < 0:
                continue
            link = self.link(name)
            if post in wanted:
                add(post, link.to_post(state[pre], split=split))
            if link.reciprocal and pre in wanted:
                add(pre, link.to_pre(state[pre], state[post], split=split))
        return inputs

    def total_input(self, drive: State, state: State) -> State:
        """`H(s) + drive` of each layer."""
        recurrent = self.recurrent(state)
        return tuple(part + recurrent[i] if i in recurrent else part for i, part in enumerate(drive))

    def activate(self, layer: int, total: Tensor, *, split: bool = False) -> Tensor:
        """Activities of a layer from its total input."""
        activation = self.activations[layer]
        return torch.cat(activation.split(*halves(total))) if split else activation(total)

    def slopes(self, state: State, drive: State) -> State:
        """Derivative of each neuron's activation at its total input."""
        with torch.no_grad():
            totals = self.total_input(drive, state)
        return tuple(activation.slope(total) for activation, total in zip(self.activations, totals, strict=True))

    def zero_state(self, samples: int) -> State:
        """Activities of zero, the usual start."""
        return tuple(self._zeros(samples, layer) for layer in self.layers)

    def _zeros(self, samples: int, layer: Layer) -> Tensor:
        device = next(self.parameters()).device
        zeros = torch.zeros(samples, *layer.shape, dtype=self.dtype, device=device)
        last = self.execution.channels_last and zeros.dim() == 4
        return zeros.contiguous(memory_format=torch.channels_last) if last else zeros

    def read(self, state: State) -> Tensor:
        """Logits of the readout `(samples, classes)`, or without one the output layer's activities."""
        out = state[self.output]
        if self.readout is None:
            return out
        with torch.autocast(out.device.type, enabled=False):
            weight, bias = (parameter.to(out.dtype) for parameter in (self.readout.weight, self.readout.bias))
            return F.linear(out.flatten(1), weight, bias)

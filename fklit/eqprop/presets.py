"""The paper's three networks, with its sizes as defaults, and the VGG type of deeper ones."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.learning.responses import Estimator
from fklit.eqprop.network.activations import Activation, DoubleSiLU, ShiftedSigmoid
from fklit.eqprop.network.connections import Connection, Convolution, Dense
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.network.pool_kinds import PoolKind
from fklit.eqprop.relaxation.result import UnconvergedPolicy
from fklit.eqprop.relaxation.settings import Relaxation


class MLP(EquilibriumNetwork):
    """Dense layers `l1, l2, ..., out` with reciprocal connections, and a readout.

    Args:
        input_shape: Of one sample, flattened.
        hidden: Neurons of the hidden layers.
        num_outputs: Neurons of the last layer.
        num_classes: Of the readout; None for none.
        tied: Whether backward weights are the transposed forward weights.
        angle: First angle between untied forward and backward weights, in degrees.
        gain: Factor on the first weights between layers.
        activation: Of all neurons; None for the shifted sigmoid.
        free: As in `EquilibriumNetwork`.
        estimator: As in `EquilibriumNetwork`.
        unconverged: As in `EquilibriumNetwork`.
        execution: As in `EquilibriumNetwork`.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (28, 28),
        hidden: Sequence[int] = (256, 256),
        *,
        num_outputs: int = 10,
        num_classes: int | None = 10,
        tied: bool = False,
        angle: float = 0.0,
        gain: float = 1.0,
        activation: Activation | None = None,
        free: Relaxation | None = None,
        estimator: Estimator | None = None,
        unconverged: UnconvergedPolicy | None = None,
        execution: Execution | None = None,
    ) -> None:
        names = [*(f"l{i + 1}" for i in range(len(hidden))), "out"]
        super().__init__(
            input_shape,
            [Layer(name, (size,)) for name, size in zip(names, [*hidden, num_outputs], strict=True)],
            connections=[
                Dense("input", names[0]),
                *(Dense(pre, post, tied=tied, angle=angle, gain=gain) for pre, post in pairwise(names)),
            ],
            num_classes=num_classes,
            activation=ShiftedSigmoid() if activation is None else activation,
            free=free,
            estimator=estimator,
            unconverged=unconverged,
            execution=execution,
        )


class LoopNet(EquilibriumNetwork):
    """`input -> l1 -> l2 -> out -> l1`: a loop without reciprocal connections (figure 4 e to h).

    Args:
        input_shape: Of one sample, flattened.
        hidden: Neurons of the two hidden layers.
        num_outputs: Neurons of the last layer.
        num_classes: Of the readout; None for none.
        gain: Factor on the first weights between layers.
        activation: Of all neurons; None for the shifted sigmoid.
        free: As in `EquilibriumNetwork`.
        estimator: As in `EquilibriumNetwork`.
        unconverged: As in `EquilibriumNetwork`.
        execution: As in `EquilibriumNetwork`.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (28, 28),
        hidden: Sequence[int] = (256, 256),
        *,
        num_outputs: int = 10,
        num_classes: int | None = 10,
        gain: float = 1.0,
        activation: Activation | None = None,
        free: Relaxation | None = None,
        estimator: Estimator | None = None,
        unconverged: UnconvergedPolicy | None = None,
        execution: Execution | None = None,
    ) -> None:
        if len(hidden) != 2:
            raise ValueError(f"expected two hidden layers for the loop, got hidden={list(hidden)}.")
        loop = [("l1", "l2"), ("l2", "out"), ("out", "l1")]
        super().__init__(
            input_shape,
            [Layer("l1", (hidden[0],)), Layer("l2", (hidden[1],)), Layer("out", (num_outputs,))],
            connections=[
                Dense("input", "l1"),
                *(Dense(pre, post, reciprocal=False, gain=gain) for pre, post in loop),
            ],
            num_classes=num_classes,
            activation=ShiftedSigmoid() if activation is None else activation,
            free=free,
            estimator=estimator,
            unconverged=unconverged,
            execution=execution,
        )


class ConvNet(EquilibriumNetwork):
    """Convolutions 3 x 3 with softmax pooling, the last one without padding, and a readout (figure 4 i to l, table 2).

    32 x 32 pixels give 16 x 16, 8 x 8, 4 x 4, and 1 x 1.

    Args:
        input_shape: (channels, height, width); sides are halved with each layer, and the last layer reduces
            4 x 4 to 1 x 1.
        channels: Of the layers `conv1, conv2, ..., out`.
        num_classes: Of the readout; None for none.
        tied: Whether the backward direction shares the kernels.
        angle: First angle between untied forward and backward kernels, in degrees.
        gain: Factor on the first kernels between layers.
        activation: Of all neurons; None for the double SiLU.
        free: As in `EquilibriumNetwork`; None for up to 250 iterations.
        estimator: As in `EquilibriumNetwork`.
        unconverged: As in `EquilibriumNetwork`.
        execution: As in `EquilibriumNetwork`.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        channels: Sequence[int] = (128, 256, 512, 512),
        *,
        num_classes: int | None = 10,
        tied: bool = False,
        angle: float = 0.0,
        gain: float = 1.0,
        activation: Activation | None = None,
        free: Relaxation | None = None,
        estimator: Estimator | None = None,
        unconverged: UnconvergedPolicy | None = None,
        execution: Execution | None = None,
    ) -> None:
        depth = len(channels) - 1
        side = 4 * 2**depth
        if depth < 1 or tuple(input_shape[1:]) != (side, side):
            raise ValueError(
                f"expected at least 2 layers and {side} x {side} pixels for {len(channels)} of them, got "
                f"input_shape={tuple(input_shape)} and channels={list(channels)}."
            )
        names = ["input", *(f"conv{i + 1}" for i in range(depth)), "out"]
        shapes = [(c, side // 2 ** (i + 1), side // 2 ** (i + 1)) for i, c in enumerate(channels[:-1])]
        shapes.append((channels[-1], 1, 1))
        super().__init__(
            input_shape,
            [Layer(name, shape) for name, shape in zip(names[1:], shapes, strict=True)],
            connections=[
                Convolution(
                    pre,
                    post,
                    padding=0 if post == "out" else 1,
                    tied=tied,
                    angle=angle,
                    gain=1.0 if pre == "input" else gain,
                )
                for pre, post in pairwise(names)
            ],
            num_classes=num_classes,
            activation=DoubleSiLU() if activation is None else activation,
            free=Relaxation(max_iterations=250) if free is None else free,
            estimator=estimator,
            unconverged=unconverged,
            execution=execution,
        )


class VGG(EquilibriumNetwork):
    """Blocks of convolutions 3 x 3 whose last one pools, then dense layers: the VGG type of deep EP networks.

    Layers are `conv1_1, conv1_2, conv2_1, ...`, then `dense1, ...` if there are several dense ones, and `out`. The
    defaults are the VGG5 of the energy-based literature (Scellier et al. 2023), with tied weights. There the activation
    is `ClippedReLU` and the pooling `"max"`; the defaults here are smooth forms of both, which every estimator takes.

    Args:
        input_shape: (channels, height, width); every block halves the sides.
        blocks: Channels of each convolution of each block.
        hidden: Neurons of dense layers between the last block and the output.
        num_outputs: Neurons of the output layer.
        num_classes: Of the readout; None for none.
        pooling: As in `Convolution`.
        tied: Whether backward weights are the transposed forward weights.
        angle: First angle between untied forward and backward weights, in degrees.
        gain: Factor on the first weights between layers.
        activation: Of all neurons; None for the double SiLU.
        free: As in `EquilibriumNetwork`; None for up to 250 iterations.
        estimator: As in `EquilibriumNetwork`.
        unconverged: As in `EquilibriumNetwork`.
        execution: As in `EquilibriumNetwork`.

    Raises:
        ValueError: If a block is empty, the input has no sides, or the blocks do not divide them.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        blocks: Sequence[Sequence[int]] = ((128,), (256,), (512,), (512,)),
        *,
        hidden: Sequence[int] = (),
        num_outputs: int = 10,
        num_classes: int | None = 10,
        pooling: PoolKind = "softmax",
        tied: bool = True,
        angle: float = 0.0,
        gain: float = 1.0,
        activation: Activation | None = None,
        free: Relaxation | None = None,
        estimator: Estimator | None = None,
        unconverged: UnconvergedPolicy | None = None,
        execution: Execution | None = None,
    ) -> None:
        if not blocks or not all(blocks):
            raise ValueError(f"expected blocks of at least one convolution each, got blocks={list(map(list, blocks))}.")
        if len(input_shape) != 3:
            raise ValueError(f"expected input_shape (channels, height, width), got {tuple(input_shape)}.")
        height, width = input_shape[1:]
        if height % 2 ** len(blocks) or width % 2 ** len(blocks):
            raise ValueError(
                f"expected sides that {2 ** len(blocks)} divides for {len(blocks)} blocks, got input_shape="
                f"{tuple(input_shape)}; pad the images, or leave out blocks."
            )
        layers: list[Layer] = []
        connections: list[Connection] = []
        names = ["input"]

        for b, block in enumerate(blocks, 1):
            for k, channels in enumerate(block, 1):
                last = k == len(block)
                if last:
                    height, width = height // 2, width // 2
                layers.append(Layer(f"conv{b}_{k}", (channels, height, width)))
                pool: dict[str, Any] = {"pool": 2, "pooling": pooling} if last else {"pool": 1}
                pre, post = names[-1], layers[-1].name
                connections.append(
                    Convolution(pre, post, **pool, tied=tied, angle=angle, gain=gain if len(names) > 1 else 1.0)
                )
                names.append(post)
        for k, neurons in enumerate([*hidden, num_outputs], 1):
            layers.append(Layer("out" if k > len(hidden) else f"dense{k}", (neurons,)))
            connections.append(Dense(names[-1], layers[-1].name, tied=tied, angle=angle, gain=gain))
            names.append(layers[-1].name)
        super().__init__(
            input_shape,
            layers,
            connections=connections,
            num_classes=num_classes,
            activation=DoubleSiLU() if activation is None else activation,
            free=Relaxation(max_iterations=250) if free is None else free,
            estimator=estimator,
            unconverged=unconverged,
            execution=execution,
        )

"""Connections between layers, as a configuration declares them."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fklit.eqprop.network.links import ConvolutionLink, DenseLink, Link, Shape
from fklit.eqprop.network.pool_kinds import PoolKind, make_pooling


def lecun_(weight: Tensor, fan_in: int) -> Tensor:
    """Fill with the truncated normal of variance `1 / fan_in` (two standard deviations), as Flax does by default."""
    # 0.8796... is the standard deviation of a unit normal cut at 2
    std = 1 / (math.sqrt(fan_in) * 0.87962566103423978)
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Connection(ABC):
    """From layer `pre` to layer `post`, and back again if reciprocal.

    Args:
        pre: Name of the pre layer, or `"input"`.
        post: Name of the post layer.
        reciprocal: Whether there is a backward direction, from post to pre. Connections from the input have none
            whatever this says.
        tied: Whether the backward direction shares the forward weights (an energy-based network) or has its own.
        angle: For untied backward weights, degrees between their first values and the transposed forward weights:
            `sin(angle) random + cos(angle) transposed`. 0 starts symmetric, 90 independent. In between it is larger
            than said here where the backward direction has the smaller fan-in, and so the larger random weights.
        gain: Factor on all first weights.

    Raises:
        ValueError: If the names do not fit, or the angle or gain is out of range.
    """

    def __init__(
        self,
        pre: str,
        post: str,
        *,
        reciprocal: bool = True,
        tied: bool = False,
        angle: float = 90.0,
        gain: float = 1.0,
    ) -> None:
        if post == "input":
            raise ValueError("expected a layer for post, got 'input'; connections lead from the input, not to it.")
        if reciprocal and pre == post:
            raise ValueError(
                f"expected two layers for a reciprocal connection, got {pre!r} twice; give reciprocal=False to connect "
                "a layer to itself."
            )
        if not 0 <= angle <= 180:
            raise ValueError(f"expected angle in degrees from 0 (transposed) to 180, got {angle}.")
        if not gain > 0:
            raise ValueError(f"expected gain above 0, got {gain}.")
        self.pre, self.post = pre, post
        self.reciprocal = reciprocal and pre != "input"
        self.tied, self.angle, self.gain = tied, angle, gain

    @property
    def name(self) -> str:
        """`pre-post`, the key of its link in the network."""
        return f"{self.pre}-{self.post}"

    @abstractmethod
    def build(self, pre_shape: Shape, post_shape: Shape) -> Link:
        """Make the link with first weights from torch's global random numbers.

        Args:
            pre_shape: Of one sample of the pre layer.
            post_shape: Of one sample of the post layer.

        Raises:
            ValueError: If the shapes do not fit.
        """

    def _mix(self, random: Tensor, transposed: Tensor) -> nn.Parameter:
        angle = math.radians(self.angle)
        return nn.Parameter(math.sin(angle) * random + math.cos(angle) * transposed)


class Dense(Connection):
    """Every neuron with every neuron. Arguments as in `Connection`."""

    def build(self, pre_shape: Shape, post_shape: Shape) -> Link:
        """Make the weights; the variance of each direction is one over its own fan-in."""
        pre, post = math.prod(pre_shape), math.prod(post_shape)
        forward = lecun_(torch.empty(post, pre), pre)
        backward = None
        if self.reciprocal and not self.tied:
            backward = self._mix(lecun_(torch.empty(pre, post), post), forward.T)
            backward.data *= self.gain
        return DenseLink(forward * self.gain, backward, post_shape, self.tied and self.reciprocal)


class Convolution(Connection):
    """A convolution, followed by pooling.

    Args:
        pre: As in `Connection`; of shape (channels, height, width).
        post: As in `Connection`; its shape must be what convolution and pooling give.
        kernel_size: Side of the kernel.
        padding: Zeros added on every side; `kernel_size // 2` keeps the size of odd kernels.
        stride: Of the convolution.
        pool: Side and stride of the pooling window; 1 for none.
        pooling: What a window is reduced to: `"softmax"` (a smooth maximum, holomorphic, the paper's), `"max"` (real
            nudges only) or `"average"`.
        reciprocal: As in `Connection`.
        tied: As in `Connection`.
        angle: As in `Connection`; both kernels map the pre layer to the post layer.
        gain: As in `Connection`.

    Raises:
        ValueError: As in `Connection`, or if a size is out of range.
    """

    def __init__(
        self,
        pre: str,
        post: str,
        *,
        kernel_size: int = 3,
        padding: int = 1,
        stride: int = 1,
        pool: int = 2,
        pooling: PoolKind = "softmax",
        reciprocal: bool = True,
        tied: bool = False,
        angle: float = 90.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__(pre, post, reciprocal=reciprocal, tied=tied, angle=angle, gain=gain)
        if kernel_size < 1 or pool < 1 or not 0 <= padding < kernel_size:
            raise ValueError(
                f"expected kernel_size and pool of at least 1 and padding from 0 to kernel_size - 1 for {self.name}, "
                f"got kernel_size={kernel_size}, pool={pool}, padding={padding}."
            )
        if stride < 1:
            raise ValueError(f"expected stride of at least 1 for {self.name}, got stride={stride}.")
        make_pooling(pooling)
        if pool == 1 and pooling != "softmax":
            raise ValueError(
                f"expected a window of at least 2 for pooling={pooling!r} in {self.name}, got pool=1, which pools "
                "nothing; raise pool, or leave pooling out."
            )
        self.kernel_size, self.padding, self.stride = kernel_size, padding, stride
        self.pool, self.pooling = pool, pooling

    def build(self, pre_shape: Shape, post_shape: Shape) -> Link:
        """Make the kernels."""
        if len(pre_shape) != 3 or len(post_shape) != 3:
            raise ValueError(
                f"expected shapes (channels, height, width) for the convolution {self.name}, got {pre_shape} and "
                f"{post_shape}."
            )
        free = [side + 2 * self.padding - self.kernel_size for side in pre_shape[1:]]
        sides = [room // self.stride + 1 for room in free]
        if any(side < 1 or side % self.pool for side in sides):
            raise ValueError(
                f"expected sides that pool={self.pool} divides for {self.name}, got {sides[0]} x {sides[1]} before "
                "pooling; change pool, stride or padding."
            )
        given = tuple(side // self.pool for side in sides)
        if given != tuple(post_shape[1:]):
            raise ValueError(
                f"expected {given[0]} x {given[1]} for {self.post}, as {self.name} gives it, got {post_shape[1]} x "
                f"{post_shape[2]}; declare {self.post} as ({post_shape[0]}, {given[0]}, {given[1]})."
            )
        shape = (post_shape[0], pre_shape[0], self.kernel_size, self.kernel_size)
        fan_in = math.prod(shape[1:])
        forward = lecun_(torch.empty(shape), fan_in)
        backward = None
        if self.reciprocal and not self.tied:
            backward = self._mix(lecun_(torch.empty(shape), fan_in), forward)
            backward.data *= self.gain
        return ConvolutionLink(
            forward * self.gain,
            backward,
            self.padding,
            self.pool,
            self.tied and self.reciprocal,
            stride=self.stride,
            pooling=self.pooling,
            cut=(free[0] % self.stride, free[1] % self.stride),
        )

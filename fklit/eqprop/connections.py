"""Connections between populations: what a configuration says of them, and the links that hold their weights."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fklit.eqprop.derivatives import ConvolutionDerivative, DenseDerivative, LinkDerivative, RecordedDerivative
from fklit.eqprop.pooling import softmax_pool, softmax_pool_transpose

Shape = tuple[int, ...]


def lecun_(weight: Tensor, fan_in: int) -> Tensor:
    """Fill with the truncated normal of variance ``1 / fan_in`` (two standard deviations), as Flax does by default."""
    # 0.8796... is the standard deviation of a unit normal cut at 2
    std = 1 / (math.sqrt(fan_in) * 0.87962566103423978)
    return nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Link(nn.Module, ABC):
    """The weights of a connection and its two directions; ``backward_weight`` is None if tied or one-way."""

    forward_weight: nn.Parameter
    backward_weight: nn.Parameter | None
    reciprocal: bool

    @abstractmethod
    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """Input that the upper population gets, from the activities of the lower one."""

    @abstractmethod
    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """Input that the lower population gets, from the activities of both."""

    @abstractmethod
    def aligned_backward_weight(self) -> Tensor:
        """The weights of the way back, laid out as ``forward_weight`` (the same values if tied)."""

    def derivative(self, pre: Tensor, post: Tensor) -> LinkDerivative:
        """Derivatives of both directions at activities; override it with hand-written ones for speed."""
        return RecordedDerivative(self, pre, post)

    def _way_back(self) -> Tensor:
        return self.forward_weight if self.backward_weight is None else self.backward_weight


class Connection(ABC):
    """From population ``pre`` to population ``post``, and back again if reciprocal.

    Args:
        pre: Name of the lower population, or ``"input"``.
        post: Name of the upper population.
        reciprocal: Whether there is a way back. Connections from the input are one-way whatever this says.
        tied: Whether the way back shares the weights (an energy-based network) or has its own.
        angle: For an untied way back, degrees between its first weights and the transposed ones of the way up:
            ``sin(angle) random + cos(angle) transposed``. 0 starts symmetric, 90 independent. In between it is larger
            than said here where the way back has the smaller fan-in, and so the larger random weights.
        gain: Factor on all first weights.

    Raises:
        ValueError: If a name is empty or the angle or gain is out of range.
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
            raise ValueError("post='input' was given; the input gets no connection, so name a population.")
        if reciprocal and pre == post:
            raise ValueError(f"pre and post are both {pre!r}; give reciprocal=False for a population onto itself.")
        if not 0 <= angle <= 180:
            raise ValueError(f"angle={angle} was given; it is in degrees, from 0 (transposed) to 180.")
        if not gain > 0:
            raise ValueError(f"gain={gain} was given; it must be above 0.")
        self.pre, self.post = pre, post
        self.reciprocal = reciprocal and pre != "input"
        self.tied, self.angle, self.gain = tied, angle, gain

    @property
    def name(self) -> str:
        """``pre-post``, the key of its link in the network."""
        return f"{self.pre}-{self.post}"

    @abstractmethod
    def build(self, pre_shape: Shape, post_shape: Shape) -> Link:
        """Make the link with first weights from torch's global random numbers.

        Raises:
            ValueError: If the shapes do not fit.
        """

    def _mix(self, random: Tensor, transposed: Tensor) -> nn.Parameter:
        angle = math.radians(self.angle)
        return nn.Parameter(math.sin(angle) * random + math.cos(angle) * transposed)


class DenseLink(Link):
    """``W s`` up and ``B s`` down, with ``W`` of shape (post, pre) and ``B`` of shape (pre, post)."""

    def __init__(
        self, forward_weight: Tensor, backward_weight: nn.Parameter | None, post_shape: Shape, tied: bool
    ) -> None:
        super().__init__()
        self.forward_weight = nn.Parameter(forward_weight)
        self.backward_weight = backward_weight
        self.reciprocal = tied or backward_weight is not None
        self.post_shape = post_shape

    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """``W s``, shaped as the upper population."""
        out = F.linear(pre.flatten(1), self.forward_weight.to(pre.dtype))
        return out.view(len(pre), *self.post_shape)

    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """``B s`` or, tied, ``W^T s``."""
        weight = self.forward_weight.T if self.backward_weight is None else self.backward_weight
        return F.linear(post.flatten(1), weight.to(post.dtype)).view(pre.shape)

    def derivative(self, pre: Tensor, post: Tensor) -> DenseDerivative:
        """Derivatives of both directions."""
        return DenseDerivative(self, pre, post)

    def aligned_backward_weight(self) -> Tensor:
        """``B^T``, shaped as ``W``."""
        return self.forward_weight if self.backward_weight is None else self.backward_weight.T


class Dense(Connection):
    """Every neuron with every neuron. Arguments as in :class:`Connection`."""

    def build(self, pre_shape: Shape, post_shape: Shape) -> Link:
        """Make the weights; each direction's variance is one over its own fan-in."""
        pre, post = math.prod(pre_shape), math.prod(post_shape)
        up = lecun_(torch.empty(post, pre), pre)
        down = None
        if self.reciprocal and not self.tied:
            down = self._mix(lecun_(torch.empty(pre, post), post), up.T)
            down.data *= self.gain
        return DenseLink(up * self.gain, down, post_shape, self.tied and self.reciprocal)


class ConvolutionLink(Link):
    """``pool(conv(s, W))`` up; down, the transpose of ``pool(conv(., B))`` at s, applied to the upper activities."""

    def __init__(
        self, forward_weight: Tensor, backward_weight: nn.Parameter | None, padding: int, pool: int, tied: bool
    ) -> None:
        super().__init__()
        self.forward_weight = nn.Parameter(forward_weight)
        self.backward_weight = backward_weight
        self.reciprocal = tied or backward_weight is not None
        self.padding, self.pool = padding, pool

    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """``pool(conv(s, W))``."""
        z = F.conv2d(pre, self.forward_weight.to(pre.dtype), padding=self.padding)
        return z if self.pool == 1 else softmax_pool(z, self.pool, split=split)

    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """Gradient of ``<pool(conv(pre, B)), post>`` with respect to ``pre`` (no conjugation)."""
        weight = self._way_back().to(pre.dtype)
        cotangent = post
        if self.pool > 1:
            z = F.conv2d(pre, weight, padding=self.padding)
            cotangent = softmax_pool_transpose(z, post, self.pool, split=split)
        return F.conv_transpose2d(cotangent, weight, padding=self.padding)

    def derivative(self, pre: Tensor, post: Tensor) -> ConvolutionDerivative:
        """Derivatives of both directions."""
        return ConvolutionDerivative(self, pre, post)

    def aligned_backward_weight(self) -> Tensor:
        """``B``: its layout is that of ``W`` already."""
        return self._way_back()


class Convolution(Connection):
    """A convolution of stride 1, followed by softmax pooling.

    Args:
        pre: As in :class:`Connection`; of shape (channels, height, width).
        post: As in :class:`Connection`; its shape must be what convolution and pooling give.
        kernel_size: Side of the kernel.
        padding: Zeros added on every side; ``kernel_size // 2`` keeps the size of odd kernels.
        pool: Side and stride of the pooling window; 1 for none.
        reciprocal: As in :class:`Connection`.
        tied: As in :class:`Connection`.
        angle: As in :class:`Connection`; both kernels map the lower population to the upper one.
        gain: As in :class:`Connection`.

    Raises:
        ValueError: As in :class:`Connection`, or if a size is out of range.
    """

    def __init__(
        self,
        pre: str,
        post: str,
        *,
        kernel_size: int = 3,
        padding: int = 1,
        pool: int = 2,
        reciprocal: bool = True,
        tied: bool = False,
        angle: float = 90.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__(pre, post, reciprocal=reciprocal, tied=tied, angle=angle, gain=gain)
        if kernel_size < 1 or pool < 1 or not 0 <= padding < kernel_size:
            raise ValueError(
                f"kernel_size={kernel_size}, padding={padding}, pool={pool} were given for {self.name}; sizes are at "
                "least 1, and padding is from 0 to kernel_size - 1."
            )
        self.kernel_size, self.padding, self.pool = kernel_size, padding, pool

    def build(self, pre_shape: Shape, post_shape: Shape) -> Link:
        """Make the kernels."""
        if len(pre_shape) != 3 or len(post_shape) != 3:
            raise ValueError(
                f"{self.name} joins shapes {pre_shape} and {post_shape}; a convolution needs (channels, height, width)."
            )
        sides = [side + 2 * self.padding - self.kernel_size + 1 for side in pre_shape[1:]]
        if any(side < 1 or side % self.pool for side in sides):
            raise ValueError(
                f"{self.name} gives {sides[0]} x {sides[1]} before pooling; pool={self.pool} must divide both sides."
            )
        given = tuple(side // self.pool for side in sides)
        if given != post_shape[1:]:
            raise ValueError(
                f"{self.name} gives {given[0]} x {given[1]}, but {self.post} is {post_shape[1]} x {post_shape[2]}; "
                f"declare {self.post} as ({post_shape[0]}, {given[0]}, {given[1]})."
            )
        shape = (post_shape[0], pre_shape[0], self.kernel_size, self.kernel_size)
        fan_in = math.prod(shape[1:])
        up = lecun_(torch.empty(shape), fan_in)
        down = None
        if self.reciprocal and not self.tied:
            down = self._mix(lecun_(torch.empty(shape), fan_in), up)
            down.data *= self.gain
        return ConvolutionLink(up * self.gain, down, self.padding, self.pool, self.tied and self.reciprocal)

"""Links: the weights of connections, and the input that they bring from layer to layer."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from fklit.eqprop.network.autograd_derivative import AutogradDerivative
from fklit.eqprop.network.derivatives import ConvolutionDerivative, DenseDerivative, LinkDerivative
from fklit.eqprop.network.pool_kinds import PoolKind, make_pooling

Shape = tuple[int, ...]


class Link(nn.Module, ABC):
    """The weights of a connection and its two directions; `backward_weight` is None if tied or not reciprocal.

    Attributes:
        holomorphic: Whether both directions have a derivative for complex activities.
    """

    forward_weight: Tensor
    backward_weight: nn.Parameter | None
    reciprocal: bool
    holomorphic: bool = True

    @abstractmethod
    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """Input of the post layer from the activities of the pre layer."""

    @abstractmethod
    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """Input of the pre layer from the activities of both."""

    @abstractmethod
    def aligned_backward_weight(self) -> Tensor:
        """The backward weights, laid out as `forward_weight` (the same tensor if tied)."""

    def derivative(self, pre: Tensor, post: Tensor) -> LinkDerivative:
        """Derivatives of both directions at given activities; override it with hand-written ones for speed."""
        return AutogradDerivative(self.to_post, self.to_pre, pre, post)


class DenseLink(Link):
    """Forward `W s`, backward `B s`, with `W` of shape (post, pre) and `B` of shape (pre, post)."""

    def __init__(
        self, forward_weight: Tensor, backward_weight: nn.Parameter | None, post_shape: Shape, tied: bool
    ) -> None:
        super().__init__()
        self.forward_weight = nn.Parameter(forward_weight)
        self.backward_weight = backward_weight
        self.reciprocal = tied or backward_weight is not None
        self.post_shape = post_shape

    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """`W s`, shaped as the post layer."""
        out = F.linear(pre.flatten(1), self.forward_weight.to(pre.dtype))
        return out.view(len(pre), *self.post_shape)

    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """`B s` or, tied, `W^T s`."""
        weight = self.forward_weight.T if self.backward_weight is None else self.backward_weight
        return F.linear(post.flatten(1), weight.to(post.dtype)).view(pre.shape)

    def derivative(self, pre: Tensor, post: Tensor) -> DenseDerivative:
        """Derivatives of both directions."""
        return DenseDerivative(self.forward_weight, self.aligned_backward_weight(), pre.shape[1:], post.shape[1:])

    def aligned_backward_weight(self) -> Tensor:
        """`B^T`, shaped as `W`."""
        return self.forward_weight if self.backward_weight is None else self.backward_weight.T


class ConvolutionLink(Link):
    """Forward `pool(conv(s, W))`; backward the transpose of `pool(conv(., B))` at s, applied to the post activities.

    Args:
        forward_weight: Kernels W, `(post channels, pre channels, side, side)`.
        backward_weight: Kernels B, laid out as W; None if tied or not reciprocal.
        padding: Of the convolutions.
        pool: Side of the pooling window; 1 for none.
        tied: Whether B is W.
        stride: Of the convolutions.
        pooling: What a window is reduced to.
        cut: Rows and columns of the pre layer that no kernel reaches, as the stride leaves them over.
    """

    def __init__(
        self,
        forward_weight: Tensor,
        backward_weight: nn.Parameter | None,
        padding: int,
        pool: int,
        tied: bool,
        *,
        stride: int = 1,
        pooling: PoolKind = "softmax",
        cut: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.forward_weight = nn.Parameter(forward_weight)
        self.backward_weight = backward_weight
        self.reciprocal = tied or backward_weight is not None
        self.padding, self.pool, self.stride, self.cut = padding, pool, stride, cut
        self.pooling = make_pooling(pooling)
        self.holomorphic = pool == 1 or self.pooling.holomorphic

    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """`pool(conv(s, W))`."""
        z = F.conv2d(pre, self.forward_weight.to(pre.dtype), padding=self.padding, stride=self.stride)
        return z if self.pool == 1 else self.pooling.pool(z, self.pool, split=split)

    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """Gradient of `<pool(conv(pre, B)), post>` with respect to `pre` (no conjugation)."""
        weight = self.aligned_backward_weight().to(pre.dtype)
        cotangent = post
        if self.pool > 1:
            linear = self.pooling.linear  # then the values of the convolution are not needed
            z = post if linear else F.conv2d(pre, weight, padding=self.padding, stride=self.stride)
            cotangent = self.pooling.transpose(z, post, self.pool, split=split)
        return F.conv_transpose2d(cotangent, weight, padding=self.padding, stride=self.stride, output_padding=self.cut)

    def derivative(self, pre: Tensor, post: Tensor) -> ConvolutionDerivative:
        """Derivatives of both directions."""
        return ConvolutionDerivative(
            self.forward_weight,
            self.backward_weight,
            pre,
            post,
            padding=self.padding,
            pool=self.pool,
            stride=self.stride,
            pooling=self.pooling,
            cut=self.cut,
        )

    def aligned_backward_weight(self) -> Tensor:
        """`B`: its layout is that of `W` already."""
        return self.forward_weight if self.backward_weight is None else self.backward_weight

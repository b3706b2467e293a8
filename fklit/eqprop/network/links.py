"""Links: the weights of connections, and the input that they bring from layer to layer."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from fklit.eqprop.network.autograd_derivative import AutogradDerivative
from fklit.eqprop.network.derivatives import ConvolutionDerivative, DenseDerivative, LinkDerivative
from fklit.eqprop.network.pooling import softmax_pool, softmax_pool_transpose

Shape = tuple[int, ...]


class Link(nn.Module, ABC):
    """The weights of a connection and its two directions; `backward_weight` is None if tied or not reciprocal."""

    forward_weight: nn.Parameter
    backward_weight: nn.Parameter | None
    reciprocal: bool

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
    """Forward `pool(conv(s, W))`; backward the transpose of `pool(conv(., B))` at s, applied to the post activities."""

    def __init__(
        self, forward_weight: Tensor, backward_weight: nn.Parameter | None, padding: int, pool: int, tied: bool
    ) -> None:
        super().__init__()
        self.forward_weight = nn.Parameter(forward_weight)
        self.backward_weight = backward_weight
        self.reciprocal = tied or backward_weight is not None
        self.padding, self.pool = padding, pool

    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """`pool(conv(s, W))`."""
        z = F.conv2d(pre, self.forward_weight.to(pre.dtype), padding=self.padding)
        return z if self.pool == 1 else softmax_pool(z, self.pool, split=split)

    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """Gradient of `<pool(conv(pre, B)), post>` with respect to `pre` (no conjugation)."""
        weight = self.aligned_backward_weight().to(pre.dtype)
        cotangent = post
        if self.pool > 1:
            z = F.conv2d(pre, weight, padding=self.padding)
            cotangent = softmax_pool_transpose(z, post, self.pool, split=split)
        return F.conv_transpose2d(cotangent, weight, padding=self.padding)

    def derivative(self, pre: Tensor, post: Tensor) -> ConvolutionDerivative:
        """Derivatives of both directions."""
        return ConvolutionDerivative(
            self.forward_weight, self.backward_weight, pre, post, padding=self.padding, pool=self.pool
        )

    def aligned_backward_weight(self) -> Tensor:
        """`B`: its layout is that of `W` already."""
        return self.forward_weight if self.backward_weight is None else self.backward_weight

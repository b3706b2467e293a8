"""Derivatives of a link with respect to activities, and their transposes, at given activities.

A link carries `forward(s_pre)` to its post layer and, if reciprocal, `backward(s_pre, s_post)` to its pre layer. Each
product with a derivative is a jvp (directions to outputs) or a vjp (its transpose). The hand-written derivatives need
one pass where those by autograd need several, and serve many directions at once: a direction may have a multiple of the
activities' rows, copy after copy. They can be differentiated with respect to the weights; the activities are constants.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop.network.pool_kinds import PoolDerivative, Pooling, SoftmaxPooling


class LinkDerivative(ABC):
    """Products of directions with a link's derivatives.

    Attributes:
        symmetric_curvature: Whether `d backward / d s_pre` is symmetric, so that `curvature_jvp` is its own transpose.
    """

    symmetric_curvature: bool

    @abstractmethod
    def forward_jvp(self, v: Tensor) -> Tensor:
        """`(d forward / d s_pre) v`, from the pre layer to the post layer."""

    @abstractmethod
    def forward_vjp(self, u: Tensor) -> Tensor:
        """`(d forward / d s_pre)^T u`, from the post layer to the pre layer."""

    @abstractmethod
    def backward_jvp(self, v: Tensor, v_pre: Tensor | None = None) -> Tensor:
        """`(d backward / d s_post) v`, from the post layer to the pre layer; plus `curvature_jvp(v_pre)`, if given."""

    @abstractmethod
    def backward_vjp(self, u: Tensor) -> Tensor:
        """`(d backward / d s_post)^T u`, from the pre layer to the post layer."""

    @abstractmethod
    def curvature_jvp(self, v: Tensor) -> Tensor | None:
        """`(d backward / d s_pre) v`, from the pre layer to itself; None if it is always 0."""

    @abstractmethod
    def curvature_vjp(self, u: Tensor) -> Tensor | None:
        """`(d backward / d s_pre)^T u`, likewise."""


class DenseDerivative(LinkDerivative):
    """Of a dense link, which is linear: forward `W s_pre`, backward `B s_post`.

    Args:
        forward_weight: W, of shape (post, pre).
        aligned_backward_weight: `B^T`, of the same shape.
        pre_shape: Of one sample of the pre layer.
        post_shape: Of one sample of the post layer.
    """

    symmetric_curvature = True

    def __init__(
        self, forward_weight: Tensor, aligned_backward_weight: Tensor, pre_shape: torch.Size, post_shape: torch.Size
    ) -> None:
        self.forward_weight, self.aligned_backward_weight = forward_weight, aligned_backward_weight
        self.pre_shape, self.post_shape = pre_shape, post_shape

    def forward_jvp(self, v: Tensor) -> Tensor:
        """`W v`."""
        return F.linear(v.flatten(1), self.forward_weight.to(v.dtype)).view(-1, *self.post_shape)

    def forward_vjp(self, u: Tensor) -> Tensor:
        """`W^T u`."""
        return F.linear(u.flatten(1), self.forward_weight.T.to(u.dtype)).view(-1, *self.pre_shape)

    def backward_jvp(self, v: Tensor, v_pre: Tensor | None = None) -> Tensor:
        """`B v`."""
        return F.linear(v.flatten(1), self.aligned_backward_weight.T.to(v.dtype)).view(-1, *self.pre_shape)

    def backward_vjp(self, u: Tensor) -> Tensor:
        """`B^T u`."""
        return F.linear(u.flatten(1), self.aligned_backward_weight.to(u.dtype)).view(-1, *self.post_shape)

    def curvature_jvp(self, v: Tensor) -> None:
        """None: the backward input does not depend on the pre layer."""

    def curvature_vjp(self, u: Tensor) -> None:
        """None."""


class ConvolutionDerivative(LinkDerivative):
    """Of a convolution with pooling.

    With `z = conv(s_pre, B)`, `backward` is the gradient of `<pool(z), s_post>` with respect to `s_pre`; its derivative
    in `s_pre` is that function's second derivative, which is symmetric.

    Args:
        forward_weight: Kernels W.
        backward_weight: Kernels B, laid out as W; None if tied.
        pre: Activities of the pre layer.
        post: Activities of the post layer.
        padding: Of the convolutions.
        pool: Side of the pooling window; 1 for none.
        stride: Of the convolutions.
        pooling: What a window is reduced to; None for softmax pooling.
        cut: Rows and columns of the pre layer that no kernel reaches.
    """

    symmetric_curvature = True

    def __init__(
        self,
        forward_weight: Tensor,
        backward_weight: Tensor | None,
        pre: Tensor,
        post: Tensor,
        *,
        padding: int,
        pool: int,
        stride: int = 1,
        pooling: Pooling | None = None,
        cut: tuple[int, int] = (0, 0),
    ) -> None:
        self.pre, self.post, self.padding, self.pool, self.tied = pre, post, padding, pool, backward_weight is None
        self.stride, self.cut = stride, cut
        self.pooling: Pooling = SoftmaxPooling() if pooling is None else pooling
        self.forward_weight = forward_weight.to(pre.dtype)
        self.backward_weight = (forward_weight if backward_weight is None else backward_weight).to(pre.dtype)
        self._forward_pool = self._pool_at(self.forward_weight)
        self._backward_pool = self._forward_pool if self.tied else self._pool_at(self.backward_weight)

    def _pool_at(self, weight: Tensor) -> PoolDerivative | None:
        return self.pooling.derivative(self._convolve(self.pre, weight), self.pool) if self.pool > 1 else None

    def _convolve(self, image: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(image, weight, padding=self.padding, stride=self.stride)

    def _convolve_transposed(self, image: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(image, weight, padding=self.padding, stride=self.stride, output_padding=self.cut)

    def forward_jvp(self, v: Tensor) -> Tensor:
        """`pool' conv(v, W)`."""
        z, pool = self._convolve(v, self.forward_weight), self._forward_pool
        return z if pool is None else pool.jvp(z)

    def forward_vjp(self, u: Tensor) -> Tensor:
        """`(pool' conv(., W))^T u`."""
        pool = self._forward_pool
        return self._convolve_transposed(u if pool is None else pool.vjp(u), self.forward_weight)

    def backward_jvp(self, v: Tensor, v_pre: Tensor | None = None) -> Tensor:
        """`(pool' conv(., B))^T v`, plus `curvature_jvp(v_pre)`, in one transposed convolution."""
        pool = self._backward_pool
        if pool is None:
            return self._convolve_transposed(v, self.backward_weight)
        cotangent = pool.vjp(v)
        curved = None if v_pre is None else self._curved(pool, v_pre)
        if curved is not None:
            cotangent = cotangent + curved
        return self._convolve_transposed(cotangent, self.backward_weight)

    def backward_vjp(self, u: Tensor) -> Tensor:
        """`pool' conv(u, B)`."""
        z, pool = self._convolve(u, self.backward_weight), self._backward_pool
        return z if pool is None else pool.jvp(z)

    def curvature_jvp(self, v: Tensor) -> Tensor | None:
        """`conv(., B)^T pool''[conv(v, B), s_post]`; None without pooling, or with one of no curvature."""
        pool = self._backward_pool
        curved = None if pool is None else self._curved(pool, v)
        return None if curved is None else self._convolve_transposed(curved, self.backward_weight)

    def _curved(self, pool: PoolDerivative, v: Tensor) -> Tensor | None:
        if not isinstance(self.pooling, SoftmaxPooling):
            return None
        return pool.curvature_jvp(self._convolve(v, self.backward_weight), self.post)

    def curvature_vjp(self, u: Tensor) -> Tensor | None:
        """The same, as it is symmetric."""
        return self.curvature_jvp(u)

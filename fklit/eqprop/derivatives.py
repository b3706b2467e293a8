"""Derivatives of links with respect to activities, and their transposes, at given activities.

A link carries ``up(s_pre)`` to its upper population and, if reciprocal, ``down(s_pre, s_post)`` to its lower one. The
hand-written derivatives here need one pass where recorded ones need several, and serve many directions at once: a
direction may have a multiple of the activities' rows, copy after copy. They can be differentiated with respect to the
weights; the activities are constants.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop.pooling import SoftmaxPoolDerivative

if TYPE_CHECKING:
    from fklit.eqprop.connections import ConvolutionLink, DenseLink, Link


class LinkDerivative(ABC):
    """Products of directions with a link's derivatives.

    Attributes:
        symmetric: Whether ``down`` is symmetric in ``s_pre``, so that :meth:`bend` is its own transpose.
    """

    symmetric: bool

    @abstractmethod
    def up(self, v: Tensor) -> Tensor:
        """Derivative of ``up`` along v, a direction of the lower population."""

    @abstractmethod
    def up_transposed(self, u: Tensor) -> Tensor:
        """Its transpose, from the upper population to the lower one."""

    @abstractmethod
    def down(self, v: Tensor, below: Tensor | None = None) -> Tensor:
        """Derivative of ``down`` along v, a direction of the upper population, and ``below``, one of the lower one."""

    @abstractmethod
    def down_transposed(self, u: Tensor) -> Tensor:
        """Its transpose, from the lower population to the upper one."""

    @abstractmethod
    def bend(self, v: Tensor) -> Tensor | None:
        """Derivative of ``down`` along v, a direction of the lower population, only; None if it is always 0."""

    @abstractmethod
    def bend_transposed(self, u: Tensor) -> Tensor | None:
        """Its transpose."""


class DenseDerivative(LinkDerivative):
    """Of a dense link, which is linear."""

    symmetric = True

    def __init__(self, link: "DenseLink", pre: Tensor, post: Tensor) -> None:
        self.link, self.pre_shape, self.post_shape = link, pre.shape[1:], post.shape[1:]

    def up(self, v: Tensor) -> Tensor:
        """``W v``."""
        return F.linear(v.flatten(1), self.link.forward_weight.to(v.dtype)).view(-1, *self.post_shape)

    def up_transposed(self, u: Tensor) -> Tensor:
        """``W^T u``."""
        return F.linear(u.flatten(1), self.link.forward_weight.T.to(u.dtype)).view(-1, *self.pre_shape)

    def down(self, v: Tensor, below: Tensor | None = None) -> Tensor:
        """``B v``."""
        weight = self.link.aligned_backward_weight().T
        return F.linear(v.flatten(1), weight.to(v.dtype)).view(-1, *self.pre_shape)

    def down_transposed(self, u: Tensor) -> Tensor:
        """``B^T u``."""
        weight = self.link.aligned_backward_weight()
        return F.linear(u.flatten(1), weight.to(u.dtype)).view(-1, *self.post_shape)

    def bend(self, v: Tensor) -> None:
        """None: the way back does not see the lower population."""

    def bend_transposed(self, u: Tensor) -> None:
        """None."""


class ConvolutionDerivative(LinkDerivative):
    """Of a convolution with softmax pooling.

    With ``z = conv(s, B)``, the way back ``down`` is the gradient of ``<pool(z), s_post>``; its derivative in ``s`` is
    that function's second derivative, which is symmetric.
    """

    symmetric = True

    def __init__(self, link: "ConvolutionLink", pre: Tensor, post: Tensor) -> None:
        self.link, self.pre, self.post = link, pre, post
        self.forward_weight = link.forward_weight.to(pre.dtype)
        self.backward_weight = link.aligned_backward_weight().to(pre.dtype)

    def _pool_at(self, weight: Tensor) -> SoftmaxPoolDerivative | None:
        return SoftmaxPoolDerivative(self._convolve(self.pre, weight), self.link.pool) if self.link.pool > 1 else None

    @cached_property
    def _forward_pool(self) -> SoftmaxPoolDerivative | None:
        return self._pool_at(self.forward_weight)

    @cached_property
    def _backward_pool(self) -> SoftmaxPoolDerivative | None:
        return self._forward_pool if self.link.backward_weight is None else self._pool_at(self.backward_weight)

    def _convolve(self, image: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(image, weight, padding=self.link.padding)

    def _spread(self, image: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(image, weight, padding=self.link.padding)

    def up(self, v: Tensor) -> Tensor:
        """``pool' conv(v, W)``."""
        z, pool = self._convolve(v, self.forward_weight), self._forward_pool
        return z if pool is None else pool.along(z)

    def up_transposed(self, u: Tensor) -> Tensor:
        """Its transpose."""
        pool = self._forward_pool
        return self._spread(u if pool is None else pool.transposed(u), self.forward_weight)

    def down(self, v: Tensor, below: Tensor | None = None) -> Tensor:
        """``(pool' conv(., B))^T v``, plus :meth:`bend` of ``below``, in one transposed convolution."""
        pool = self._backward_pool
        if pool is None:
            return self._spread(v, self.backward_weight)
        cotangent = pool.transposed(v)
        if below is not None:
            cotangent = cotangent + pool.curvature(self._convolve(below, self.backward_weight), self.post)
        return self._spread(cotangent, self.backward_weight)

    def down_transposed(self, u: Tensor) -> Tensor:
        """``pool' conv(u, B)``."""
        z, pool = self._convolve(u, self.backward_weight), self._backward_pool
        return z if pool is None else pool.along(z)

    def bend(self, v: Tensor) -> Tensor | None:
        """``conv(., B)^T pool''[conv(v, B), s_post]``; None without pooling."""
        pool = self._backward_pool
        if pool is None:
            return None
        curved = pool.curvature(self._convolve(v, self.backward_weight), self.post)
        return self._spread(curved, self.backward_weight)

    def bend_transposed(self, u: Tensor) -> Tensor | None:
        """The same."""
        return self.bend(u)


class RecordedDerivative(LinkDerivative):
    """Of any link, by automatic differentiation: for links of the user's own."""

    symmetric = False

    def __init__(self, link: "Link", pre: Tensor, post: Tensor) -> None:
        self.link, self.differentiable = link, torch.is_grad_enabled()
        self.state = pre.detach(), post.detach()

    def _at(self, rows: int) -> tuple[Tensor, Tensor]:
        times = rows // len(self.state[0])
        pre, post = (torch.cat([part] * times).requires_grad_() for part in self.state)
        return pre, post

    def _transposed(self, u: Tensor, *, way_up: bool, along_pre: bool) -> Tensor:
        with torch.enable_grad():
            pre, post = self._at(len(u))
            out = self.link.to_post(pre) if way_up else self.link.to_pre(pre, post)
            source = pre if along_pre else post
            (product,) = torch.autograd.grad(
                out, source, u, create_graph=self.differentiable, allow_unused=True, materialize_grads=True
            )
        return product

    def _along(self, v: Tensor, *, way_up: bool, along_pre: bool) -> Tensor:
        # The transpose is linear in u, and its own transpose is the derivative: no forward mode is needed.
        with torch.enable_grad():
            pre, post = self._at(len(v))
            out = self.link.to_post(pre) if way_up else self.link.to_pre(pre, post)
            u = torch.zeros_like(out).requires_grad_()
            (product,) = torch.autograd.grad(
                out, pre if along_pre else post, u, create_graph=True, allow_unused=True, materialize_grads=True
            )
            (along,) = torch.autograd.grad(
                product, u, v, create_graph=self.differentiable, allow_unused=True, materialize_grads=True
            )
        return along

    def up(self, v: Tensor) -> Tensor:
        """See the base class."""
        return self._along(v, way_up=True, along_pre=True)

    def up_transposed(self, u: Tensor) -> Tensor:
        """See the base class."""
        return self._transposed(u, way_up=True, along_pre=True)

    def down(self, v: Tensor, below: Tensor | None = None) -> Tensor:
        """See the base class."""
        product = self._along(v, way_up=False, along_pre=False)
        return product if below is None else product + self.bend(below)

    def down_transposed(self, u: Tensor) -> Tensor:
        """See the base class."""
        return self._transposed(u, way_up=False, along_pre=False)

    def bend(self, v: Tensor) -> Tensor:
        """See the base class."""
        return self._along(v, way_up=False, along_pre=True)

    def bend_transposed(self, u: Tensor) -> Tensor:
        """See the base class."""
        return self._transposed(u, way_up=False, along_pre=True)

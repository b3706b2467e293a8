"""Derivatives of any link by automatic differentiation."""

from collections.abc import Callable

import torch
from torch import Tensor

from fklit.eqprop.network.derivatives import LinkDerivative


class AutogradDerivative(LinkDerivative):
    """Of any link, by automatic differentiation: for links of the user's own.

    Args:
        to_post: The link's forward map.
        to_pre: The link's backward map.
        pre: Activities of the pre layer.
        post: Activities of the post layer.
    """

    symmetric_curvature = False

    def __init__(
        self,
        to_post: Callable[[Tensor], Tensor],
        to_pre: Callable[[Tensor, Tensor], Tensor],
        pre: Tensor,
        post: Tensor,
    ) -> None:
        self.to_post, self.to_pre, self.differentiable = to_post, to_pre, torch.is_grad_enabled()
        self.state = pre.detach(), post.detach()

    def _output(self, rows: int, *, forward: bool, along_pre: bool) -> tuple[Tensor, Tensor]:
        """Output of one of the maps, and the activities that it is to be differentiated with respect to."""
        times = rows // len(self.state[0])
        pre, post = (torch.cat([part] * times).requires_grad_() for part in self.state)
        return self.to_post(pre) if forward else self.to_pre(pre, post), pre if along_pre else post

    def _vjp(self, u: Tensor, *, forward: bool, along_pre: bool) -> Tensor:
        with torch.enable_grad():
            out, source = self._output(len(u), forward=forward, along_pre=along_pre)
            (product,) = torch.autograd.grad(
                out, source, u, create_graph=self.differentiable, allow_unused=True, materialize_grads=True
            )
        return product

    def _jvp(self, v: Tensor, *, forward: bool, along_pre: bool) -> Tensor:
        # The vjp is linear in u, and its own vjp is the jvp: no forward mode is needed.
        with torch.enable_grad():
            out, source = self._output(len(v), forward=forward, along_pre=along_pre)
            u = torch.zeros_like(out).requires_grad_()
            (product,) = torch.autograd.grad(
                out, source, u, create_graph=True, allow_unused=True, materialize_grads=True
            )
            (along,) = torch.autograd.grad(
                product, u, v, create_graph=self.differentiable, allow_unused=True, materialize_grads=True
            )
        return along

    def forward_jvp(self, v: Tensor) -> Tensor:
        """See the base class."""
        return self._jvp(v, forward=True, along_pre=True)

    def forward_vjp(self, u: Tensor) -> Tensor:
        """See the base class."""
        return self._vjp(u, forward=True, along_pre=True)

    def backward_jvp(self, v: Tensor, v_pre: Tensor | None = None) -> Tensor:
        """See the base class."""
        product = self._jvp(v, forward=False, along_pre=False)
        return product if v_pre is None else product + self.curvature_jvp(v_pre)

    def backward_vjp(self, u: Tensor) -> Tensor:
        """See the base class."""
        return self._vjp(u, forward=False, along_pre=False)

    def curvature_jvp(self, v: Tensor) -> Tensor:
        """See the base class."""
        return self._jvp(v, forward=False, along_pre=True)

    def curvature_vjp(self, u: Tensor) -> Tensor:
        """See the base class."""
        return self._vjp(u, forward=False, along_pre=True)

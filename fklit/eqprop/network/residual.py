"""Residual connections: activities that are added to the input of a later layer as they are, without weights."""

import math

import torch
from torch import Tensor

from fklit.eqprop.network.connections import Connection
from fklit.eqprop.network.derivatives import LinkDerivative
from fklit.eqprop.network.links import Link, Shape


class Residual(Connection):
    """The identity from layer `pre` to layer `post` of the same shape, and back again if reciprocal; no weights.

    Reciprocal, it adds the bilinear term `scale <s_pre, s_post>` to the energy (Hopfield-ResNet, arXiv 2509.26003), and
    is symmetric by itself. Where shapes differ, `Convolution` with `kernel_size=1, padding=0, pool=1` and a `stride` is
    the usual projection.

    Args:
        pre: As in `Connection`.
        post: As in `Connection`; of the same shape.
        scale: Factor on the activities.
        reciprocal: As in `Connection`.

    Raises:
        ValueError: As in `Connection`, or if the scale is 0 or not finite.
    """

    def __init__(self, pre: str, post: str, *, scale: float = 1.0, reciprocal: bool = True) -> None:
        super().__init__(pre, post, reciprocal=reciprocal, tied=True)
        if scale == 0 or not math.isfinite(scale):
            raise ValueError(
                f"expected a finite scale other than 0 for {self.name}, got scale={scale}; leave the connection "
                "out for none."
            )
        self.scale = scale

    def build(self, pre_shape: Shape, post_shape: Shape) -> Link:
        """Make the link.

        Raises:
            ValueError: If the shapes differ.
        """
        if tuple(pre_shape) != tuple(post_shape):
            raise ValueError(
                f"expected two layers of one shape for the residual connection {self.name}, got {tuple(pre_shape)} and "
                f"{tuple(post_shape)}; project by a Convolution of kernel_size=1, padding=0, pool=1 with a stride."
            )
        return ResidualLink(self.scale, self.reciprocal)


class ResidualLink(Link):
    """Forward and backward: the activities of the other end, times a scale that is not trained."""

    def __init__(self, scale: float, reciprocal: bool) -> None:
        super().__init__()
        # as a number, too: a buffer follows the network's precision, and 0.1 in single precision is another number
        self.scale = scale
        self.register_buffer("forward_weight", torch.tensor(scale, dtype=torch.float64), persistent=False)
        self.backward_weight, self.reciprocal = None, reciprocal

    def to_post(self, pre: Tensor, *, split: bool = False) -> Tensor:
        """`scale s_pre`."""
        return pre * self.scale

    def to_pre(self, pre: Tensor, post: Tensor, *, split: bool = False) -> Tensor:
        """`scale s_post`."""
        return self.to_post(post)

    def derivative(self, pre: Tensor, post: Tensor) -> "ResidualDerivative":
        """Derivatives of both directions."""
        return ResidualDerivative(self)

    def aligned_backward_weight(self) -> Tensor:
        """The scale."""
        return self.forward_weight


class ResidualDerivative(LinkDerivative):
    """Of a residual link: all four products are the scale times the direction.

    Args:
        link: The link.
    """

    symmetric_curvature = True

    def __init__(self, link: ResidualLink) -> None:
        self.link = link

    def forward_jvp(self, v: Tensor) -> Tensor:
        """`scale v`."""
        return self.link.to_post(v)

    def forward_vjp(self, u: Tensor) -> Tensor:
        """`scale u`."""
        return self.link.to_post(u)

    def backward_jvp(self, v: Tensor, v_pre: Tensor | None = None) -> Tensor:
        """`scale v`."""
        return self.link.to_post(v)

    def backward_vjp(self, u: Tensor) -> Tensor:
        """`scale u`."""
        return self.link.to_post(u)

    def curvature_jvp(self, v: Tensor) -> None:
        """None: the backward input does not depend on the pre layer."""

    def curvature_vjp(self, u: Tensor) -> None:
        """None."""

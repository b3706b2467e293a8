"""Kinds of pooling by name, each with its transpose and derivatives: softmax, max, average."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Protocol, get_args

import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop.network.pooling import SoftmaxPoolDerivative, softmax_pool, softmax_pool_transpose

PoolKind = Literal["softmax", "max", "average"]


class PoolDerivative(Protocol):
    """Derivatives of a pooling at some values, for directions of a multiple of their rows."""

    def jvp(self, v: Tensor) -> Tensor:
        """Derivative of the pooled values along v."""
        ...

    def vjp(self, u: Tensor) -> Tensor:
        """Its transpose."""
        ...

    def curvature_jvp(self, v: Tensor, cotangent: Tensor) -> Tensor | None:
        """Derivative of `vjp(cotangent)` with respect to the values, along v: a symmetric map of v; None if it is 0."""
        ...


class Pooling(ABC):
    """Windows of `size x size` with that stride, to one value each.

    Attributes:
        holomorphic: Whether it has a derivative for complex values.
        linear: Whether transpose and derivative do not depend on the values.
    """

    holomorphic: ClassVar[bool] = True
    linear: ClassVar[bool] = False

    @abstractmethod
    def pool(self, z: Tensor, size: int, *, split: bool = False) -> Tensor:
        """Pooled values `(n, c, h/size, w/size)` of `(n, c, h, w)` (real, complex or split)."""

    @abstractmethod
    def transpose(self, z: Tensor, cotangent: Tensor, size: int, *, split: bool = False) -> Tensor:
        """Transpose of the derivative at z, applied to a cotangent; shaped as z. Nothing is conjugated."""

    @abstractmethod
    def derivative(self, z: Tensor, size: int) -> PoolDerivative:
        """Derivatives at real z."""


class SoftmaxPooling(Pooling):
    """`sum(softmax(z) z)` of each window, see `fklit.eqprop.network.pooling`."""

    def pool(self, z: Tensor, size: int, *, split: bool = False) -> Tensor:
        """See the base class."""
        return softmax_pool(z, size, split=split)

    def transpose(self, z: Tensor, cotangent: Tensor, size: int, *, split: bool = False) -> Tensor:
        """See the base class."""
        return softmax_pool_transpose(z, cotangent, size, split=split)

    def derivative(self, z: Tensor, size: int) -> SoftmaxPoolDerivative:
        """See the base class."""
        return SoftmaxPoolDerivative(z, size)


class _MaxDerivative:
    """The winner of each window takes all; which one it is does not change with an infinitesimal step."""

    def __init__(self, z: Tensor, size: int) -> None:
        self.size, self.shape = size, z.shape
        _, self.winners = F.max_pool2d(z.detach(), size, return_indices=True)

    def _winners(self, rows: int) -> Tensor:
        times = rows // len(self.winners) if rows else 1
        return self.winners if times == 1 else self.winners.repeat(times, 1, 1, 1)

    def jvp(self, v: Tensor) -> Tensor:
        winners = self._winners(len(v))
        return v.flatten(2).gather(2, winners.flatten(2)).view(winners.shape)

    def vjp(self, u: Tensor) -> Tensor:
        zeros = u.new_zeros(*u.shape[:2], self.shape[2] * self.shape[3])
        filled = zeros.scatter(2, self._winners(len(u)).flatten(2), u.flatten(2))
        return filled.view(*u.shape[:2], *self.shape[2:])

    def curvature_jvp(self, v: Tensor, cotangent: Tensor) -> None:
        return None


class MaxPooling(Pooling):
    """The largest of each window; among equal ones the first. Real values only."""

    holomorphic = False

    @staticmethod
    def _real(z: Tensor, split: bool) -> None:
        if split or z.is_complex():
            raise ValueError(
                "expected real activities for max pooling, which has no complex derivative, got complex ones; use "
                "pooling='softmax', or an estimator with real nudges."
            )

    def pool(self, z: Tensor, size: int, *, split: bool = False) -> Tensor:
        """See the base class."""
        self._real(z, split)
        return F.max_pool2d(z, size)

    def transpose(self, z: Tensor, cotangent: Tensor, size: int, *, split: bool = False) -> Tensor:
        """See the base class."""
        self._real(z, split)
        return _MaxDerivative(z, size).vjp(cotangent)

    def derivative(self, z: Tensor, size: int) -> _MaxDerivative:
        """See the base class."""
        return _MaxDerivative(z, size)


class _AverageDerivative:
    def __init__(self, size: int) -> None:
        self.size = size

    def jvp(self, v: Tensor) -> Tensor:
        n, c, h, w = v.shape
        return v.reshape(n, c, h // self.size, self.size, w // self.size, self.size).mean((3, 5))

    def vjp(self, u: Tensor) -> Tensor:
        spread = u.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        return spread / self.size**2

    def curvature_jvp(self, v: Tensor, cotangent: Tensor) -> None:
        return None


class AveragePooling(Pooling):
    """The mean of each window; linear, so that one formula holds for real, complex and split values."""

    linear = True

    def pool(self, z: Tensor, size: int, *, split: bool = False) -> Tensor:
        """See the base class."""
        return _AverageDerivative(size).jvp(z)

    def transpose(self, z: Tensor, cotangent: Tensor, size: int, *, split: bool = False) -> Tensor:
        """See the base class."""
        return _AverageDerivative(size).vjp(cotangent)

    def derivative(self, z: Tensor, size: int) -> _AverageDerivative:
        """See the base class."""
        return _AverageDerivative(size)


def make_pooling(kind: PoolKind) -> Pooling:
    """The pooling of a name.

    Raises:
        ValueError: If there is none.
    """
    if kind not in get_args(PoolKind):
        raise ValueError(f"expected pooling 'softmax', 'max' or 'average', got pooling={kind!r}.")
    if kind == "max":
        return MaxPooling()
    return AveragePooling() if kind == "average" else SoftmaxPooling()

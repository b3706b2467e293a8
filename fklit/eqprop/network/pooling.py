"""Softmax pooling and its transpose, hand-written for real, complex and split tensors.

In a window, `p = softmax(z)` and the output is `sum(p z)`: a smooth stand-in for the maximum, and holomorphic.
The transpose at z maps a cotangent c of the output to `c p_i (1 + z_i - out)`. Adding a constant to z adds it to the
output, so a bias may be added after pooling.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fklit.eqprop.network.state import halves

# The windows are kept as size^2 tensors of their first, second, ... members, copied out of the image once: all further
# arithmetic then runs over dense memory, which is several times faster than along a short last axis, and the memory
# format (channels first or last) stays as it is.


def _members(z: Tensor, size: int) -> list[Tensor]:
    """The first, second, ... member of every window, `(n, c, h/size, w/size)` each."""
    return [z[:, :, i::size, j::size].clone() for i in range(size) for j in range(size)]


def _assemble(members: Sequence[Tensor], size: int) -> Tensor:
    """The inverse of `_members`."""
    first = members[0]
    n, c, h, w = first.shape
    last = first.is_contiguous(memory_format=torch.channels_last) and not first.is_contiguous()
    out = torch.empty(
        (n, c, h * size, w * size),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    for k, member in enumerate(members):
        i, j = divmod(k, size)
        out[:, :, i::size, j::size] = member
    return out


def _sum_of_products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    total = left[0] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        total = torch.addcmul(total, a, b)
    return total


def _sum(members: Sequence[Tensor]) -> Tensor:
    total = members[0] + members[1]
    for member in members[2:]:
        total = total + member
    return total


def _largest(members: Sequence[Tensor]) -> Tensor:
    """Largest real value, as a constant: the softmax does not depend on what is subtracted."""
    largest = members[0].detach()
    for member in members[1:]:
        largest = torch.maximum(largest, member.detach())
    return largest


def _exponentials(members: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
    """`exp(z)` of the members, its sum, and the pooled value, for real or complex members."""
    largest = _largest([member.real for member in members] if members[0].is_complex() else members)
    exponentials = [torch.exp(member - largest) for member in members]
    total = _sum(exponentials)
    return exponentials, total, _sum_of_products(exponentials, members) / total


def _exponentials_split(
    real: Sequence[Tensor], imaginary: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    """Real and imaginary parts of `exp(z)` of the members, of 1 over its sum, and of the pooled value."""
    largest = _largest(real)
    sizes = [torch.exp(member - largest) for member in real]
    p = [size * torch.cos(angle) for size, angle in zip(sizes, imaginary, strict=True)]
    q = [size * torch.sin(angle) for size, angle in zip(sizes, imaginary, strict=True)]
    sum_p, sum_q = _sum(p), _sum(q)
    square = sum_p * sum_p + sum_q * sum_q
    c, d = sum_p / square, -sum_q / square
    top_p = _sum_of_products(p, real) - _sum_of_products(q, imaginary)
    top_q = _sum_of_products(p, imaginary) + _sum_of_products(q, real)
    return p, q, c, d, top_p * c - top_q * d, top_p * d + top_q * c


def softmax_pool(z: Tensor, size: int, *, split: bool = False) -> Tensor:
    """Pool windows of `size x size` with that stride: `(n, c, h, w)` to `(n, c, h/size, w/size)`.

    Args:
        z: Real or complex values, or with `split` the two halves of complex values along the first axis.
        size: Side of the window, at least 2; must divide h and w.
        split: Whether z holds such halves.
    """
    if not split:
        return _exponentials(_members(z, size))[2]
    real, imaginary = (_members(half, size) for half in halves(z))
    return torch.cat(_exponentials_split(real, imaginary)[4:])


def softmax_pool_transpose(z: Tensor, cotangent: Tensor, size: int, *, split: bool = False) -> Tensor:
    """Transpose of the derivative of `softmax_pool` at z, applied to `cotangent`; shaped as z.

    For complex values it is the transpose, not the adjoint: nothing is conjugated.
    """
    if not split:
        members = _members(z, size)
        exponentials, total, out = _exponentials(members)
        scaled, shift = cotangent / total, 1 - out
        return _assemble([scaled * e * (shift + member) for e, member in zip(exponentials, members, strict=True)], size)
    real, imaginary = (_members(half, size) for half in halves(z))
    p, q, c, d, out_real, out_imaginary = _exponentials_split(real, imaginary)
    a, b = halves(cotangent)
    a, b = a * c - b * d, a * d + b * c  # cotangent / sum
    shift = 1 - out_real
    real_part, imaginary_part = [], []
    for x, y, e, f in zip(real, imaginary, p, q, strict=True):
        g, h = e * a - f * b, e * b + f * a
        x, y = shift + x, y - out_imaginary
        real_part.append(g * x - h * y)
        imaginary_part.append(g * y + h * x)
    return torch.cat([_assemble(real_part, size), _assemble(imaginary_part, size)])


def _times(factor: Tensor, direction: Tensor) -> Tensor:
    """Product of a factor with each copy of the batch in a direction of a multiple of its rows."""
    if len(direction) == len(factor):
        return factor * direction
    return (factor * direction.view(-1, *factor.shape)).flatten(0, 1)


class SoftmaxPoolDerivative:
    """First and second derivative of `softmax_pool` at z, for directions of a multiple of its rows.

    Args:
        z: Real values.
        size: Side of the window.
    """

    def __init__(self, z: Tensor, size: int) -> None:
        members = _members(z, size)
        exponentials, total, out = _exponentials(members)
        self.size = size
        self._weights = [e / total for e in exponentials]
        self._shifts = [1 + member - out for member in members]
        self._slopes = [p * shift for p, shift in zip(self._weights, self._shifts, strict=True)]

    def jvp(self, v: Tensor) -> Tensor:
        """Derivative of the pooled values along v, shaped as z."""
        return self._sum(self._slopes, _members(v, self.size))

    def vjp(self, u: Tensor) -> Tensor:
        """Its transpose: from u, shaped as the pooled values, to the shape of z."""
        return _assemble([_times(slope, u) for slope in self._slopes], self.size)

    def curvature_jvp(self, v: Tensor, cotangent: Tensor) -> Tensor:
        """Derivative of `vjp(cotangent)` with respect to z, along v: a symmetric map of v.

        Args:
            v: Shaped as z.
            cotangent: Shaped as the pooled values, one for each row of z.
        """
        members = _members(v, self.size)
        mean, along = self._sum(self._weights, members), self._sum(self._slopes, members)
        parts = [
            _times(cotangent * p, _times(shift, member - mean) + member - along)
            for p, shift, member in zip(self._weights, self._shifts, members, strict=True)
        ]
        return _assemble(parts, self.size)

    def _sum(self, factors: Sequence[Tensor], members: Sequence[Tensor]) -> Tensor:
        return _sum([_times(factor, member) for factor, member in zip(factors, members, strict=True)])

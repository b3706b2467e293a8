"""Softmax pooling and its transpose, hand-written for real, complex and split tensors.

In a window, `p = softmax(z)` and the output is `sum(p z)`: a smooth stand-in for the maximum, and holomorphic.
The transpose at z maps a cotangent c of the output to `c p_i (1 + z_i - out)`. Adding a constant to z adds it to the
output, so a bias may be added after pooling.
"""

import torch
from torch import Tensor

from fklit.eqprop.network.state import halves

# The members of all windows are copied out of the image once, as one tensor of their first, second, ... members: all
# further arithmetic then runs over dense memory, which is several times faster than along a short last axis, and needs
# one kernel for all members. It keeps to the order of the image's memory, channels first or last, which is the order
# that everything below has, up to `_as_image`.


def _channels_last(z: Tensor) -> bool:
    return z.is_contiguous(memory_format=torch.channels_last) and not z.is_contiguous()


def _in_memory(z: Tensor, last: bool) -> Tensor:
    """A view whose axes are in the order of the memory: `(n, h, w, c)` if channels are last."""
    return z.permute(0, 2, 3, 1) if last else z


def _as_image(z: Tensor, last: bool) -> Tensor:
    """The inverse of `_in_memory`."""
    return z.permute(0, 3, 1, 2) if last else z


def _members(z: Tensor, size: int, last: bool) -> Tensor:
    """The first, second, ... member of every window: `(size^2, n, c, h/size, w/size)`, or `(..., c)` at the end."""
    dense = _in_memory(z, last)
    n, *sides = dense.shape
    if last:
        h, w, c = sides
        windows = dense.view(n, h // size, size, w // size, size, c).permute(2, 4, 0, 1, 3, 5)
    else:
        c, h, w = sides
        windows = dense.view(n, c, h // size, size, w // size, size).permute(3, 5, 0, 1, 2, 4)
    return windows.contiguous().flatten(0, 1)


def _assemble(members: Tensor, size: int, last: bool) -> Tensor:
    """The inverse of `_members`."""
    windows = members.view(size, size, *members.shape[1:])
    if last:
        _, n, h, w, c = members.shape
        return _as_image(windows.permute(2, 3, 0, 4, 1, 5).reshape(n, h * size, w * size, c), last)
    _, n, c, h, w = members.shape
    return windows.permute(2, 3, 4, 0, 5, 1).reshape(n, c, h * size, w * size)


def _softmax(members: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax p of the members and the pooled value, for real or complex members."""
    if members.is_complex():
        # the softmax does not depend on what is subtracted, so that the largest real value is a constant
        exponentials = torch.exp(members - members.real.detach().amax(0))
        p = exponentials / exponentials.sum(0)
    else:
        p = torch.softmax(members, 0)
    return p, (p * members).sum(0)


def _split_softmax(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real and imaginary parts of the softmax p of complex members and of the pooled value."""
    sizes = torch.exp(real - real.detach().amax(0))
    a, b = sizes * torch.cos(imaginary), sizes * torch.sin(imaginary)
    total_a, total_b = a.sum(0), b.sum(0)
    square = total_a * total_a + total_b * total_b
    c, d = total_a / square, -total_b / square  # 1 over the sum
    p, q = a * c - b * d, a * d + b * c
    return p, q, (p * real - q * imaginary).sum(0), (p * imaginary + q * real).sum(0)


def softmax_pool(z: Tensor, size: int, *, split: bool = False) -> Tensor:
    """Pool windows of `size x size` with that stride: `(n, c, h, w)` to `(n, c, h/size, w/size)`.

    Args:
        z: Real or complex values, or with `split` the two halves of complex values along the first axis.
        size: Side of the window, at least 2; must divide h and w.
        split: Whether z holds such halves.
    """
    last = _channels_last(z)
    if not split:
        return _as_image(_softmax(_members(z, size, last))[1], last)
    real, imaginary = (_members(half, size, last) for half in halves(z))
    return torch.cat([_as_image(part, last) for part in _split_softmax(real, imaginary)[2:]])


def softmax_pool_transpose(z: Tensor, cotangent: Tensor, size: int, *, split: bool = False) -> Tensor:
    """Transpose of the derivative of `softmax_pool` at z, applied to `cotangent`; shaped as z.

    For complex values it is the transpose, not the adjoint: nothing is conjugated.
    """
    last = _channels_last(z)
    if not split:
        members = _members(z, size, last)
        p, out = _softmax(members)
        scaled = _in_memory(cotangent, last) * p
        return _assemble(torch.addcmul(scaled, scaled, members - out), size, last)
    real, imaginary = (_members(half, size, last) for half in halves(z))
    p, q, out_real, out_imaginary = _split_softmax(real, imaginary)
    a, b = (_in_memory(half, last) for half in halves(cotangent))
    a, b = p * a - q * b, q * a + p * b  # p times the cotangent
    x, y = 1 + (real - out_real), imaginary - out_imaginary
    return torch.cat([_assemble(part, size, last) for part in (a * x - b * y, a * y + b * x)])


def _times(factor: Tensor, direction: Tensor) -> Tensor:
    """Product of factors `(..., n, *shape)` with each copy of the batch in a direction `(..., copies * n, *shape)`.

    The last four axes are those of images; either may have one more in front of them.
    """
    rows = factor.shape[-4]
    if direction.shape[-4] == rows:
        return factor * direction
    copies = direction.view(*direction.shape[:-4], -1, rows, *direction.shape[-3:])
    return (factor.unsqueeze(-5) * copies).flatten(-5, -4)


class SoftmaxPoolDerivative:
    """First and second derivative of `softmax_pool` at z, for directions of a multiple of its rows.

    Args:
        z: Real values.
        size: Side of the window.
    """

    def __init__(self, z: Tensor, size: int) -> None:
        self.size, self._last = size, _channels_last(z)
        members = _members(z, size, self._last)
        self._weights, out = _softmax(members)
        self._shifts = 1 + (members - out)
        self._slopes = self._weights * self._shifts

    def jvp(self, v: Tensor) -> Tensor:
        """Derivative of the pooled values along v, shaped as z."""
        return _as_image(_times(self._slopes, _members(v, self.size, self._last)).sum(0), self._last)

    def vjp(self, u: Tensor) -> Tensor:
        """Its transpose: from u, shaped as the pooled values, to the shape of z."""
        return _assemble(_times(self._slopes, _in_memory(u, self._last)), self.size, self._last)

    def curvature_jvp(self, v: Tensor, cotangent: Tensor) -> Tensor:
        """Derivative of `vjp(cotangent)` with respect to z, along v: a symmetric map of v.

        Args:
            v: Shaped as z.
            cotangent: Shaped as the pooled values, one for each row of z.
        """
        members = _members(v, self.size, self._last)
        mean, along = _times(self._weights, members).sum(0), _times(self._slopes, members).sum(0)
        inner = _times(self._shifts, members - mean) + (members - along)
        return _assemble(_times(_in_memory(cotangent, self._last) * self._weights, inner), self.size, self._last)

"""Softmax pooling and its transpose, hand-written for real, complex and split tensors.

In a window, ``p = softmax(z)`` and the output is ``sum(p z)``: a smooth stand-in for the maximum, and holomorphic.
The transpose at z maps a cotangent c of the output to ``c p_i (1 + z_i - out)``. Adding a constant to z adds it to the
output, so a bias may be added after pooling.
"""

import torch
from torch import Tensor

from fklit.eqprop.softmax import softmax, split_softmax
from fklit.eqprop.state import halves


def _windows(z: Tensor, size: int) -> Tensor:
    """``(n, c, h, w)`` to ``(n, c, h/size, w/size, size^2)``."""
    n, c, h, w = z.shape
    return z.reshape(n, c, h // size, size, w // size, size).permute(0, 1, 2, 4, 3, 5).flatten(-2)


def _unwindows(windows: Tensor, size: int) -> Tensor:
    """The inverse of :func:`_windows`."""
    n, c, h, w, _ = windows.shape
    tiles = windows.reshape(n, c, h, w, size, size).permute(0, 1, 2, 4, 3, 5)
    return tiles.reshape(n, c, h * size, w * size)


def softmax_pool(z: Tensor, size: int, *, split: bool = False) -> Tensor:
    """Pool windows of ``size x size`` with that stride: ``(n, c, h, w)`` to ``(n, c, h/size, w/size)``.

    Args:
        z: Real or complex values, or with ``split`` the two halves of complex values along the first axis.
        size: Side of the window; must divide h and w.
        split: How z is to be read.
    """
    if not split:
        windows = _windows(z, size)
        return (softmax(windows) * windows).sum(-1)
    real, imaginary = halves(_windows(z, size))
    p, q = split_softmax(real, imaginary)
    return torch.cat([(p * real - q * imaginary).sum(-1), (p * imaginary + q * real).sum(-1)])


def softmax_pool_transpose(z: Tensor, cotangent: Tensor, size: int, *, split: bool = False) -> Tensor:
    """Transpose of the derivative of :func:`softmax_pool` at z, applied to ``cotangent``; shaped as z.

    For complex values it is the transpose, not the adjoint: nothing is conjugated.
    """
    if not split:
        windows = _windows(z, size)
        p = softmax(windows)
        out = (p * windows).sum(-1, keepdim=True)
        return _unwindows(cotangent[..., None] * p * (1 + windows - out), size)
    real, imaginary = halves(_windows(z, size))
    p, q = split_softmax(real, imaginary)
    a = 1 + real - (p * real - q * imaginary).sum(-1, keepdim=True)
    b = imaginary - (p * imaginary + q * real).sum(-1, keepdim=True)
    a, b = p * a - q * b, p * b + q * a
    c, d = halves(cotangent[..., None])
    return torch.cat([_unwindows(c * a - d * b, size), _unwindows(c * b + d * a, size)])

"""Activation functions, in real, complex and split arithmetic, and the test that tells which are holomorphic."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Activation(ABC):
    """A function of each neuron's input, the same formula for real and for complex numbers.

    Subclass it and write `__call__`. Complex phases need it holomorphic near the real axis (`is_holomorphic`),
    and real for real input. `split` may be overridden with real arithmetic, for speed.
    """

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """Apply the function to a real or complex tensor of any shape."""

    def split(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the function to `real + i imaginary`; returns real and imaginary part."""
        out = self(torch.complex(real, imaginary))
        return out.real, out.imag

    def slope(self, z: Tensor) -> Tensor:
        """Derivative at real `z`, same shape."""
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self(point).sum(), point)
        return slope

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def split_tanh(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Hyperbolic tangent of `real + i imaginary` in real arithmetic, without overflow for large `real`."""
    # tanh(a + ib) = (t + i s c (1 - t^2)) / (c^2 + t^2 s^2) with t = tanh a, c = cos b, s = sin b
    t, c, s = torch.tanh(real), torch.cos(imaginary), torch.sin(imaginary)
    inverse = 1 / (c * c + t * t * (s * s))
    return t * inverse, s * c * (1 - t * t) * inverse


def split_sigmoid(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic function of `real + i imaginary` in real arithmetic, without overflow for large `real`."""
    # sig(a + ib) = s / (s + t exp(-ib)) with s = sig(a), t = sig(-a); the exponential is the one costly function left
    s, t = torch.sigmoid(real), torch.sigmoid(-real)
    x, y = s + t * torch.cos(imaginary), t * torch.sin(imaginary)
    scale = s / (x * x + y * y)
    return x * scale, y * scale


class ShiftedSigmoid(Activation):
    """`1 / (1 + exp(-4 z + 2))`: one half at one half, slope at most 1 (the MLPs). Poles at `(2 ± iπ) / 4`."""

    def __call__(self, z: Tensor) -> Tensor:
        """Apply it."""
        if z.is_complex():  # torch's complex sigmoid overflows
            return (1 + torch.tanh(2 * z - 1)) / 2
        return torch.sigmoid(4 * z - 2)  # a third of the time of the tangent

    def split(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply it in real arithmetic."""
        return split_sigmoid(4 * real - 2, 4 * imaginary)


class DoubleSiLU(Activation):
    """`(z/2) sig(z) + (1 - z/2) sig(z - 2)`: a smooth clip of z/2 to [0, 1]; the paper's conv nets.

    Poles at `±iπ` and `2 ± iπ`.
    """

    def __call__(self, z: Tensor) -> Tensor:
        """Apply it."""
        return torch.lerp(torch.sigmoid(z - 2), torch.sigmoid(z), z / 2)  # b + (a - b) z / 2, in one kernel

    def split(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply it in real arithmetic."""
        ra, ia = split_sigmoid(real, imaginary)
        rb, ib = split_sigmoid(real - 2, imaginary)
        x, y = real / 2, imaginary / 2
        # x a + (1 - x) b = b + x (a - b)
        rd, id_ = ra - rb, ia - ib
        return rb + x * rd - y * id_, ib + x * id_ + y * rd


class Tanh(Activation):
    """Hyperbolic tangent. Poles at `±iπ/2`."""

    def __call__(self, z: Tensor) -> Tensor:
        """Apply it."""
        return torch.tanh(z)

    def split(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply it in real arithmetic."""
        return split_tanh(real, imaginary)


class Identity(Activation):
    """No nonlinearity."""

    def __call__(self, z: Tensor) -> Tensor:
        """Return the input."""
        return z

    def split(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input."""
        return real, imaginary


class HardSigmoid(Activation):
    """`z/2` clipped to [0, 1], as in earlier convolutional EP; not holomorphic, so for real nudges only."""

    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to a real tensor."""
        return (z / 2).clamp(0, 1)


class ClippedReLU(Activation):
    """`z` clipped to [0, ceiling] (Hopfield-ResNet, arXiv 2509.26003; 1 in earlier deep EP); real nudges only.

    Args:
        ceiling: Largest activity, above 0.

    Raises:
        ValueError: If the ceiling is not above 0.
    """

    def __init__(self, ceiling: float = 1.0) -> None:
        if not ceiling > 0:
            raise ValueError(f"expected ceiling above 0, got ceiling={ceiling}.")
        self.ceiling = ceiling

    def __call__(self, z: Tensor) -> Tensor:
        """Apply it to a real tensor."""
        return z.clamp(0, self.ceiling)

    def __repr__(self) -> str:
        return f"ClippedReLU(ceiling={self.ceiling})"


def is_holomorphic(activation: Activation, *, radius: float = 0.1, tolerance: float = 1e-6) -> bool:
    """Whether a function is complex-differentiable around the real axis: the Cauchy-Riemann test.

    `df/d(conj z) = 0` on a disc exactly when the Fourier series of f on its rim has no negative frequency. That is
    checked in complex128 on 32 points of circles around -20 to 20, which overlap, so that a kink cannot hide between
    them. The function must also agree with itself on the real axis.

    Args:
        activation: The function.
        radius: Of the circles; less than the distance of the nearest pole from the real axis.
        tolerance: Largest negative coefficient allowed, relative to the largest value on the circle.
    """
    centers = torch.linspace(-20, 20, int(40 / radius) + 1, dtype=torch.float64)
    angles = torch.arange(32, dtype=torch.float64) * (2 * torch.pi / 32)
    rims = centers[:, None] + radius * torch.polar(torch.ones_like(angles), angles)
    try:
        values, on_axis = activation(rims), activation(centers.to(torch.complex128))
    except (RuntimeError, TypeError, NotImplementedError):
        return False  # torch has no complex form of it
    if not values.is_complex() or not bool(torch.isfinite(values).all()):
        return False
    scale = values.abs().amax(1).clamp_min(tolerance)
    negative = torch.fft.fft(values, norm="forward")[:, 24:].abs().amax(1)  # frequencies -8 to -1
    off_axis = (on_axis - activation(centers)).abs()
    return bool((torch.maximum(negative, off_axis) <= tolerance * scale).all())

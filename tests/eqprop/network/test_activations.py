"""Activations: split arithmetic equals complex arithmetic, and only holomorphic ones pass the Cauchy-Riemann test."""

import pytest
import torch

from fklit.eqprop.network.activations import (
    Activation,
    DoubleSiLU,
    HardSigmoid,
    Identity,
    ShiftedSigmoid,
    Tanh,
    is_holomorphic,
)
from fklit.eqprop.network.pooling import softmax_pool, softmax_pool_transpose
from fklit.eqprop.network.softmax import softmax, split_softmax
from fklit.eqprop.network.state import join_complex, split_complex

SMOOTH = [ShiftedSigmoid(), DoubleSiLU(), Tanh(), Identity()]


class Conjugate(Activation):
    def __call__(self, z):
        return z.conj() if z.is_complex() else z + 0


class Rectifier(Activation):
    """Holomorphic on either side of a line, but not across."""

    def __call__(self, z):
        return z * ((z.real if z.is_complex() else z) > 0)


class Modulus(Activation):
    def __call__(self, z):
        return (z * z.abs()) + 0


class Cubic(Activation):
    """A user's own, without split arithmetic."""

    def __call__(self, z):
        return z - z**3 / 30


class FarKink(Activation):
    """Smooth where most neurons are."""

    def __call__(self, z):
        return z.clamp(max=6) if not z.is_complex() else torch.where(z.real > 6, 6.0, z)


class Rotated(Activation):
    """Holomorphic, but not the same function on the real axis."""

    def __call__(self, z):
        return 1j * z if z.is_complex() else z


@pytest.mark.parametrize("activation", [*SMOOTH, Cubic()], ids=repr)
def test_holomorphic(activation):
    assert is_holomorphic(activation)


@pytest.mark.parametrize(
    "activation", [HardSigmoid(), Conjugate(), Rectifier(), Modulus(), FarKink(), Rotated()], ids=repr
)
def test_not_holomorphic(activation):
    assert not is_holomorphic(activation)


@pytest.mark.parametrize("activation", [*SMOOTH, Cubic()], ids=repr)
def test_split_equals_complex(activation):
    generator = torch.Generator().manual_seed(0)
    real = 3 * torch.randn(1000, generator=generator, dtype=torch.float64)
    imaginary = 0.3 * torch.randn(1000, generator=generator, dtype=torch.float64)
    got = torch.complex(*activation.split(real, imaginary))
    torch.testing.assert_close(got, activation(torch.complex(real, imaginary)), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", SMOOTH, ids=repr)
def test_split_survives_large_inputs(activation):
    real, imaginary = torch.tensor([-400.0, 400.0]), torch.tensor([0.1, -0.1])
    assert all(torch.isfinite(part).all() for part in activation.split(real, imaginary))


def test_the_split_sigmoid_keeps_its_relative_precision_where_it_saturates():
    real, imaginary = torch.linspace(-10, 10, 81), torch.full((81,), 1e-3)
    got = ShiftedSigmoid().split(real, imaginary)
    z = torch.complex(real.double(), imaginary.double())
    wanted = 1 / (1 + torch.exp(2 - 4 * z))
    for part, exact in zip(got, (wanted.real, wanted.imag), strict=True):
        torch.testing.assert_close(part.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("activation", [*SMOOTH, HardSigmoid()], ids=repr)
def test_slope(activation):
    z = torch.linspace(-2.05, 3.05, 40, dtype=torch.float64)
    wanted = (activation(z + 1e-6) - activation(z - 1e-6)) / 2e-6
    torch.testing.assert_close(activation.slope(z), wanted, rtol=1e-7, atol=1e-8)


def test_values():
    sigmoid = ShiftedSigmoid()
    assert float(sigmoid(torch.tensor(0.5))) == 0.5 and float(sigmoid.slope(torch.tensor(0.5))) == 1.0
    z = torch.tensor([-8.0, 0.5, 1.0, 1.5, 10.0])
    # a smooth clip of z/2 to [0, 1]: symmetric about (1, 1/2)
    torch.testing.assert_close(DoubleSiLU()(z) + DoubleSiLU()(2 - z), torch.ones(5))
    torch.testing.assert_close(DoubleSiLU()(z), (z / 2).clamp(0, 1), rtol=0, atol=0.2)


def _complex(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.complex128)


def test_softmax_split():
    z = _complex(7, 5)
    torch.testing.assert_close(torch.complex(*split_softmax(z.real, z.imag)), softmax(z))
    torch.testing.assert_close(softmax(z.real.to(z.dtype)).real, torch.softmax(z.real, -1))


def test_pooling_split_equals_complex():
    z, c = _complex(2, 3, 4, 6), _complex(2, 3, 2, 3, seed=1)
    got = join_complex(softmax_pool(split_complex(z), 2, split=True))
    torch.testing.assert_close(got, softmax_pool(z, 2))
    got = join_complex(softmax_pool_transpose(split_complex(z), split_complex(c), 2, split=True))
    torch.testing.assert_close(got, softmax_pool_transpose(z, c, 2))


def test_pooling_transpose_is_the_derivatives():
    z = _complex(2, 3, 4, 6).real.requires_grad_()
    c = _complex(2, 3, 2, 3, seed=1).real
    (wanted,) = torch.autograd.grad(softmax_pool(z, 2), z, c)
    torch.testing.assert_close(softmax_pool_transpose(z, c, 2), wanted)


def test_complex_pooling_transpose_is_autograds_without_conjugation():
    z = _complex(2, 3, 4, 6).requires_grad_()
    c = _complex(2, 3, 2, 3, seed=1)
    (wanted,) = torch.autograd.grad(softmax_pool(z, 2), z, c.conj())
    torch.testing.assert_close(softmax_pool_transpose(z, c, 2), wanted.conj())


def test_pooling_adds_a_constant_and_bounds():
    z = _complex(2, 3, 4, 6).real
    torch.testing.assert_close(softmax_pool(z + 3, 2), softmax_pool(z, 2) + 3)
    top = torch.nn.functional.max_pool2d(z, 2)
    assert (softmax_pool(z, 2) <= top).all() and (softmax_pool(z, 2) >= torch.nn.functional.avg_pool2d(z, 2)).all()


@pytest.mark.parametrize("side", [-1, 1])
def test_the_test_covers_inputs_from_minus_20_to_20(side):
    def kink(place):
        class Kink(Activation):
            def __call__(self, z):
                beyond = side * (z.real if z.is_complex() else z) > place
                return torch.where(beyond, 0.0, z)

        return Kink()

    assert not is_holomorphic(kink(19.95)) and is_holomorphic(kink(20.2))


def test_slope_is_the_derivative():
    z = torch.linspace(-2, 3, 11, dtype=torch.float64)
    torch.testing.assert_close(Tanh().slope(z), 1 - torch.tanh(z) ** 2)
    torch.testing.assert_close(ShiftedSigmoid().slope(torch.tensor([0.5])), torch.tensor([1.0]))
    assert not Tanh().slope(z).requires_grad


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", [True, False])
def test_pooling_keeps_the_memory_format(channels, last):
    z = torch.rand(2, channels, 4, 6)
    if last:
        z = z.contiguous(memory_format=torch.channels_last)
    pooled = softmax_pool(z, 2)
    wanted = torch.rand(2, channels, 2, 3)
    assert pooled.stride() == (wanted.contiguous(memory_format=torch.channels_last) if last else wanted).stride()
    assert softmax_pool_transpose(z, pooled, 2).stride() == z.stride()

"""Softmax pooling, which keeps windows as dense members, against the formula on windows that are unfolded by torch."""

import pytest
import torch
import torch.nn.functional as F
from equilibria import relative

from fklit.eqprop.network.activations import DoubleSiLU
from fklit.eqprop.network.pooling import softmax_pool, softmax_pool_transpose


def by_formula(z, size):
    windows = F.unfold(z.flatten(0, 1)[:, None], size, stride=size)  # (n c, size^2, windows)
    pooled = (windows.softmax(1) * windows).sum(1)
    return pooled.view(*z.shape[:2], z.shape[2] // size, z.shape[3] // size)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [2, 3])
def test_pooling_and_its_transpose_are_the_formula(size, memory):
    torch.manual_seed(0)
    z = (3 * torch.randn(2, 5, 2 * size, 3 * size)).contiguous(memory_format=memory)
    c = torch.randn(2, 5, 2, 3).contiguous(memory_format=memory)
    leaf = z.clone().requires_grad_()
    wanted = by_formula(leaf, size)
    (transposed,) = torch.autograd.grad(wanted, leaf, c)
    assert relative((softmax_pool(z, size),), (wanted,)) < 1e-6
    assert relative((softmax_pool_transpose(z, c, size),), (transposed,)) < 1e-6
    for found in (softmax_pool(z, size), softmax_pool_transpose(z, c, size)):
        assert found.is_contiguous(memory_format=memory)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_split_and_complex_values_agree(memory):
    torch.manual_seed(0)
    parts = torch.randn(4, 3, 4, 6).contiguous(memory_format=memory)
    cotangents = torch.randn(4, 3, 2, 3)
    z, c = (torch.complex(*values.chunk(2)) for values in (parts, cotangents))
    pairs = [
        (softmax_pool(parts, 2, split=True), softmax_pool(z, 2)),
        (softmax_pool_transpose(parts, cotangents, 2, split=True), softmax_pool_transpose(z, c, 2)),
    ]
    for split, native in pairs:
        assert relative((split,), (torch.cat([native.real, native.imag]),)) < 1e-6


def test_the_double_silu_is_its_formula():
    z = torch.linspace(-30, 30, 2001, dtype=torch.float64)
    wanted = z / 2 * torch.sigmoid(z) + (1 - z / 2) * torch.sigmoid(z - 2)
    torch.testing.assert_close(DoubleSiLU()(z), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(DoubleSiLU()(z.float()).double(), wanted, rtol=1e-6, atol=3e-6)

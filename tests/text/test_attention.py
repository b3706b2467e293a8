"""Both ways of attention against the formula in float64, with their gradients."""

import pytest
import torch

from fklit.text.attention import attention


@pytest.mark.parametrize("length", [1, 5, 53, 300])
@pytest.mark.parametrize("grad", [True, False])
def test_is_the_formula(length, grad):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 8, dtype=torch.float64).requires_grad_(grad) for _ in range(3))
    weights = torch.einsum("nhid,nhjd->nhij", q, k).div(8**0.5).softmax(dim=-1)
    expected = torch.einsum("nhij,nhjd->nhid", weights, v)
    torch.testing.assert_close(attention(q, k, v), expected, rtol=1e-12, atol=1e-12)  # double precision stays
    single = [part.detach().float().requires_grad_(grad) for part in (q, k, v)]
    found = attention(*single)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    if grad:
        out = torch.randn_like(expected)
        exact = torch.autograd.grad(expected, (q, k, v), out)
        given = torch.autograd.grad(found, single, out.float())
        for one, other in zip(given, exact, strict=True):
            torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-5)


def test_half_precision_adds_only_rounding():
    torch.manual_seed(0)
    full = [torch.randn(4, 2, 53, 32) for _ in range(3)]
    half = [part.bfloat16().requires_grad_() for part in full]
    found = attention(*half)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), attention(*full), rtol=0.02, atol=0.02)

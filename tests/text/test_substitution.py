"""Substitution: the mask is never predicted, tokens that are not masked stay, exactly."""

import torch

from fklit.text import substitute


def test_by_hand():
    logits = torch.tensor([[0.0, 1.0, 2.0, 9.0], [5.0, 1.0, 0.0, 9.0]], dtype=torch.float64)
    tokens = torch.tensor([3, 1])  # masked, known
    found = substitute(logits, tokens, mask=3).exp()
    total = sum(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).exp())
    expected = [*(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).exp() / total).tolist(), 0.0]
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)
    assert found[1].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_probabilities_sum_to_one_and_excluded_tokens_have_none():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 11, dtype=torch.float64) * 10
    tokens = torch.randint(0, 11, (3, 5))
    tokens[0] = 10
    found = substitute(logits, tokens, mask=10, never=(0, 4))
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(3, 5, dtype=torch.float64), rtol=0, atol=1e-14)
    masked = tokens == 10
    assert (found[masked][:, [0, 4, 10]] == -torch.inf).all()
    assert (found[~masked].exp() == torch.nn.functional.one_hot(tokens[~masked], 11)).all()


def test_gradients_of_known_positions_are_zero():
    logits = torch.randn(4, 6, requires_grad=True)
    tokens = torch.tensor([5, 0, 5, 2])
    found = substitute(logits, tokens, mask=5)
    found[[0, 1, 2, 3], [1, 0, 2, 2]].sum().backward()
    assert (logits.grad[[1, 3]] == 0).all() and (logits.grad[[0, 2], 5] == 0).all()
    assert torch.isfinite(logits.grad).all()

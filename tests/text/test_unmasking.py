"""Exact transition probabilities, drawing by inversion, and places that are decided first."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from fklit.feynman_kac.categorical import draw
from fklit.text.unmasking import places_to_unmask, transition_log_probs

MASK = 3


def predictions(shape):
    logits = torch.randn(*shape, 4, dtype=torch.float64) * 3
    logits[..., MASK] = -torch.inf
    return logits.log_softmax(-1)


@pytest.mark.parametrize("unmask", [0.0, 0.3, 1.0])
def test_probabilities_of_all_next_texts_sum_to_one(unmask):
    torch.manual_seed(0)
    tokens = torch.tensor([3, 1, 3])
    local = transition_log_probs(predictions((3,)), tokens, mask=MASK, unmask=unmask)
    assert (local.exp().sum(-1) - 1).abs().max() < 1e-14
    total = sum(
        math.exp(sum(float(local[i, v]) for i, v in enumerate(text))) for text in itertools.product(range(4), repeat=3)
    )
    assert abs(total - 1) < 1e-14
    assert local[1].exp().tolist() == [0.0, 1.0, 0.0, 0.0]
    assert local[0, MASK].exp() == pytest.approx(1 - unmask, abs=1e-15)


def test_drawn_tokens_have_their_law_and_never_one_without_mass():
    torch.manual_seed(1)
    law = torch.tensor([[0.5, 0.0, 0.2, 0.3, 0.0]], dtype=torch.float64).log()
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 40_000, dtype=torch.float64, generator=generator)
    points[0, :2] = torch.tensor([0.0, 1 - 2**-53])
    values, log_probs = draw(law, points)
    counts = values[0].bincount(minlength=5)
    assert counts[1] == counts[4] == 0 and values[0, :2].tolist() == [0, 3]
    assert chisquare(counts[[0, 2, 3]].numpy(), [20_000, 8_000, 12_000]).pvalue > 1e-3
    assert torch.equal(log_probs[0], law[0][values[0]])


def test_places_and_points_are_independent_and_uniform():
    tokens = torch.tensor([MASK, 1]).repeat(1, 30_000, 1)
    points = torch.rand(1, 30_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at, inner = places_to_unmask(tokens, points, mask=MASK, unmask=0.25)
    assert not at[..., 1].any()
    assert abs(at[..., 0].double().mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 30_000)
    found = inner[at]
    assert ((found >= 0) & (found < 1)).all()
    counts = (found * 10).long().bincount(minlength=10)
    assert chisquare(counts.numpy()).pvalue > 1e-3

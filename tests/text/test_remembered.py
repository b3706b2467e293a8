"""Texts that have not changed since the last step are not asked for again, and nothing else changes."""

import pytest
import torch
from torch import nn

from fklit.correctors import MaskedPath, Target, simulate_masked
from fklit.text import Denoising, TextExpert
from fklit.text.remembered import RememberedPredictions

MASK, LENGTH = 5, 6


class Network(nn.Module):
    """Logits that depend on the whole text, bit by bit."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(LENGTH + 1, 6, 6, generator=torch.Generator().manual_seed(0)))
        self.asked = []

    def forward(self, tokens, at):
        self.asked += [tuple(row) for row in tokens.tolist()]
        seen = self.table[torch.arange(tokens.shape[1]), tokens].sum(dim=1)
        return (seen[:, None] * torch.arange(1.0, tokens.shape[1] + 1)[:, None]).cos()[at]


def dense(found, tokens):
    """Log probabilities of all masked positions, in order."""
    return found.log_probs[found.place[tokens == MASK]]


def test_predictions_are_those_of_the_denoiser_bit_for_bit():
    network, generator = Network(), torch.Generator().manual_seed(1)
    kept = RememberedPredictions(Denoising(network, mask=MASK, max_batch=4))
    plain = Denoising(network, mask=MASK, max_batch=4)
    tokens = torch.full((2, 8, LENGTH), MASK)
    for step in range(20):
        found, wanted = kept.predict(tokens, 1 - step / 20), plain.predict(tokens)
        assert torch.equal(dense(found, tokens), dense(wanted, tokens))
        assert bool((found.place[tokens != MASK] == -1).all())
        assert len(found.log_probs) == len(found.place[found.place >= 0].unique())  # nothing piles up
        # Some are resampled from another place, some unmask a token.
        ancestors = torch.randint(8, (2, 8), generator=generator)
        tokens = tokens.gather(1, ancestors[..., None].expand_as(tokens))
        opened = (torch.rand(tokens.shape, generator=generator) < 0.1) & (tokens == MASK)
        tokens = torch.where(opened, torch.randint(5, tokens.shape, generator=generator), tokens)
    assert kept.denoising.calls < plain.calls


def test_a_text_is_asked_for_when_it_changes():
    network = Network()
    experts = [TextExpert(Denoising(network, mask=MASK), MaskedPath(mask=MASK, length=LENGTH), given=torch.tensor([0]))]
    simulate_masked(Target.product(experts, [1.0]), num_particles=1, num_steps=200, corrected=False)
    assert len(network.asked) == len(set(network.asked)) <= LENGTH  # one particle: each of its texts once


@pytest.mark.parametrize("how", ["another run", "other weights"])
def test_what_is_no_longer_true_is_forgotten(how):
    network, tokens = Network(), torch.full((1, 2, LENGTH), MASK)
    kept = RememberedPredictions(Denoising(network, mask=MASK))
    before = dense(kept.predict(tokens, 0.9), tokens)
    assert kept.denoising.calls == 1 and torch.equal(dense(kept.predict(tokens, 0.8), tokens), before)
    assert kept.denoising.calls == 1
    if how == "other weights":
        with torch.no_grad():
            network.table.add_(1.0)
        assert not torch.equal(dense(kept.predict(tokens, 0.7), tokens), before)
    else:
        network.table = nn.Parameter(network.table.detach() + 1.0)  # as many writes as the old one
        assert not torch.equal(dense(kept.predict(tokens, 0.9), tokens), before)
    assert kept.denoising.calls == 2

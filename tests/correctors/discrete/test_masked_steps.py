"""One step of masked diffusion against the sum over everything it may reach."""

import itertools
import math
from itertools import pairwise

import pytest
import torch

from fklit.correctors import MaskedCorrector, MaskedPath, Target
from fklit.correctors.discrete import exit_rates, masked_weight, reverse_rates

VALUES, MASK = 3, 3
STATES = list(itertools.product(range(VALUES + 1), repeat=2))
PATH = MaskedPath(mask=MASK, length=2, power=1.5)


class Fixed:
    """An expert of our choice: `log_probs` depend on the site alone."""

    def __init__(self, seed, path=PATH):
        self.path = path
        logits = torch.randn(path.length, VALUES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        self.table = torch.log_softmax(logits, dim=1)

    def log_probs(self, tokens, t):
        return self.table.expand(*tokens.shape, VALUES)


def kernel(expert, old, new, alpha, next_alpha):
    """Probability of the expert's step from a state to another."""
    go = (next_alpha - alpha) / (1 - alpha)
    total = 1.0
    for site, (a, b) in enumerate(zip(old, new, strict=True)):
        if a != MASK:
            total *= float(a == b)
        elif b == MASK:
            total *= 1 - go
        else:
            total *= go * float(expert.table[site, b].exp())
    return total


def forward(new, old, alpha, next_alpha):
    """Probability that noising leads from the new state back to the old."""
    total = 1.0
    for a, b in zip(old, new, strict=True):
        keep = alpha / next_alpha
        total *= float(a == MASK) if b == MASK else keep if a == b else (1 - keep) * float(a == MASK)
    return total


@pytest.mark.parametrize("exponents", [(2.0, -0.5), (0.4, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize(("alpha", "next_alpha"), [(0.3, 0.7), (0.2, 1.0), (0.0, 0.4)])
def test_the_weight_is_the_sum_over_all_next_states(exponents, alpha, next_alpha):
    experts = Fixed(0), Fixed(1)
    total = sum(exponents)
    combined = sum(e * expert.table for e, expert in zip(exponents, experts, strict=True))
    for old in STATES:
        if alpha == 0 and old != (MASK, MASK):
            continue
        masked = torch.tensor([[[token == MASK for token in old]]])
        weight, unmask = masked_weight(
            masked,
            torch.logsumexp(combined, dim=-1).expand(1, 1, 2),
            total=total,
            alpha_from=alpha,
            alpha_to=next_alpha,
        )
        terms = {}
        for new in STATES:
            product, back = [kernel(e, old, new, alpha, next_alpha) for e in experts], 0.0
            if min(product) > 0:
                back = forward(new, old, alpha, next_alpha)
                terms[new] = math.prod(p**e for p, e in zip(product, exponents, strict=True)) * back ** (1 - total)
        assert float(weight) == pytest.approx(math.log(sum(terms.values())))
        for site in range(2):
            if old[site] == MASK:
                gone = sum(term for new, term in terms.items() if new[site] != MASK)
                assert float(unmask[0, 0, site]) == pytest.approx(gone / sum(terms.values()))


def test_draws_follow_the_combined_law():
    experts = Fixed(0), Fixed(1)
    target = Target.product(experts, [2.0, -0.5])
    model = MaskedCorrector(target, (1.0, 0.4, 0.0))
    generator = torch.Generator().manual_seed(0)
    state = model.initial(1, 100_000, generator)
    assert (state["x"] == MASK).all() and state["path"] is None
    new, weight = model.step(state, 0, torch.zeros(1, 100_000), generator)
    combined = 2.0 * experts[0].table - 0.5 * experts[1].table
    normalizer = torch.logsumexp(combined, dim=1)
    wanted, unmask = masked_weight(
        state["x"] == MASK, normalizer.expand(1, 1, 2), total=1.5, alpha_from=0.0, alpha_to=PATH.alpha(0.4)
    )
    torch.testing.assert_close(weight, wanted.expand(1, 100_000))
    for site in range(2):
        counts = torch.bincount(new["x"][0, :, site], minlength=4).double() / 100_000
        law = unmask[0, 0, site] * torch.softmax(combined[site], dim=0)
        torch.testing.assert_close(counts[:3], law, atol=0.01, rtol=0)
    end, _ = model.step(new, 1, torch.zeros(1, 100_000), generator)
    assert (end["x"] < MASK).all()
    kept = new["x"] != MASK
    assert torch.equal(end["x"][kept], new["x"][kept])
    assert model.budget.denoiser_calls == 2 * 2 * 100_000
    plain = MaskedCorrector(target, (1.0, 0.4, 0.0), corrected=False)
    assert torch.equal(plain.step(state, 0, weight, generator)[1], torch.zeros_like(weight))


@pytest.mark.parametrize("reward_input", ["denoised", "sample"])
def test_rewards_of_predictions_and_of_samples(reward_input):
    seen = []

    def reward(tokens):
        seen.append(tokens.clone())
        return (tokens == 0).double().sum(dim=-1)

    expert = Fixed(2)
    target = Target.tilted(expert, reward, lambda t: 2.0 - t, gradient=False, reward_input=reward_input)
    model = MaskedCorrector(target, (1.0, 0.5, 0.0))
    generator = torch.Generator().manual_seed(0)
    start = model.initial(1, 50, generator)
    zeros = torch.zeros(1, 50, dtype=torch.float64)
    middle, first = model.step(start, 0, zeros, generator)
    end, second = model.step(middle, 1, zeros, generator)

    def scored(tokens):
        if reward_input == "sample":
            return tokens
        return torch.where(tokens == MASK, expert.table.argmax(dim=1), tokens)

    inputs = scored(start["x"]), scored(middle["x"]), end["x"]
    assert all(torch.equal(a, b) for a, b in zip(seen, inputs, strict=True))
    rewards = [(tokens == 0).double().sum(dim=-1) for tokens in inputs]
    torch.testing.assert_close(first, 1.0 * rewards[0])
    torch.testing.assert_close(second, 2.0 * rewards[2] - 1.0 * rewards[0])


def test_paths_and_grids():
    assert PATH.alpha(0.36) == pytest.approx(0.512) and MaskedPath(3, 1).alpha(0.3) == pytest.approx(0.7)
    times = PATH.grid(4)
    assert times == (1.0, 0.75, 0.5, 0.25, 0.0) and all(t > s for t, s in pairwise(times))
    for wrong in ({"length": 0}, {"power": 0.0}):
        with pytest.raises(ValueError, match="at least 1 site"):
            MaskedPath(**{"mask": 1, "length": 1, **wrong})
    for times in ((1.0,), (0.5, 0.7, 0.0), (1.5, 0.0), (0.5, -0.1)):
        with pytest.raises(ValueError, match="at least two times that fall"):
            MaskedCorrector(Target.annealed(Fixed(0), 2.0), times)
    with pytest.raises(ValueError, match=r"expected log_probs of shape"):
        short = MaskedCorrector(Target.annealed(Fixed(0, MaskedPath(mask=3, length=2)), 2.0), (1.0, 0.0))
        short.target.experts[0].log_probs = lambda tokens, t: torch.zeros(1, 2, VALUES)
        short.step(short.initial(1, 3, None), 0, torch.zeros(1, 3), None)


def test_rates_of_two_states():
    forward_rates = torch.tensor([[9.0, 2.0], [3.0, 9.0]])
    law = torch.tensor([0.25, 0.75])
    found = reverse_rates(forward_rates, law.log())
    torch.testing.assert_close(found, torch.tensor([[0.0, 3.0 * 3], [2.0 / 3, 0.0]]))
    torch.testing.assert_close(exit_rates(forward_rates), torch.tensor([2.0, 3.0]))
    for wrong in (torch.zeros(2), torch.zeros(2, 3), torch.zeros(3, 3)):
        with pytest.raises(ValueError, match=r"expected shapes \(s, s\) and \(s,\)"):
            reverse_rates(wrong, law)

"""The NELBO on a vocabulary and a length that can be enumerated: against quadrature and the exact likelihood."""

import itertools
import math

import numpy as np
import pytest
import torch

from fklit.text import (
    CosineSchedule,
    LogLinearSchedule,
    masked_loss,
    nelbo_at_counts,
    nelbo_at_times,
    stratified_counts,
    stratified_times,
)

LENGTH, VALUES = 3, 3
MASK = VALUES
TEXTS = torch.tensor(list(itertools.product(range(VALUES), repeat=LENGTH)))


class Table:
    """Logits of each position for each of the 4^3 partly masked texts, with a logit for the mask as networks have."""

    def __init__(self, logits):
        self.logits = logits  # (4, 4, 4, 3, 4) float64
        self.seen = []

    def __call__(self, tokens, at):
        self.seen.append((tokens.clone(), at.clone()))
        return self.logits[tokens.unbind(1)][at]

    def probability(self, tokens, position, value):
        """By plain numbers."""
        row = self.logits[tuple(tokens)][position].tolist()[:MASK]
        total = sum(math.exp(x) for x in row)
        return math.exp(row[value]) / total


@pytest.fixture
def any_table():
    torch.manual_seed(3)
    return Table(torch.randn(4, 4, 4, LENGTH, 4, dtype=torch.float64))


def consistent_table(joint):
    """The conditionals of a joint law (3, 3, 3)."""
    logits = torch.zeros(4, 4, 4, LENGTH, 4, dtype=torch.float64)
    for tokens in itertools.product(range(4), repeat=LENGTH):
        kept = [text for text in itertools.product(range(3), repeat=3) if matches(text, tokens)]
        for position in range(LENGTH):
            for value in range(VALUES):
                mass = sum(joint[text] for text in kept if text[position] == value)
                logits[tokens][position, value] = math.log(max(mass, 1e-300))
    logits[..., MASK] = 7.0  # must not matter
    return Table(logits)


def matches(text, tokens):
    return all(token in (MASK, value) for token, value in zip(tokens, text, strict=True))


def losses_of_subsets(table, text):
    """`sum over masked -log p` of each set of masked positions."""
    found = {}
    for masked in itertools.product([False, True], repeat=LENGTH):
        tokens = [MASK if hidden else value for hidden, value in zip(masked, text, strict=True)]
        found[masked] = -sum(math.log(table.probability(tokens, i, text[i])) for i in range(LENGTH) if masked[i])
    return found


def exact_nelbo(table, text, schedule):
    """The integral of Sahoo et al. 2024, eq. 10, by Gauss-Legendre quadrature with plain numbers."""
    points, weights = np.polynomial.legendre.leggauss(60)
    total = 0.0
    for t, weight in zip((points + 1) / 2, weights / 2, strict=True):
        if isinstance(schedule, LogLinearSchedule):
            alpha, rate = 1 - t, -1.0
        else:
            alpha, rate = 1 - math.cos(math.pi / 2 * (1 - t)), -math.pi / 2 * math.sin(math.pi / 2 * (1 - t))
        for masked, loss in losses_of_subsets(table, text).items():
            number = sum(masked)
            total += weight * -rate / (1 - alpha) * (1 - alpha) ** number * alpha ** (LENGTH - number) * loss
    return total


def exact_by_counts(table, text):
    found = losses_of_subsets(table, text)
    total = 0.0
    for number in range(1, LENGTH + 1):
        losses = [loss for masked, loss in found.items() if sum(masked) == number]
        total += LENGTH / number * sum(losses) / len(losses) / LENGTH
    return total


@pytest.mark.parametrize("schedule", [LogLinearSchedule(), CosineSchedule()], ids=lambda s: type(s).__name__)
def test_integral_over_time_is_the_sum_over_counts_for_every_schedule(any_table, schedule):
    for text in [(0, 1, 2), (2, 2, 0)]:
        assert math.isclose(exact_nelbo(any_table, text, schedule), exact_by_counts(any_table, text), rel_tol=1e-9)


def test_conditionals_of_one_law_make_the_bound_tight():
    torch.manual_seed(0)
    joint = torch.rand(3, 3, 3, dtype=torch.float64)
    joint /= joint.sum()
    table = consistent_table(joint)
    for text in TEXTS.tolist():
        assert math.isclose(exact_by_counts(table, text), -math.log(joint[tuple(text)]), rel_tol=1e-9)


def test_bounds_the_likelihood_of_unmasking_one_at_a_time(any_table):
    """The model's law when one token is unmasked at a time in random order; it sums to 1, and the bound holds."""
    total = 0.0
    for text in TEXTS.tolist():
        likelihood = 0.0
        for order in itertools.permutations(range(LENGTH)):
            tokens, product = [MASK] * LENGTH, 1.0
            for position in order:
                product *= any_table.probability(tokens, position, text[position])
                tokens[position] = text[position]
            likelihood += product / math.factorial(LENGTH)
        assert exact_by_counts(any_table, text) >= -math.log(likelihood) - 1e-12
        total += likelihood
    assert math.isclose(total, 1.0, rel_tol=1e-12)


@pytest.mark.parametrize("schedule", [LogLinearSchedule(), CosineSchedule()], ids=lambda s: type(s).__name__)
def test_draws_at_times_average_to_the_integral(any_table, schedule):
    text, number = (0, 1, 2), 60_000
    generator = torch.Generator().manual_seed(1)
    tokens = torch.tensor([text]).expand(number, -1)
    times = stratified_times(number, generator=generator)
    draws = nelbo_at_times(any_table, tokens, times, schedule, mask=MASK, generator=generator)
    error = 4 * draws.std() / math.sqrt(number)
    assert abs(draws.mean() - exact_nelbo(any_table, text, schedule)) < error < 0.2


def test_draws_at_counts_average_to_the_integral_and_vary_less(any_table):
    text, number = (0, 1, 2), 60_000
    generator = torch.Generator().manual_seed(2)
    tokens = torch.tensor([text]).expand(number, -1)
    counts = torch.arange(number) % LENGTH + 1
    draws = nelbo_at_counts(any_table, tokens, counts, mask=MASK, generator=generator)
    assert abs(draws.mean() - exact_by_counts(any_table, text)) < 4 * draws.std() / math.sqrt(number)
    times = stratified_times(number, generator=generator)
    assert draws.std() < nelbo_at_times(any_table, tokens, times, LogLinearSchedule(), mask=MASK).std()
    for tokens, at in any_table.seen[:1]:
        assert (at.sum(1) == counts).all() and (tokens[at] == MASK).all() and (tokens[~at] != MASK).all()


def test_only_masked_positions_have_a_loss(any_table):
    tokens = torch.tensor([[0, 1, 2], [2, 2, 2]])
    masked = torch.tensor([[True, False, True], [False, False, False]])
    losses = masked_loss(any_table, tokens, masked, mask=MASK)
    expected = [-math.log(any_table.probability([MASK, 1, MASK], i, v)) for i, v in ((0, 0), (2, 2))]
    torch.testing.assert_close(losses[0], torch.tensor([expected[0], 0.0, expected[1]]), rtol=1e-6, atol=0)
    assert (losses[1] == 0).all()


def test_stratified_times_have_one_in_each_part():
    times = stratified_times(64, generator=torch.Generator().manual_seed(0))
    assert times.dtype == torch.float64 and ((times > 0) & (times <= 1)).all()
    assert sorted((64 - (times * 64).ceil()).long().tolist()) == list(range(64))
    assert times.tolist() != sorted(times.tolist())


def test_stratified_counts_are_uniform_for_each_text_and_spread_over_a_batch():
    assert stratified_counts(torch.tensor([0, 2, 0])).tolist()[::2] == [0, 0]
    lengths = torch.tensor([1, 3, 4, 48])
    generator = torch.Generator().manual_seed(0)
    counts = torch.stack([stratified_counts(lengths, generator=generator) for _ in range(20_000)])
    for column, length in enumerate(lengths.tolist()):
        shares = torch.bincount(counts[:, column], minlength=length + 1) / len(counts)
        assert shares[0] == 0 and len(shares) == length + 1
        error = 4.5 * math.sqrt((1 / length) * (1 - 1 / length) / len(counts))
        assert ((shares[1:] - 1 / length).abs() <= error).all()
    same = stratified_counts(torch.full((96,), 48), generator=generator)
    assert torch.bincount(same).tolist() == [0] + [2] * 48  # every number equally often


@pytest.mark.parametrize("counted", [True, False], ids=["counts", "times"])
def test_given_positions_are_never_masked_and_the_bound_is_on_the_others(counted):
    torch.manual_seed(0)
    joint = torch.rand(3, 3, 3, dtype=torch.float64)
    joint /= joint.sum()
    table = consistent_table(joint)
    text = torch.tensor([[1, 2, 0]]).expand(60_000, -1)
    given = torch.tensor([[True, False, False]]).expand(60_000, -1)
    generator = torch.Generator().manual_seed(1)
    if counted:
        counts = torch.randint(1, 3, (60_000,), generator=generator)
        draws = nelbo_at_counts(table, text, counts, mask=MASK, given=given, generator=generator)
    else:
        times = stratified_times(60_000, generator=generator)
        draws = nelbo_at_times(table, text, times, LogLinearSchedule(), mask=MASK, given=given, generator=generator)
    assert not table.seen[0][1][:, 0].any() and table.seen[0][1][:, 1:].any()
    # A consistent table makes the bound exact: -log p(others | given).
    wanted = -math.log(float(joint[1, 2, 0] / joint[1].sum()))
    error = float(draws.double().std()) / len(draws) ** 0.5
    assert float(draws.double().mean()) == pytest.approx(wanted, abs=4 * error)

"""The five resamplers: unbiased, never a dead particle, tight counts where promised, fast, and per-group randomness."""

import math
import time

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from fklit.feynman_kac import (
    DegenerateGroupError,
    InvalidWeightError,
    Resampler,
    ancestors_from_counts,
    group_generators,
    keep_survivors_in_place,
    multinomial,
    normalize,
    residual,
    ssp,
    stratified,
    systematic,
)
from fklit.feynman_kac.resampling import get_resampler

INF = math.inf
ALL = [multinomial, stratified, systematic, residual, ssp]
IN_PLACE = [stratified, systematic, residual, ssp]
log_weight = st.one_of(st.floats(-30, 30), st.floats(-1e4, 1e4), st.just(0.0), st.just(-INF))
rows = st.lists(log_weight, min_size=1, max_size=40).filter(lambda row: max(row) > -INF)
fixed = settings(max_examples=80, deadline=None, derandomize=True, database=None)


def _counts(ancestors: Tensor) -> Tensor:
    return torch.zeros_like(ancestors).scatter_add(1, ancestors, torch.ones_like(ancestors))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("resampler", ALL)
@fixed
@given(row=rows, seed=st.integers(0, 2**31))
def test_counts_keep_their_promises(resampler: Resampler, row: list[float], seed: int) -> None:
    _keeps_its_promises(resampler, row, seed)


@pytest.mark.slow
@pytest.mark.parametrize("resampler", ALL)
@settings(fixed, max_examples=2_000)
@given(row=rows, seed=st.integers(0, 2**31))
def test_ten_thousand_counts_keep_their_promises(resampler: Resampler, row: list[float], seed: int) -> None:
    _keeps_its_promises(resampler, row, seed)


def _keeps_its_promises(resampler: Resampler, row: list[float], seed: int) -> None:
    log_weights = torch.tensor([row], dtype=torch.float64)
    ancestors = resampler(log_weights, _generator(seed))
    assert ancestors.dtype == torch.int64
    assert ancestors.shape == log_weights.shape
    counts, expected = _counts(ancestors), normalize(log_weights) * len(row)
    assert int(counts.sum()) == len(row)
    assert not counts[log_weights == -INF].any()
    if resampler in (systematic, ssp):
        assert ((counts - expected).abs() < 1 + 1e-9).all()
    if resampler is stratified:
        assert ((counts - expected).abs() < 2 + 1e-9).all()
    if resampler is residual:
        assert (counts >= (expected - 1e-9).floor()).all()
    if resampler is not multinomial:
        survivors = counts > 0
        assert torch.equal(ancestors[survivors], torch.arange(len(row))[survivors[0]])


@pytest.mark.parametrize("resampler", ALL)
def test_counts_are_unbiased(resampler: Resampler) -> None:
    weights = torch.tensor([0.02, 0.3, 0.0, 0.08, 0.41, 0.19])
    runs = 20_000
    counts = _counts(resampler(weights.log().expand(runs, 6), _generator())).double()
    expected = 6 * weights.double()
    error = (counts.var(dim=0) / runs).sqrt()
    assert ((counts.mean(dim=0) - expected).abs() <= 4 * error + 1e-6).all()


@pytest.mark.parametrize("resampler", IN_PLACE)
def test_spread_is_at_most_that_of_multinomial(resampler: Resampler) -> None:
    log_weights = torch.randn(1, 9, generator=_generator(3)).expand(20_000, 9)
    value = torch.randn(9, generator=_generator(4), dtype=torch.float64)
    spread = (_counts(resampler(log_weights, _generator())).double() @ value).var()
    assert float(spread) < float((_counts(multinomial(log_weights, _generator())).double() @ value).var())


def test_ssp_counts_are_negatively_correlated() -> None:
    log_weights = torch.randn(1, 7, generator=_generator(5)).expand(40_000, 7)
    covariance = torch.cov(_counts(ssp(log_weights, _generator())).double().T)
    off_diagonal = covariance[~torch.eye(7, dtype=torch.bool)]
    assert float(off_diagonal.max()) < 0.005


@pytest.mark.parametrize("resampler", IN_PLACE)
@pytest.mark.parametrize("num_particles", [1, 2, 3, 10, 49, 1000])
def test_equal_weights_keep_everyone(resampler: Resampler, num_particles: int) -> None:
    ancestors = resampler(torch.full((3, num_particles), -1.7), _generator())
    assert torch.equal(ancestors, torch.arange(num_particles).expand(3, -1))


@pytest.mark.parametrize("resampler", ALL)
def test_one_dominant_weight_is_copied_everywhere(resampler: Resampler) -> None:
    log_weights = torch.zeros(2, 50)
    log_weights[0, 7], log_weights[1, 49] = 1e4, 2e4
    ancestors = resampler(log_weights, _generator())
    assert (ancestors[0] == 7).all()
    assert (ancestors[1] == 49).all()


class _Edge:
    """A uniform generator stuck at one end of [0, 1)."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, generators: object, shape: tuple[int, ...], *, device: object = None) -> Tensor:
        return torch.full(tuple(shape), self.value, dtype=torch.float64)


@pytest.mark.parametrize("resampler", IN_PLACE)
@pytest.mark.parametrize("value", [0.0, math.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("num_particles", [3, 1000, 100_003])
def test_the_dead_are_not_drawn_at_either_end_of_the_unit_interval(
    resampler: Resampler, value: float, num_particles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fklit.feynman_kac.resampling.uniforms", _Edge(value))
    log_weights = torch.randn(2, num_particles, generator=_generator(6), dtype=torch.float32)
    log_weights[:, 0] = log_weights[:, -1] = -INF
    log_weights[0, 5:] = -INF
    counts = _counts(resampler(log_weights))
    assert not counts[log_weights == -INF].any()
    assert (counts.sum(dim=1) == num_particles).all()


def test_multinomial_is_torch_multinomial_on_the_same_generator() -> None:
    rewards = torch.randn(5, 8, generator=_generator(7), dtype=torch.float64)
    for seed in range(200):
        expected = torch.multinomial(torch.softmax(2 * rewards, dim=1), 8, replacement=True, generator=_generator(seed))
        assert torch.equal(multinomial(2 * rewards, _generator(seed)), expected)
        single = torch.multinomial(
            torch.softmax(2 * rewards[0], dim=0), 8, replacement=True, generator=_generator(seed)
        )
        assert torch.equal(multinomial(2 * rewards[:1], [_generator(seed)])[0], single)


@pytest.mark.parametrize("resampler", ALL)
def test_with_a_generator_each_a_group_does_not_depend_on_its_neighbors(resampler: Resampler) -> None:
    log_weights = torch.randn(6, 16, generator=_generator(8)) * 3
    together = resampler(log_weights, group_generators(11, 6))
    order = [4, 1, 5]
    apart = resampler(log_weights[order], group_generators(11, order))
    assert torch.equal(together[order], apart)
    alone = torch.cat([resampler(log_weights[b : b + 1], group_generators(11, [b])) for b in range(6)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("resampler", ALL)
def test_a_million_particles_take_seconds_and_the_cost_is_linear(resampler: Resampler) -> None:
    def seconds(num_particles: int) -> float:
        log_weights = 2 * torch.randn(1, num_particles, generator=_generator(9), dtype=torch.float64)
        start = time.process_time()
        ancestors = resampler(log_weights, _generator())
        taken = time.process_time() - start
        assert int(ancestors.max()) < num_particles
        return taken

    small = min(seconds(100_000) for _ in range(3))
    large = seconds(1_000_000)
    assert large < 5.0
    assert large < 60 * small + 0.1  # ten times the particles; the margin is for caches and a busy machine


def test_keep_survivors_in_place_only_reorders() -> None:
    ancestors = torch.randint(0, 9, (50, 9), generator=_generator(10))
    ordered = keep_survivors_in_place(ancestors)
    assert torch.equal(ordered.sort(dim=1).values, ancestors.sort(dim=1).values)
    survivors = _counts(ancestors) > 0
    assert torch.equal(ordered[survivors], torch.arange(9).expand(50, 9)[survivors])


def test_ancestors_from_counts() -> None:
    assert ancestors_from_counts(torch.tensor([[0, 3, 0, 1], [1, 1, 1, 1]])).tolist() == [[1, 1, 1, 3], [0, 1, 2, 3]]
    with pytest.raises(ValueError, match=r"sum to 3 in every row"):
        ancestors_from_counts(torch.tensor([[1, 1, 0]]))


@pytest.mark.parametrize("resampler", ALL)
def test_wrong_weights_are_refused(resampler: Resampler) -> None:
    with pytest.raises(InvalidWeightError, match=r"NaN or \+inf"):
        resampler(torch.tensor([[0.0, math.nan]]))
    with pytest.raises(InvalidWeightError, match=r"NaN or \+inf"):
        resampler(torch.tensor([[0.0, INF]]))
    with pytest.raises(DegenerateGroupError, match=r"all -inf"):
        resampler(torch.tensor([[0.0, 0.0], [-INF, -INF]]))
    with pytest.raises(ValueError, match=r"expected 1 generators, one a group, got 2"):
        resampler(torch.zeros(1, 2), group_generators(0, 2))
    with pytest.raises(TypeError, match=r"generator"):
        resampler(torch.zeros(1, 2), [0])


def test_resamplers_have_names() -> None:
    for resampler in ALL:
        assert get_resampler(resampler.__name__) is resampler
        assert get_resampler(resampler) is resampler
    with pytest.raises(ValueError, match=r"resampler='best' is not known; use one of 'systematic'"):
        get_resampler("best")


def _plain_systematic(log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """The same draws step by step, without a thought for speed: what the fast form must repeat bit for bit."""
    weights = normalize(log_weights)
    offset = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64)
    sums = torch.where(weights > 0, weights.cumsum(dim=1), 0.0).cummax(dim=1).values
    position = sums / sums[:, -1:] * weights.shape[1]
    below = torch.where(position >= weights.shape[1], weights.shape[1], (position - offset).ceil()).long()
    counts = below.diff(dim=1, prepend=torch.zeros(len(below), 1, dtype=torch.int64))
    ancestors = torch.empty_like(counts)
    for row, number in enumerate(counts.tolist()):
        copies = [slot for slot, count in enumerate(number) for _ in range(count - 1)]
        ancestors[row] = torch.tensor([slot if count else copies.pop(0) for slot, count in enumerate(number)])
    return ancestors


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1.0, 30.0, 1e4])
def test_the_fast_form_draws_the_same_ancestors(spread: float) -> None:
    for case, size in enumerate((1, 2, 3, 8, 33, 257, 1000)):
        log_weights = spread * torch.randn(3, size, generator=_generator(case), dtype=torch.float64)
        dead = torch.rand(3, size, generator=_generator(case)) < (0.5 if case % 2 else 0.0)
        dead[:, case % size] = False
        log_weights[dead] = -INF
        before = log_weights.clone()
        for seed in range(5):
            found = systematic(log_weights, _generator(seed))
            assert torch.equal(found, _plain_systematic(log_weights, _generator(seed)))
        assert torch.equal(log_weights, before), "the weights of the caller stay"


@pytest.mark.parametrize("resampler", ALL)
def test_rows_may_lie_in_memory_as_they_like(resampler: Resampler) -> None:
    log_weights = torch.randn(9, 4, generator=_generator(), dtype=torch.float64)
    assert torch.equal(
        resampler(log_weights.t(), _generator(1)), resampler(log_weights.t().contiguous(), _generator(1))
    )

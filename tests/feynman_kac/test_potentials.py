"""Potentials: the table of the module, the closure on exp(scale * r(x_0)), and rewards that are not finite."""

import itertools
import math
import warnings

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from fklit.feynman_kac import Difference, HighVarianceWarning, Max, Potential, RewardPath, Sum, Terminal, get_potential

INF, NAN = math.inf, math.nan
ALL = [Difference(), Max(), Sum(), Difference("statistic"), Max("statistic"), Sum("statistic"), Terminal()]
pytestmark = pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")  # tested by name below
fixed = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def _log_potentials(rule: Potential, rewards: list[float], scale: float = 2.0) -> list[float]:
    path = RewardPath(rule, 1, 1)
    return [float(path.update(torch.tensor([[reward]]), scale)) for reward in rewards]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Difference(), [-2.0, 6.0, -2.0]),  # rewards -1, 2, 1 at scale 2
        (Max(), [-2.0, 6.0, 0.0]),
        (Sum(), [-2.0, 4.0, 2.0]),
        (Difference("statistic"), [-2.0, 4.0, 2.0]),
        (Max("statistic"), [-2.0, 4.0, 4.0]),
        (Sum("statistic"), [-2.0, 2.0, 4.0]),
        (Terminal(), [0.0, 0.0, 0.0]),
    ],
)
def test_the_table(rule: Potential, expected: list[float]) -> None:
    assert _log_potentials(rule, [-1.0, 2.0, 1.0]) == pytest.approx(expected)


def test_the_statistic_starts_at_none_not_at_zero() -> None:
    """The reference starts the maximum at 0, so that it is inert for negative rewards (research 5.2, row 2)."""
    assert _log_potentials(Max(), [-9.0, -5.0]) == pytest.approx([-18.0, 8.0])


def test_the_sum_in_increment_form_is_rt_at_a_constant_scale_and_differs_under_tempering() -> None:
    rewards = [-1.0, 2.0, 1.0]
    assert _log_potentials(Sum(), rewards) == pytest.approx(_log_potentials(Difference("statistic"), rewards))
    tempered = {}
    for rule in (Sum(), Difference("statistic")):
        path = RewardPath(rule, 1, 1)
        tempered[rule] = [
            float(path.update(torch.tensor([[r]]), c)) for r, c in zip(rewards, (1.0, 2.0, 3.0), strict=True)
        ]
    assert tempered[Sum()] == pytest.approx([-1.0, 2 * 1 + 1, 3 * 2 - 2])  # c_t S_t - c_{t-1} S_{t-1}
    assert tempered[Difference("statistic")] == pytest.approx([-1.0, 4.0, 3.0])  # c_t r_t


@pytest.mark.parametrize("rule", ALL, ids=repr)
@fixed
@given(
    rewards=st.lists(st.floats(-100, 100), min_size=0, max_size=6),
    last=st.floats(-100, 100),
    scales=st.lists(st.floats(0, 50), min_size=7, max_size=7).map(sorted),
)
def test_every_path_closes_on_the_terminal_reward(
    rule: Potential, rewards: list[float], last: float, scales: list[float]
) -> None:
    path, total = RewardPath(rule, 1, 1), 0.0
    for reward, scale in zip(rewards, scales, strict=False):
        total += float(path.update(torch.tensor([[reward]], dtype=torch.float64), scale))
    total += float(path.terminal(torch.tensor([[last]], dtype=torch.float64), scales[-1]))
    assert total == pytest.approx(scales[-1] * last, abs=1e-6)


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_paths_with_minus_inf_never_become_nan_and_the_dead_stay_dead(rule: Potential) -> None:
    for history in itertools.product([1.0, -INF], repeat=4):
        path, dead = RewardPath(rule, 1, 1), False
        for position, reward in enumerate(history):
            step = path.update if position < 3 else path.terminal
            value = float(step(torch.tensor([[reward]]), 2.0))
            assert not math.isnan(value)
            assert value < INF
            if dead:
                assert value == -INF
            dead = dead or value == -INF
        assert dead == (history[3] == -INF or (rule.scores_intermediate and _kills(rule, history[:3])))


def _kills(rule: Potential, rewards: tuple[float, ...]) -> bool:
    """A running maximum survives a forbidden prediction after a good one; the others do not."""
    return rewards[0] == -INF if isinstance(rule, Max) else -INF in rewards


@pytest.mark.parametrize("bad", [NAN, INF])
def test_invalid_rewards_are_passed_on_as_nan_once_and_then_dead(bad: float) -> None:
    path = RewardPath(Difference(), 1, 2)
    assert torch.isnan(path.update(torch.tensor([[bad, 1.0]]), 1.0)).tolist() == [[True, False]]
    assert path.update(torch.tensor([[0.0, 2.0]]), 1.0).tolist() == [[-INF, 1.0]]
    assert path.terminal(torch.tensor([[NAN, NAN]]), 1.0)[0, 0] == -INF
    assert torch.isnan(RewardPath(Terminal(), 1, 1).terminal(torch.tensor([[bad]]), 1.0)).all()


def test_a_scale_of_zero_ignores_the_reward_even_minus_inf() -> None:
    path = RewardPath(Difference(), 1, 2)
    rewards = torch.tensor([[-INF, 3.0]])
    assert path.update(rewards, 0.0).tolist() == [[0.0, 0.0]]
    assert path.update(torch.tensor([[1.0, 3.0]]), 2.0).tolist() == [[2.0, 6.0]]
    assert path.terminal(rewards, 0.0).tolist() == [[-2.0, -6.0]]


def test_scale_for_each_group_and_preview_changes_nothing() -> None:
    path = RewardPath(Difference(), 2, 1)
    rewards, scale = torch.tensor([[1.0], [1.0]]), torch.tensor([1.0, 3.0])
    assert path.preview(rewards, scale).tolist() == [[1.0], [3.0]]
    assert path.statistic is None
    assert path.num_scores == 0
    assert path.update(rewards, scale).tolist() == [[1.0], [3.0]]
    assert path.scale.tolist() == [1.0, 3.0]


def _advance(path: RewardPath, seed: int) -> Tensor:
    return path.update(torch.randn(path.shape, generator=torch.Generator().manual_seed(seed)), 2.0)


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_a_clone_continues_as_its_parent_would(rule: Potential) -> None:
    path = RewardPath(rule, 2, 4)
    _advance(path, 0)
    ancestors = torch.tensor([[1, 1, 3, 3], [0, 1, 2, 2]])
    copy = path.selected(ancestors[:, :2])
    before = path.total.clone()
    assert copy.shape == (2, 2)
    assert torch.equal(path.total, before)
    rewards = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    expected = path.preview(rewards, 2.0)
    assert path.select(None) is path
    assert path.select(ancestors) is path
    assert torch.equal(path.update(rewards.gather(1, ancestors), 2.0), expected.gather(1, ancestors))


def test_the_dead_are_re_indexed_with_the_rest() -> None:
    def after(ancestors: list[int]) -> list[float]:
        path = RewardPath(Difference(), 1, 3)
        path.update(torch.tensor([[-INF, 1.0, 2.0]]), 1.0)
        path.select(torch.tensor([ancestors]))
        return path.terminal(torch.tensor([[5.0, 5.0, 5.0]]), 1.0)[0].tolist()

    assert after([0, 1, 2]) == [-INF, 4.0, 3.0]
    assert after([1, 0, 2]) == [4.0, -INF, 3.0]
    assert after([2, 2, 1]) == [3.0, 3.0, 4.0]


def test_useless_forms_warn_once_with_the_way_out() -> None:
    for rule, fine, useless in (
        (Max("statistic"), 5, 6),
        (Difference("statistic"), 5, 6),
        (Sum(), 5, 6),
        (Sum("statistic"), 2, 3),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            RewardPath(rule, 1, 1, num_points=fine)
        with pytest.warns(HighVarianceWarning, match=r"use Difference\(\) or Max\(\) in increment form"):
            RewardPath(rule, 1, 1, num_points=useless)
        path = RewardPath(rule, 1, 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for seed in range(useless + 3):
                _advance(path, seed)
        assert [item.category for item in caught] == [HighVarianceWarning]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rule in (Difference(), Max(), Terminal()):
            RewardPath(rule, 1, 1, num_points=1000)


def test_names() -> None:
    assert get_potential("difference") == Difference()
    assert get_potential("rt") == Difference("statistic")
    assert get_potential("max-statistic") == Max("statistic")
    assert get_potential("terminal") == Terminal()
    assert get_potential(Sum()) == Sum()
    with pytest.raises(ValueError, match=r"potential='diff' is not known; use one of 'difference', 'max'"):
        get_potential("diff")


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises((ValueError, TypeError), match=r"'both'"):
        Max("both")
    with pytest.raises(ValueError, match=r"form='statistic' is not known"):
        Terminal("statistic")
    path = RewardPath(Difference(), 2, 3)
    with pytest.raises(ValueError, match=r"reward has shape \(2, 2\) but the run has 2 groups of 3 particles"):
        path.update(torch.zeros(2, 2), 1.0)
    with pytest.raises(ValueError, match=r"scale=-1.0 is not accepted"):
        path.update(torch.zeros(2, 3), -1.0)
    with pytest.raises(ValueError, match=r"scale=nan is not accepted"):
        path.update(torch.zeros(2, 3), NAN)
    with pytest.raises(ValueError, match=r"negate the reward instead"):
        path.update(torch.zeros(2, 3), torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"scale has shape \(3,\)"):
        path.update(torch.zeros(2, 3), torch.ones(3))
    with pytest.raises(TypeError, match=r"dtype torch.bool"):
        path.update(torch.zeros(2, 3, dtype=torch.bool), 1.0)
    path.terminal(torch.zeros(2, 3), 1.0)
    with pytest.raises(ValueError, match=r"terminal score already"):
        path.update(torch.zeros(2, 3), 1.0)
    with pytest.raises(ValueError, match=r"num_particles=0 is too small"):
        RewardPath(Difference(), 1, 0)
    with pytest.raises(TypeError, match=r"potential"):
        RewardPath("difference", 1, 1)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Difference(), [1.0, 1.0, 1.0]),
        (Max(), [1.0, 1.0, 1.0]),
        (Sum(), [0.0, 1.0, 4.0]),
        (Difference("statistic"), [0.0, 1.0, 4.0]),
        (Max("statistic"), [0.0, 1.0, 4.0]),
        (Sum("statistic"), [0.0, 1.0, 10.0]),
        (Terminal(), [0.0, 0.0, 0.0]),
    ],
)
def test_how_far_intermediate_targets_overshoot(rule: Potential, expected: list[float]) -> None:
    """Similar rewards r: the product of the potentials is exp(m c r), so m is the sum of log G at r = c = 1."""
    assert [rule.overshoot(points) for points in (0, 1, 4)] == expected
    assert sum(_log_potentials(rule, [1.0] * 4, scale=1.0)) == expected[2]
    assert rule.scores_intermediate == (not isinstance(rule, Terminal))

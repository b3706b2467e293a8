"""Tempering: the line, the ESS solver (with asymmetric weights), and its degenerate cases."""

import math

import pytest
import torch
from torch import Tensor

from fklit.feynman_kac import Adaptive, Constant, Difference, Linear, Max, RewardPath, Tempering, ess

INF = math.inf


def _skewed(num_groups: int, num_particles: int, seed: int = 0) -> Tensor:
    """Asymmetric on purpose: symmetric data hide sign errors."""
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(num_groups, num_particles, dtype=torch.float64).exponential_(1.0, generator=generator) ** 2 - 3


def _scale(
    tempering: Tempering, path: RewardPath, reward: Tensor, log_weights: Tensor, top: float, point: int = 0, n: int = 4
) -> Tensor:
    return tempering.scale(path, reward, log_weights=log_weights, reward_scale=top, point=point, num_points=n)


def test_constant_and_linear() -> None:
    path, zeros = RewardPath(Difference(), 2, 3), torch.zeros(2, 3)
    assert _scale(Constant(), path, zeros, zeros, 10.0).tolist() == [10.0, 10.0]
    line = [float(_scale(Linear(), path, zeros, zeros, 10.0, point=point)[0]) for point in range(4)]
    assert line == pytest.approx([2.0, 4.0, 6.0, 8.0])  # and 10 at the terminal score
    half = [float(_scale(Linear(0.5), path, zeros, zeros, 10.0, point=point)[0]) for point in range(4)]
    assert half == pytest.approx([6.0, 7.0, 8.0, 9.0])
    assert float(_scale(Linear(1.0), path, zeros, zeros, 10.0)[0]) == 10.0


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_the_solver_meets_the_ess_and_never_falls(target: float) -> None:
    path, log_weights = RewardPath(Difference(), 5, 40), torch.zeros(5, 40, dtype=torch.float64)
    previous = torch.zeros(5, dtype=torch.float64)
    for point in range(4):
        reward = _skewed(5, 40, seed=point)
        scale = _scale(Adaptive(target), path, reward, log_weights, 50.0, point=point)
        assert (scale >= previous).all()
        assert (scale <= 50.0).all()
        moved = log_weights + path.preview(reward, scale)
        solved = (scale > previous) & (scale < 50.0)
        assert point > 0 or solved.all()
        assert float((ess(moved)[solved] - target * 40).abs().max() if solved.any() else 0.0) < 1e-6
        path.update(reward, scale)
        log_weights = torch.zeros_like(log_weights)  # as after a resampling
        previous = scale


def test_the_solver_sees_carried_weights_and_solves_each_group_alone() -> None:
    reward = _skewed(2, 30)
    carried = torch.stack([torch.zeros(30, dtype=torch.float64), 0.05 * _skewed(1, 30, seed=9)[0]])
    both = _scale(Adaptive(0.5), RewardPath(Difference(), 2, 30), reward, carried, 50.0)
    for group in range(2):
        one = slice(group, group + 1)
        alone = _scale(Adaptive(0.5), RewardPath(Difference(), 1, 30), reward[one], carried[one], 50.0)
        assert torch.equal(alone, both[one])
        assert float(ess(carried[one] + both[group] * reward[one])) == pytest.approx(15.0, abs=1e-6)


def test_equal_rewards_go_to_the_full_scale_in_one_step() -> None:
    path, ones = RewardPath(Difference(), 1, 8), torch.ones(1, 8)
    assert float(_scale(Adaptive(), path, ones, torch.zeros(1, 8), 7.0)) == 7.0


def test_a_group_below_the_target_keeps_its_scale() -> None:
    path = RewardPath(Difference(), 1, 4)
    path.update(torch.zeros(1, 4), 3.0)
    carried = torch.tensor([[0.0, -50.0, -50.0, -50.0]])
    assert float(_scale(Adaptive(), path, torch.tensor([[1.0, 0.0, 0.0, 0.0]]), carried, 9.0)) == 3.0


def test_dead_particles_have_no_say() -> None:
    reward, carried = _skewed(1, 10), torch.zeros(1, 10, dtype=torch.float64)
    reward[0, :3], carried[0, 3] = -INF, -INF
    scale = _scale(Adaptive(), RewardPath(Difference(), 1, 10), reward, carried, 50.0)
    few = _scale(Adaptive(), RewardPath(Difference(), 1, 6), reward[:, 4:], carried[:, 4:], 50.0)
    assert float(scale) == pytest.approx(float(few), rel=1e-9)
    all_dead = torch.full((1, 10), -INF, dtype=torch.float64)
    assert float(_scale(Adaptive(), RewardPath(Max(), 1, 10), reward, all_dead, 50.0)) == 50.0


def test_a_scale_of_zero_stays_zero() -> None:
    path = RewardPath(Difference(), 1, 6)
    assert float(_scale(Adaptive(), path, _skewed(1, 6), torch.zeros(1, 6), 0.0)) == 0.0


def test_impossible_settings_are_refused() -> None:
    path, zeros = RewardPath(Difference(), 1, 2), torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"ess_target=1.0 leaves nothing to solve"):
        Adaptive(1.0)
    with pytest.raises(ValueError, match=r"first=2.0 is outside \[0, 1\]"):
        Linear(2.0)
    with pytest.raises(ValueError, match=r"point=4 but the run has 4 intermediate scores"):
        _scale(Linear(), path, zeros, zeros, 1.0, point=4)
    with pytest.raises(ValueError, match=r"reward_scale=-1.0 is not accepted"):
        _scale(Constant(), path, zeros, zeros, -1.0)


def test_ends_of_what_is_accepted() -> None:
    path, zeros = RewardPath(Difference(), 1, 2), torch.zeros(1, 2)
    for rule in (Constant(), Linear(), Adaptive()):
        for point, n, message in ((-1, 4, "point=-1 is too small"), (0, 0, "num_points=0 is too small")):
            with pytest.raises(ValueError, match=message):
                _scale(rule, path, zeros, zeros, 1.0, point=point, n=n)
        with pytest.raises(ValueError, match=r"point=1 but the run has 1 intermediate scores"):
            _scale(rule, path, zeros, zeros, 1.0, point=1, n=1)
        assert float(_scale(rule, path, zeros, zeros, 3.0, point=0, n=1)) == (1.5 if rule == Linear() else 3.0)
    for target in (0, 1, 0.0):
        with pytest.raises(ValueError, match=r"leaves nothing to solve"):
            Adaptive(target)
    with pytest.raises(ValueError, match=r"log_weights has shape \(1, 3\) but the run has 1 groups of 2 particles"):
        _scale(Adaptive(), path, zeros, torch.zeros(1, 3), 1.0)


def test_scales_are_float64_and_one_a_group() -> None:
    path, zeros = RewardPath(Difference(), 3, 2), torch.zeros(3, 2)
    for rule in (Constant(), Linear(), Adaptive()):
        scale = _scale(rule, path, zeros, zeros, 2)
        assert scale.shape == (3,) and scale.dtype == torch.float64

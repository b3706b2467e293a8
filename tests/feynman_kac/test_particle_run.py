"""What a run returns: best, sample, mean, and the budget."""

import math

import pytest
import torch
from torch import Tensor

from fklit.feynman_kac import Budget, ParticleResult, group_generators

INF, NAN = math.inf, math.nan


def _run(log_weights: Tensor, particles: object | None = None) -> ParticleResult:
    num_groups, num_particles = log_weights.shape
    slots = torch.arange(num_particles, dtype=torch.float64).repeat(num_groups, 1)
    return ParticleResult(
        particles=slots if particles is None else particles,
        log_weights=log_weights.double(),
        log_z=torch.zeros(num_groups, dtype=torch.float64),
        steps=(0,),
        ess=torch.ones(1, num_groups, dtype=torch.float64),
        ancestors=(None,),
        resampled=torch.zeros(1, num_groups, dtype=torch.bool),
        degenerate=torch.zeros(num_groups, dtype=torch.bool),
        dropped=torch.zeros(num_groups, dtype=torch.int64),
    )


def test_best_is_by_weight_or_by_score_among_the_living() -> None:
    result = _run(torch.tensor([[0.0, 1.0, -INF], [2.0, -INF, -INF]]))
    assert result.best().tolist() == [1.0, 0.0]
    assert result.best(torch.tensor([[5.0, 1.0, 9.0], [-INF, 7.0, 8.0]])).tolist() == [0.0, 0.0]
    assert result.best_index(torch.tensor([[NAN, 1.0, 2.0], [NAN, 7.0, 8.0]])).tolist() == [1, 0]


def test_sample_follows_the_weights_and_the_groups_generator() -> None:
    log_weights = torch.tensor([[0.1, 0.2, 0.7, 0.0], [0.0, 0.5, 0.25, 0.25]]).log()
    result = _run(log_weights)
    draws = result.sample(40_001, group_generators(0, 2))
    assert draws.shape == (2, 40_001)
    share = torch.stack([(draws == slot).double().mean(dim=1) for slot in range(4)], dim=1)
    torch.testing.assert_close(share, log_weights.double().exp(), atol=0.01, rtol=0)
    assert not (draws[0] == 3).any()
    alone = _run(log_weights[1:]).sample(9, group_generators(0, [1]))
    assert torch.equal(alone[0], result.sample(9, group_generators(0, 2))[1])


def test_mean_is_weighted_and_what_the_dead_hold_does_not_enter() -> None:
    particles = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [NAN, INF]]])
    result = _run(torch.tensor([[0.0, math.log(3), -INF]]), particles)
    assert result.mean()[0].tolist() == pytest.approx([2.5, 25.0])
    assert result.mean(lambda x: x[..., 0] > 2)[0].item() == pytest.approx(0.75)


def test_particles_may_be_a_tree() -> None:
    result = _run(torch.tensor([[0.0, 1.0]]), {"x": torch.tensor([[[1, 2], [3, 4]]]), "name": "run"})
    assert result.best()["x"].tolist() == [[3, 4]]
    assert result.sample(3, torch.Generator().manual_seed(0))["x"].shape == (1, 3, 2)
    assert result.mean(lambda state: state["x"][..., 0]).shape == (1,)
    with pytest.raises(TypeError, match=r"mean\(\) needs a tensor .* got a dict"):
        result.mean()


def test_wrong_inputs_get_a_sentence() -> None:
    result = _run(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"n=0 is too small"):
        result.sample(0)
    with pytest.raises(ValueError, match=r"scores has shape \(2,\)"):
        result.best(torch.zeros(2))
    with pytest.raises(ValueError, match=r"must begin with"):
        result.mean(lambda x: x.flatten())


def test_budgets_add_up() -> None:
    one = Budget(denoiser_calls=8, decodes=4, reward_calls=2, seconds=1.5, peak_memory_bytes=100)
    two = Budget(denoiser_calls=1, seconds=0.5, peak_memory_bytes=300)
    total = sum([one, two], Budget())
    assert total == Budget(denoiser_calls=9, decodes=4, reward_calls=2, seconds=2.0, peak_memory_bytes=300)
    with pytest.raises(ValueError, match=r"decodes=-1 is negative"):
        Budget(decodes=-1)

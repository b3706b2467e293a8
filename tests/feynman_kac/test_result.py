"""What a run returns: best, sample, mean, and the budget."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fklit.feynman_kac import Budget, ParticleResult
from fklit.feynman_kac.result import json_numbers

INF, NAN = math.inf, math.nan


def _run(log_weights: Tensor, particles: object | None = None) -> ParticleResult:
    num_groups, num_particles = log_weights.shape
    slots = torch.arange(num_particles, dtype=torch.float64).repeat(num_groups, 1)
    return ParticleResult(
        samples=slots if particles is None else particles,
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


def test_sample_follows_the_weights_and_the_index_of_the_group() -> None:
    log_weights = torch.tensor([[0.1, 0.2, 0.7, 0.0], [0.0, 0.5, 0.25, 0.25]]).log()
    result = _run(log_weights)
    draws = result.sample(40_001)
    assert draws.shape == (2, 40_001)
    share = torch.stack([(draws == slot).double().mean(dim=1) for slot in range(4)], dim=1)
    torch.testing.assert_close(share, log_weights.double().exp(), atol=0.01, rtol=0)
    assert not (draws[0] == 3).any()
    assert torch.equal(_run(log_weights[:1]).sample(9)[0], result.sample(9)[0])  # whatever groups there are beside it
    again = _run(log_weights).sample(9)
    assert torch.equal(again, result.sample(9)) and not torch.equal(again, result.sample(9, seed=1))


def test_mean_is_weighted_and_what_the_dead_hold_does_not_enter() -> None:
    particles = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [NAN, INF]]])
    result = _run(torch.tensor([[0.0, math.log(3), -INF]]), particles)
    assert result.mean()[0].tolist() == pytest.approx([2.5, 25.0])
    assert result.mean(lambda x: x[..., 0] > 2)[0].item() == pytest.approx(0.75)


def test_particles_may_be_a_tree() -> None:
    result = _run(torch.tensor([[0.0, 1.0]]), {"x": torch.tensor([[[1, 2], [3, 4]]]), "name": "run"})
    assert result.best()["x"].tolist() == [[3, 4]]
    assert result.sample(3)["x"].shape == (1, 3, 2)
    assert result.mean(lambda state: state["x"][..., 0]).shape == (1,)
    with pytest.raises(TypeError, match=r"mean\(\) expected a tensor .* got a dict"):
        result.mean()


def test_wrong_inputs_are_refused() -> None:
    result = _run(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"n=0 is too small"):
        result.sample(0)
    with pytest.raises(ValueError, match=r"scores has shape \(2,\)"):
        result.best(torch.zeros(2))
    with pytest.raises(ValueError, match=r"expected a shape that begins with \(1, 2\), got \(2,\)"):
        result.mean(lambda x: x.flatten())


def test_rewards_rank_before_weights() -> None:
    result = replace(_run(torch.tensor([[0.0, 1.0, -INF]])), rewards=torch.tensor([[2.0, 1.0, 9.0]]))
    assert result.best_index().tolist() == [0] and result.best_index(torch.tensor([[0.0, 1.0, 5.0]])).tolist() == [1]


def test_least_ess_and_surviving_roots() -> None:
    first, second = torch.tensor([[0, 0, 2], [0, 1, 2]]), torch.tensor([[0, 1, 1], [2, 2, 2]])
    result = replace(
        _run(torch.zeros(2, 3)),
        ancestors=(first, None, second),
        ess=torch.tensor([[3.0, 2.0], [1.5, 2.5], [2.0, 3.0]], dtype=torch.float64),
    )
    assert result.min_ess.tolist() == [1.5, 2.0]
    assert result.unique_roots.tolist() == [1, 1]
    assert replace(result, ancestors=(first, None)).unique_roots.tolist() == [2, 3]
    stacked = replace(result, ancestors=torch.stack([first, torch.arange(3).expand(2, 3), second]))
    assert stacked.unique_roots.tolist() == [1, 1]
    dead = replace(result, ancestors=(first,), log_weights=torch.tensor([[0.0, 0.0, -INF], [0.0, -INF, -INF]]).double())
    assert dead.unique_roots.tolist() == [1, 1]  # the dead have no living descendant
    assert replace(result, ancestors=()).unique_roots.tolist() == [3, 3]


def test_a_record_is_json_and_shares_the_budget() -> None:
    spent = Budget(denoiser_calls=8, decodes=4, preview_decodes=6, reward_calls=2, seconds=3.0, peak_memory_bytes=5)
    result = replace(_run(torch.tensor([[0.0, -INF], [0.0, 0.0]])), budget=spent)
    record = json.loads(json.dumps(result.record(0), allow_nan=False))
    assert record["log_weights"] == [0.0, None] and record["best"] == 0 and record["rewards"] is None
    assert record["steps"] == [0] and record["min_ess"] == 1.0 and record["unique_roots"] == 1
    expected = {"denoiser_calls": 4, "gradient_calls": 0, "decodes": 2, "preview_decodes": 3, "reward_calls": 1}
    assert record["budget"] == {**expected, "latent_reward_calls": 0, "seconds": 1.5, "peak_memory_bytes": 5}


def test_a_result_moves_with_all_its_tensors() -> None:
    result = replace(_run(torch.zeros(1, 2), {"x": torch.zeros(1, 2)}), ancestors=(None, torch.zeros(1, 2).long()))
    moved = result.to("meta")
    assert {moved.samples["x"].device.type, moved.ess.device.type, moved.ancestors[1].device.type} == {"meta"}
    assert moved.ancestors[0] is None and moved.steps == (0,) and result.ess.device.type == "cpu"


def test_budgets_add_up() -> None:
    one = Budget(denoiser_calls=8, decodes=4, reward_calls=2, seconds=1.5, peak_memory_bytes=100)
    two = Budget(denoiser_calls=1, seconds=0.5, peak_memory_bytes=300)
    total = sum([one, two], Budget())
    assert total == Budget(denoiser_calls=9, decodes=4, reward_calls=2, seconds=2.0, peak_memory_bytes=300)
    with pytest.raises(ValueError, match=r"decodes=-1 is negative"):
        Budget(decodes=-1)


def test_numbers_for_json() -> None:
    values = torch.tensor([[1.5, INF], [-INF, NAN]])
    assert json_numbers(values) == [[1.5, None], [None, None]]
    assert json_numbers(torch.tensor(2.0)) == 2.0 and json_numbers(torch.tensor(NAN)) is None


def test_a_record_holds_the_row_of_its_group() -> None:
    result = replace(
        _run(torch.tensor([[0.0, -INF], [-1.0, 2.0]])),
        log_z=torch.tensor([-INF, 3.0]).double(),
        steps=(-1, 4),
        ess=torch.tensor([[2.0, 1.5], [1.0, 1.25]]).double(),
        ancestors=(torch.tensor([[0, 1], [1, 1]]), None),
        resampled=torch.tensor([[False, True], [False, False]]),
        degenerate=torch.tensor([True, False]),
        dropped=torch.tensor([4, 0]),
        rewards=torch.tensor([[1.0, 2.0], [3.0, NAN]]).double(),
    )
    spent = {"denoiser_calls": 0, "gradient_calls": 0, "decodes": 0, "preview_decodes": 0, "reward_calls": 0}
    spent |= {"latent_reward_calls": 0, "seconds": 0.0, "peak_memory_bytes": 0}
    assert result.record(0) == {
        **{"log_weights": [0.0, None], "log_z": None, "steps": [-1, 4], "ess": [2.0, 1.0], "min_ess": 1.0},
        **{"resampled": [False, False], "unique_roots": 1, "degenerate": True, "dropped": 4, "best": 0},
        **{"rewards": [1.0, 2.0], "budget": spent},
    }
    assert result.record(1) == {
        **{"log_weights": [-1.0, 2.0], "log_z": 3.0, "steps": [-1, 4], "ess": [1.5, 1.25], "min_ess": 1.25},
        **{"resampled": [True, False], "unique_roots": 1, "degenerate": False, "dropped": 0, "best": 0},
        **{"rewards": [3.0, None], "budget": spent},
    }


def test_one_draw_by_weight_unless_told_otherwise() -> None:
    result = _run(torch.tensor([[-INF, 0.0]]))
    assert result.sample_index().tolist() == [[1]] and result.sample().tolist() == [[1.0]]
    assert torch.equal(result.sample_index(9), result.sample_index(9, seed=0))
    shape = (result.num_groups, result.num_particles, list(result.group_indices))
    assert shape == (1, 2, [0])


def test_systematic_draws_leave_as_few_copies_as_weights_allow() -> None:
    even = _run(torch.zeros(2, 50))
    assert torch.equal(even.sample_index(50, systematic=True).sort(dim=1).values, torch.arange(50).expand(2, 50))
    assert even.sample_index(50).unique().numel() < 50
    weights = torch.tensor([[0.5, 0.0, 0.22, 0.28, 0.0]], dtype=torch.float64)
    result = _run(weights.log())
    counts = torch.zeros(5)
    for seed in range(400):
        drawn = result.sample_index(7, seed=seed, systematic=True)
        found = drawn.flatten().bincount(minlength=5)
        assert bool((found >= (7 * weights[0]).floor()).all() and (found <= (7 * weights[0]).ceil()).all())
        counts += torch.nn.functional.one_hot(drawn[0, 2], 5)  # any single draw has the weights as its law
    assert bool(((counts / 400 - weights[0]).abs() <= 4 * (weights[0] * (1 - weights[0]) / 400).sqrt()).all())

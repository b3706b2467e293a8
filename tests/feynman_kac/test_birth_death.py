"""The birth-death resampler: exact mean counts, survivors in place, and no floor under dead particles."""

import pytest
import torch

from fklit.feynman_kac import DegenerateGroupError, birth_death, group_generators
from fklit.feynman_kac.resampling import get_resampler


def counts_of(log_weights: torch.Tensor, seed: int = 0) -> torch.Tensor:
    ancestors = birth_death(log_weights, torch.Generator().manual_seed(seed))
    return torch.zeros_like(ancestors).scatter_add(1, ancestors, torch.ones_like(ancestors))


def test_mean_counts_are_the_weights():
    log_weights = torch.tensor([0.0, 1.0, -1.0, -torch.inf, 0.3, 2.0], dtype=torch.float64)
    draws = 100_000
    counts = counts_of(log_weights.expand(draws, 6)).double()
    wanted = 6 * torch.softmax(log_weights, dim=0)
    error = counts.std(dim=0) / draws**0.5
    assert ((counts.mean(dim=0) - wanted).abs() <= 4.5 * error + 1e-12).all()
    assert (counts[:, 3] == 0).all()


def test_survivors_stay_in_place_and_equal_weights_move_nobody():
    log_weights = torch.randn(50, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ancestors = birth_death(log_weights, torch.Generator().manual_seed(2))
    moved = ancestors != torch.arange(32)
    excess = torch.softmax(log_weights, dim=1) * 32 - 1
    assert (excess[moved] < 0).all()
    assert (excess.gather(1, ancestors)[moved] > 0).all()
    equal = birth_death(torch.full((3, 49), 1.7, dtype=torch.float64), torch.Generator().manual_seed(3))
    assert torch.equal(equal, torch.arange(49).expand(3, 49))


@pytest.mark.parametrize("index", [0, 100_000, 199_999])
def test_a_dominant_particle_takes_all_at_any_index(index):
    log_weights = torch.full((1, 200_000), -50.0, dtype=torch.float64)
    log_weights[0, index] = 0.0
    assert counts_of(log_weights)[0, index] >= 0.9999 * 200_000


def test_groups_draw_for_themselves():
    log_weights = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = birth_death(log_weights, group_generators(0, 3))
    alone = birth_death(log_weights[1:2], group_generators(0, [1]))
    assert torch.equal(together[1:2], alone)


def test_it_has_a_name_and_refuses_dead_groups():
    assert get_resampler("birth_death") is birth_death
    with pytest.raises(DegenerateGroupError):
        birth_death(torch.full((1, 4), -torch.inf, dtype=torch.float64))

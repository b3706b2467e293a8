"""The learning-rate schedule: a warm-up without a lost step, and diffusers' cosine."""

import pytest
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup

from fklit.learning_rate import warmup_cosine


def rates(make, warmup_steps, total_steps, *, number):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = make(optimizer, warmup_steps, total_steps)
    found = []
    for _ in range(number):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_rises_linearly_and_falls_to_zero_and_stays_there():
    found = rates(warmup_cosine, 4, 12, number=15)
    assert found[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert found[8] == pytest.approx(1.0, abs=1e-12) and found[12:] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(0, 7), (3, 20), (4, 4), (5, 3)])
def test_the_cosine_is_that_of_diffusers_and_the_warm_up_one_step_ahead(warmup_steps, total_steps):
    ours = rates(warmup_cosine, warmup_steps, total_steps, number=total_steps + 1)
    theirs = rates(get_cosine_schedule_with_warmup, warmup_steps, total_steps, number=total_steps + 2)
    assert ours[warmup_steps:] == theirs[warmup_steps:-1]
    assert ours[:warmup_steps] == theirs[1 : warmup_steps + 1][: len(ours)]

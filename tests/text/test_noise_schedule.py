"""Noise schedules: ends, derivatives by autograd, and steps that compose."""

import math

import pytest
import torch

from fklit.text import CosineSchedule, LogLinearSchedule

SCHEDULES = [LogLinearSchedule(), CosineSchedule()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
class TestSchedule:
    def test_falls_from_one_to_zero(self, schedule):
        alpha = schedule.alpha(torch.linspace(0, 1, 101, dtype=torch.float64))
        assert abs(alpha[0] - 1) < 1e-15 and abs(alpha[-1]) < 1e-15
        assert (alpha.diff() < 0).all()

    def test_rate_is_the_derivative(self, schedule):
        t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64, requires_grad=True)
        (rate,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
        with torch.no_grad():
            # autograd gives zeros where alpha is linear in t by a constant slope: compare values
            torch.testing.assert_close(schedule.alpha_rate(t), rate, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(schedule.weight(t), -rate / (1 - schedule.alpha(t)), rtol=1e-12, atol=0)

    def test_weight_is_the_rate_of_unmasking(self, schedule):
        t, small = 0.6, 1e-7
        rate = schedule.unmask_probability(t, t - small) / small
        assert math.isclose(rate, float(schedule.weight(torch.tensor(t, dtype=torch.float64))), rel_tol=1e-5)

    def test_steps_compose(self, schedule):
        once = schedule.unmask_probability(0.9, 0.2)
        twice = 1 - (1 - schedule.unmask_probability(0.9, 0.5)) * (1 - schedule.unmask_probability(0.5, 0.2))
        assert math.isclose(once, twice, rel_tol=1e-12)
        assert schedule.unmask_probability(0.3, 0.0) == 1.0

    @pytest.mark.parametrize(("t", "s"), [(0.2, 0.5), (0.5, 0.5), (1.2, 0.1), (0.5, -0.1)])
    def test_times_in_the_wrong_order_are_refused(self, schedule, t, s):
        with pytest.raises(ValueError, match="expected 0 <= s < t <= 1"):
            schedule.unmask_probability(t, s)


def test_log_linear_weight_is_one_over_t():
    t = torch.tensor([0.25, 1.0], dtype=torch.float64)
    assert LogLinearSchedule().weight(t).tolist() == [4.0, 1.0]

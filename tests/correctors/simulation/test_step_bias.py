"""The step bias of log Z against the truth."""

import pytest
import torch
from mixtures import experts, truth

from fklit.correctors import ExactRatio, FittedControl, LinearFlow, Target, step_bias

FIRST, SECOND, _ = experts()
FLOW = experts(LinearFlow(stop=0.002))[0]


def test_halving_the_steps_finds_the_bias() -> None:
    """Against quadrature; log Z is off by -0.061, -0.034, -0.021, -0.010 at 20, 40, 80, 160 steps: first order."""
    target = Target.annealed(FLOW, 1.7)
    settings = {"num_particles": 1000, "num_groups": 16, "control": FittedControl(), "ess_threshold": 0.5}
    found = step_bias(target, num_steps=40, dtype=torch.float64, **settings)
    exact = truth(target, 0.002).log_z
    bias = float(found.result.log_z.mean()) - exact
    assert bias < -5 * found.error  # there is something to find
    assert found.bias == pytest.approx(bias, rel=0.4)
    assert abs(found.log_z - exact) < 0.4 * abs(bias)
    assert not found.negligible()


def test_an_exact_ratio_has_none() -> None:
    target = Target.guided(SECOND, FIRST, 1.5)
    found = step_bias(target, num_particles=500, num_steps=40, increment=ExactRatio(), dtype=torch.float64)
    assert found.negligible(3.0) and abs(found.bias) < 4 * found.error


def test_what_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="an even number of at least 4 steps to halve, got 7"):
        step_bias(Target.annealed(FIRST, 1.0), num_particles=10, num_steps=7)
    with pytest.raises(ValueError, match="expected none of"):
        step_bias(Target.annealed(FIRST, 1.0), num_particles=10, generator=None)


@pytest.mark.slow
def test_the_flow_of_the_trial_is_not_called_negligible() -> None:
    target = Target.annealed(FLOW, 1.7)
    found = step_bias(target, num_particles=1000, num_steps=200, dtype=torch.float64)
    assert abs(float(found.result.log_z.mean()) - truth(target, 0.002).log_z) > 0.2
    assert not found.negligible()

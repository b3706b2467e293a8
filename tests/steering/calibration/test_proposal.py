"""Scales from budgets against closed forms, and steps from what scores tell."""

import itertools
import json
import math

import pytest
import torch

from fklit.steering.calibration import (
    Calibration,
    mean_effective,
    nats,
    propose,
    propose_steps,
    scale_for,
    step_figures,
    summarize,
    table,
)


def _made(*, correlations, num_steps=20, prompts=60, samples=400, std=0.5, seed=0, **more):
    """Gaussian rewards N(level of the prompt, std^2), and scores with given correlations at steps 0, 1, ..."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    part, level = draw(prompts, samples), draw(prompts, 1)
    scores = [level + std * (share * part + math.sqrt(1 - share**2) * draw(prompts, samples)) for share in correlations]
    return Calibration(
        scores=torch.stack(scores, dim=2),
        rewards=level + std * part,
        steps=range(len(correlations)),
        num_steps=num_steps,
        prompts=[str(number) for number in range(prompts)],
        **more,
    )


@pytest.fixture(scope="module")
def gaussian():
    return _made(correlations=[0.5])


@pytest.mark.parametrize("budget", [0.1, 0.5, 1.0])
def test_a_budget_in_nats_gives_the_scale_of_the_closed_form(gaussian, budget):
    """`N(m, s^2)` tilted by `exp(c r)` is `N(m + c s^2, s^2)`: `KL = (c s)^2 / 2`."""
    scale = scale_for(gaussian, nats_from_base=budget)
    assert scale * 0.5 == pytest.approx(math.sqrt(2 * budget), rel=0.05)
    assert nats(gaussian, scale) == pytest.approx(budget, abs=1e-9)
    assert nats(gaussian, 0.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_budget_in_effective_samples_gives_the_scale_of_the_closed_form(gaussian, share):
    """`ESS / n = exp(-(c s)^2)`."""
    scale = scale_for(gaussian, effective=400 * share)
    assert scale * 0.5 == pytest.approx(math.sqrt(-math.log(share)), rel=0.05)
    assert mean_effective(gaussian, scale) == pytest.approx(400 * share, rel=1e-9)


def test_more_than_the_samples_can_show_is_refused():
    made = _made(correlations=[0.5], samples=8)
    assert nats(made, math.inf) == pytest.approx(math.log(8), abs=1e-6)
    with pytest.raises(ValueError, match=r"nats_from_base between 0 and 2.08, as far as 8 samples .*, got 3"):
        scale_for(made, nats_from_base=3)
    with pytest.raises(ValueError, match=r"expected effective between 1 and 8, got 9"):
        scale_for(made, effective=9)
    for wrong in ({}, {"nats_from_base": 1.0, "effective": 2.0}):
        with pytest.raises(ValueError, match="expected one budget"):
            scale_for(made, **wrong)
    same = Calibration(
        scores=torch.zeros(2, 3, 1), rewards=torch.ones(2, 3), steps=[0], num_steps=2, prompts=["a", "b"]
    )
    with pytest.raises(ValueError, match="expected rewards that differ among the samples"):
        scale_for(same, nats_from_base=0.1)


def test_figures_of_gaussian_pairs():
    made = _made(correlations=[0.0, 0.5, 0.9])
    for found, share in zip(step_figures(made, 2.0), (0.0, 0.5, 0.9), strict=True):
        assert found.sd == pytest.approx(0.5, rel=0.02)
        assert found.rank_correlation == pytest.approx(6 / math.pi * math.asin(share / 2), abs=0.02)
        assert found.slope == pytest.approx(share, abs=0.02)
        assert found.ess_plain == pytest.approx(math.exp(-1.0), rel=0.1)  # (c s)^2 = 1, whatever the score tells
        assert found.curve.slope == pytest.approx(2 * share, abs=0.06)
        assert found.ess_calibrated == pytest.approx(math.exp(-(share**2)), rel=0.1)


def test_scores_go_from_the_first_telling_step_to_the_last_open_one():
    shares = [0.0, 0.0, 0.0, 0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.98, 0.99, 0.99]
    made = _made(correlations=shares, samples=16, num_steps=16, seed=1)
    steps = propose_steps(made)
    assert steps[0] == 4 and steps[-1] <= 11 and list(steps) == sorted(steps) and len(steps) == 7
    gaps = {b - a for a, b in itertools.pairwise(steps)}
    assert gaps <= {1, 2}
    cheap = _made(correlations=shares, samples=16, num_steps=16, score_seconds=1.0, denoiser_seconds=0.5)
    assert len(propose_steps(cheap, overhead=0.5)) == 4  # one score is 2 of 16 calls
    assert len(propose_steps(cheap, overhead=0.01)) == 3 and len(propose_steps(cheap, overhead=9)) == 9
    guided = _made(
        correlations=shares, samples=16, num_steps=16, score_seconds=1.0, denoiser_seconds=0.5, calls_per_step=2.0
    )
    assert len(propose_steps(guided, overhead=0.5)) == 8
    nothing = _made(correlations=[0.0, -0.5], num_steps=3)
    with pytest.raises(ValueError, match=r"expected scores on the way that say something .*potential='terminal'"):
        propose_steps(nothing)
    with pytest.raises(ValueError, match="expected overhead to be a finite number above 0, got 0"):
        propose(made, "best", overhead=0)


def test_proposals_for_the_goals():
    made = _made(correlations=[0.3, 0.6, 0.8], samples=8, score_seconds=1.0, denoiser_seconds=1.0)
    best, sample = propose(made, "best"), propose(made, "sample")
    assert best.nats == pytest.approx(0.8 * math.log(8), rel=0.05)
    assert sample.nats == pytest.approx(1.0, rel=0.05) and sample.reward_scale < best.reward_scale
    assert sample.effective == pytest.approx(mean_effective(made, sample.reward_scale))
    assert best.overhead == pytest.approx(len(best.reward_schedule.indices) / 20)
    assert propose(made, "sample", nats_from_base=0.2).nats == pytest.approx(0.2, rel=0.1)
    assert propose(made, "best", effective=6).effective == pytest.approx(6, rel=0.02)
    # Where most prompts are all alike, the goal's own scale stops at 5 and 16 standard deviations.
    alike = _made(correlations=[0.3, 0.6, 0.8], samples=8)
    alike.rewards[3:] = alike.rewards[3:, :1] + 1e-9 * alike.rewards[3:]
    std = alike.rewards.var(dim=1).mean().sqrt()
    assert propose(alike, "sample").reward_scale == pytest.approx(float(5 / std), rel=0.05)
    assert propose(alike, "best").reward_scale == pytest.approx(float(16 / std), rel=0.05)
    with pytest.raises(ValueError, match="goal='worst'"):
        propose(made, "worst")


def test_the_summary_is_json_and_a_table():
    made = _made(correlations=[0.3, 0.6], samples=8, score_seconds=1.0, denoiser_seconds=1.0)
    summary = summarize(made, [propose(made, "best"), propose(made, "sample")])
    assert json.loads(json.dumps(summary)) == summary
    lines = table(summary).splitlines()
    assert lines[0].startswith("60 prompts x 8 samples") and "a score costs 1.00 denoiser calls" in lines[0]
    assert lines[-1].startswith("goal sample: reward_scale ")
    assert len([line for line in lines if line.lstrip()[:1] in ("0", "1")]) == 2
    assert summarize(made, [], reward_scale=3.0)["reward_scale"] == 3.0

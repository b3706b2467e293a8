"""Early stop of scoring: fewer scores, the same target and an unbiased Z, against a Gaussian closed form."""

import math

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit
from fklit.feynman_kac import Adaptive, Linear, ParticleSystem, RewardPath, Schedule, get_potential
from fklit.pipelines.finite import NonFiniteError
from fklit.rewards.base import RewardError
from fklit.sampling.early_stop import EarlyStop
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.settings import ParticleSettings, RewardSettings

CENTER, SCALE, STEPS, GROUPS, PARTICLES = 1.0, 2.0, 6, 3000, 4


def _reward(x):
    return -((x.reshape(len(x), -1)[:, 0] - CENTER) ** 2) / 2


def _walk(threshold, *, potential="difference", tempering=None, seed=0):
    """FK steering of a random walk whose end is N(0, 1), with B independent groups."""
    settings = RewardSettings(
        reward=_reward,
        reward_scale=SCALE,
        potential=potential,
        reward_schedule=Schedule(indices=tuple(range(1, STEPS))),
        tempering=tempering,
        decode=lambda x: x,
        stop_scoring_above=threshold,
    )
    term = RewardTerm(None, [""] * GROUPS, settings, ParticleSettings(num_particles=PARTICLES))
    term.begin(STEPS)
    generator = torch.Generator().manual_seed(seed)
    system = ParticleSystem(GROUPS, PARTICLES, ess_threshold=0.7, generator=generator)
    x = torch.zeros(GROUPS, PARTICLES)
    for step in range(STEPS):
        if step in term.steps:
            rewards, _ = term.score(x.reshape(-1, 1, 1, 1), where="here")
            ancestors = system.update(term.update(rewards, system.log_weights))
            if ancestors is not None:
                term.path.select(ancestors)
                x = x.gather(1, ancestors)
        x = x + torch.randn(x.shape, generator=generator) / math.sqrt(STEPS)
    _, log_potential = term.close(x.reshape(-1, 1, 1, 1), torch.zeros(x.numel(), dtype=torch.bool))
    system.update(log_potential, may_resample=False)
    return term, system, x.double()


@pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")
@pytest.mark.parametrize("threshold", [None, -0.5, -0.1])
@pytest.mark.parametrize(
    ("potential", "tempering"),
    [("difference", None), ("max", None), ("sum", Linear()), ("difference", Linear()), ("difference", Adaptive(0.8))],
)
def test_target_and_z_are_those_of_the_closed_form(threshold, potential, tempering):
    term, system, x = _walk(threshold, potential=potential, tempering=tempering)
    # N(0, 1) tilted by exp(-s (x - c)^2 / 2): Gaussian conjugacy
    z = math.exp(-SCALE * CENTER**2 / (2 * (1 + SCALE))) / math.sqrt(1 + SCALE)
    mean = SCALE * CENTER / (1 + SCALE)
    second = mean**2 + 1 / (1 + SCALE)
    weights = system.log_weights.exp() / PARTICLES  # unnormalized: exp(log_z) in sum, so both means are unbiased
    for values, expected in ((1.0, z), (x, z * mean), (x**2, z * second)):
        found = (weights * values).sum(dim=1)
        error = float(found.std()) / math.sqrt(GROUPS)
        assert abs(float(found.mean()) - expected) < 4 * error, (float(found.mean()), expected, error)
    most = GROUPS * PARTICLES * STEPS
    assert term.reward_calls == most if threshold is None else term.reward_calls < most
    assert term.reward_calls == PARTICLES * (GROUPS + sum(int(row.sum()) for row in term.scored))


def test_a_lower_threshold_scores_less():
    calls = [_walk(threshold)[0].reward_calls for threshold in (None, -0.1, -0.5)]
    assert calls[0] > calls[1] > calls[2]


def test_all_above_or_twice_alike_stops():
    stop = EarlyStop(0.5, 5)
    living = torch.ones(5, 2, dtype=torch.bool)
    living[4, 1] = False
    stop.see(torch.tensor([[0.6, 0.7], [0.5, 0.9], [0.1, 0.1], [0.2, 0.3], [0.8, 0.0]]).double(), living)
    assert stop.active.tolist() == [False, True, True, True, False], "dead particles have no say"
    stop.see(torch.tensor([[0.0, 0.0], [0.4, 0.4], [0.3, 0.3], [0.2, 0.1], [0.0, 0.0]]).double(), living)
    assert stop.active.tolist() == [False, True, False, True, False], "alike at two scores in a row; once is no law"
    flat = EarlyStop(math.inf, 1)
    for expected in (True, False):
        flat.see(torch.tensor([[9.0, 9.0]]).double(), torch.ones(1, 2, dtype=torch.bool))
        assert flat.active.tolist() == [expected]
    never = EarlyStop(None, 1)
    never.see(torch.tensor([[9.0, 9.0]]).double(), torch.ones(1, 2, dtype=torch.bool))
    assert never.active.all()


@pytest.mark.parametrize("name", ["difference", "max", "sum", "max-statistic", "rt"])
@pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")
def test_a_group_that_is_not_scored_keeps_its_history(name):
    both, alone = RewardPath(get_potential(name), 2, 2), RewardPath(get_potential(name), 1, 2)
    rewards = [torch.tensor([[0.1, 0.5], [0.2, -0.4]]), torch.tensor([[0.6, 0.3], [9.0, 9.0]])]
    for path, rows in ((both, slice(None)), (alone, slice(0, 1))):
        path.update(rewards[0][rows], 2.0)
    found = both.update(rewards[1], 3.0, scored=torch.tensor([True, False]))
    assert torch.equal(found[:1], alone.update(rewards[1][:1], 3.0)) and found[1].tolist() == [0.0, 0.0]
    end = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    closed = both.terminal(end, 3.0)
    assert torch.equal(closed[:1], alone.terminal(end[:1], 3.0))
    torch.testing.assert_close(closed[1], 3.0 * end[1].double() - 2.0 * rewards[0][1].double())
    with pytest.raises(ValueError, match="every group at the first score"):
        RewardPath(get_potential(name), 2, 2).update(end, 1.0, scored=torch.tensor([True, False]))


def test_a_pipeline_scores_the_other_prompts_only():
    """What is scored is the same bits as without a stop; the rest is NaN, counted to the prompts that spent it."""
    pipeline = tiny_stable_diffusion()

    def reward(images, prompts):
        return torch.tensor([1.0 if prompt == "easy" else 0.0 for prompt in prompts]) + 5 * images.mean((1, 2, 3))

    options = {
        **{"reward": reward, "reward_scale": 1.0, "num_particles": 2, "max_batch": 2, "decode_batch": 2},
        **{"reward_schedule": Schedule(indices=(1, 2, 3)), "ess_threshold": 0.0, "scheduler": "keep"},
        **{"pipeline_kwargs": {"num_inference_steps": 5, "guidance_scale": 1.0, "eta": 1.0}},
    }
    prompts = ["a", "easy", "b"]
    every = fklit.steer(pipeline, prompts, **options)
    assert every.scored.all() and every.record(1)["budget"]["reward_calls"] == 8
    limit = float(every.reward_path[:, [0, 2]].max()) + 0.01
    assert float(every.reward_path[:, 1].min()) > limit
    some = fklit.steer(pipeline, prompts, stop_scoring_above=limit, **options)
    assert some.scored.tolist() == [[True] * 3, [True, False, True], [True, False, True]]
    assert torch.equal(some.reward_path[:, [0, 2]], every.reward_path[:, [0, 2]])
    assert torch.isnan(some.reward_path[1:, 1]).all() and torch.equal(some.reward_path[0], every.reward_path[0])
    assert torch.equal(some.samples, every.samples) and torch.equal(some.log_weights, every.log_weights)
    torch.testing.assert_close(some.log_z, every.log_z)
    assert (
        (every.budget.reward_calls, some.budget.reward_calls) == (24, 20) == (every.budget.decodes, some.budget.decodes)
    )
    assert [some.record(b)["budget"]["reward_calls"] for b in range(3)] == [8, 4, 8]
    assert [some.record(b)["budget"]["decodes"] for b in range(3)] == [8, 4, 8]
    assert torch.equal(some.previews[:, 0], every.previews[:, 0]) and not some.previews[1:, 1].any()
    assert some.record(1)["reward_path"][1] == [None, None] and some.record(1)["stop_scoring_above"] == limit
    none = fklit.steer(pipeline, prompts, stop_scoring_above=-100, **options)
    assert none.budget.reward_calls == 12 and none.scored.sum() == 3, "nobody is scored after the first"
    torch.testing.assert_close(none.log_z, every.log_z)


def test_errors_name_the_prompt_that_is_scored():
    settings = RewardSettings(
        reward=lambda images: images[:, 0, 0, 0],
        reward_scale=1.0,
        decode=lambda x: x,
        reward_schedule=Schedule(indices=(0, 1)),
        stop_scoring_above=0.5,
    )
    for wrong, error in ((math.nan, NonFiniteError), (None, RewardError)):
        term = RewardTerm(None, ["a", "b"], settings, ParticleSettings(num_particles=2))
        term.begin(3)
        latents = torch.tensor([0.9, 0.9, 0.1, 0.2]).reshape(4, 1, 1, 1)
        term.update(term.score(latents, where="at step 0")[0], torch.zeros(2, 2).double())
        latents[3] = 0.3 if wrong is None else wrong
        if wrong is None:
            term.reward.score = lambda images, prompts, metadata=None: torch.tensor([0.1, math.nan])
        with pytest.raises(error, match="particle 1 of prompt 'b'"):
            term.score(latents, where="at step 1")


def test_the_threshold_is_a_number():
    for wrong in ("high", math.nan, True):
        with pytest.raises(ValueError, match="stop_scoring_above expected a reward"):
            RewardSettings(reward=len, stop_scoring_above=wrong)
    assert RewardSettings(reward=len, stop_scoring_above=1).stop_scoring_above == 1.0

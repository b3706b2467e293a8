"""Prompts that go on as one particle: the same target and an unbiased Z, and one row of the denoiser."""

import math

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit
from fklit.feynman_kac import ParticleSystem, Schedule
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.settings import ParticleSettings, RewardSettings
from fklit.steering.gradient_proposal import GradientProposal
from fklit.steering.search import SVDD
from fklit.steering.settings import SteeringSettings

CENTER, SCALE, STEPS, GROUPS, PARTICLES = 1.0, 2.0, 6, 6000, 4


def _reward(x):
    return -((x.reshape(len(x), -1)[:, 0] - CENTER) ** 2) / 2


@pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")
@pytest.mark.parametrize("potential", ["difference", "max", "sum"])
@pytest.mark.parametrize("limit", [-0.6, -0.3])
def test_target_and_z_are_those_of_the_closed_form(limit, potential):
    """A random walk whose end is N(0, 1); groups above the limit move as one particle."""
    settings = RewardSettings(
        reward=_reward,
        reward_scale=SCALE,
        potential=potential,
        reward_schedule=Schedule(indices=tuple(range(1, STEPS))),
        decode=lambda x: x,
    )
    term = RewardTerm(None, [""] * GROUPS, settings, ParticleSettings(num_particles=PARTICLES))
    term.begin(STEPS)
    generator = torch.Generator().manual_seed(0)
    system = ParticleSystem(GROUPS, PARTICLES, ess_threshold=0.7, generator=generator)
    x, single = torch.zeros(GROUPS, PARTICLES), torch.zeros(GROUPS, dtype=torch.bool)
    for step in range(STEPS):
        if step in term.steps:
            rewards, _ = term.score(x.reshape(-1, 1, 1, 1), where="here")
            as_one = (rewards > limit).all(dim=1) & ~single
            ancestors = system.update(term.update(rewards, system.log_weights), as_one=as_one)
            single |= as_one
            term.stop_scoring(as_one)
            if ancestors is not None:
                term.path.select(ancestors)
                x = x.gather(1, ancestors)
        noise = torch.randn(x.shape, generator=generator)
        x = x + torch.where(single.unsqueeze(1), noise[:, :1], noise) / math.sqrt(STEPS)
    _, log_potential = term.close(x.reshape(-1, 1, 1, 1), torch.zeros(x.numel(), dtype=torch.bool))
    system.update(log_potential, may_resample=False)
    assert 0.05 < float(single.double().mean()) < 0.95 and bool((x[single] == x[single][:, :1]).all())
    # N(0, 1) tilted by exp(-s (x - c)^2 / 2): Gaussian conjugacy
    z = math.exp(-SCALE * CENTER**2 / (2 * (1 + SCALE))) / math.sqrt(1 + SCALE)
    mean = SCALE * CENTER / (1 + SCALE)
    second = mean**2 + 1 / (1 + SCALE)
    weights, x = system.log_weights.exp() / PARTICLES, x.double()
    for values, expected in ((1.0, z), (x, z * mean), (x**2, z * second)):
        found = (weights * values).sum(dim=1)
        error = float(found.std()) / math.sqrt(GROUPS)
        assert abs(float(found.mean()) - expected) < 4 * error, (float(found.mean()), expected, error)


def test_one_ancestor_is_drawn_by_weight_and_log_z_stays():
    generator = torch.Generator().manual_seed(1)
    system = ParticleSystem(20_000, 3, ess_threshold=0.5, generator=generator)
    potential = torch.tensor([[0.5, -math.inf, 1.5]]).double().expand(20_000, 3)
    as_one = torch.arange(20_000) % 2 == 0
    ancestors = system.update(potential, may_resample=False, as_one=as_one)
    one, others = ancestors[as_one], ancestors[~as_one]
    assert bool((one == one[:, :1]).all()) and bool((others == torch.arange(3)).all())
    share = 1 / (1 + math.exp(-1.0))
    found = float((one[:, 0] == 2).double().mean())
    assert not bool((one == 1).any()) and abs(found - share) < 4 * math.sqrt(share * (1 - share) / 10_000)
    log_z = math.log((math.exp(0.5) + math.exp(1.5)) / 3)
    torch.testing.assert_close(system.log_z, torch.full((20_000,), log_z, dtype=torch.float64))
    torch.testing.assert_close(system.log_weights[as_one], torch.full((10_000, 3), log_z, dtype=torch.float64))
    assert torch.equal(system.log_weights[~as_one], potential[~as_one]) and torch.equal(system.resampled, as_one)


def _brightness(images, prompts):
    return torch.tensor([1.0 if prompt == "easy" else 0.0 for prompt in prompts]) + 5 * images.mean((1, 2, 3))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_prompt_goes_on_as_the_particle_of_its_ancestor(guidance):
    """The pipeline takes the steps that it would take if every slot had been resampled to that ancestor."""
    pipeline, prompts = tiny_stable_diffusion(), ["a", "easy", "b"]
    options = {
        **{"reward": _brightness, "reward_scale": 1e5, "num_particles": 3, "max_batch": 1, "scheduler": "keep"},
        **{"reward_schedule": Schedule(indices=(1, 3)), "ess_threshold": 1.0, "previews": False},
        **{"pipeline_kwargs": {"num_inference_steps": 5, "guidance_scale": guidance, "eta": 1.0}},
    }
    # At this scale the best particle has all the weight, so that plain resampling puts it into every slot as well.
    plain = fklit.steer(pipeline, prompts, **options | {"reward_schedule": Schedule(indices=(1,))})
    limit = float(plain.reward_path[0, [0, 2]].max()) + 0.01
    assert float(plain.reward_path[0, 1].min()) > limit
    found = fklit.steer(pipeline, prompts, one_particle_above=limit, **options)
    assert found.one_particle_from.tolist() == [-1, 1, -1]
    assert torch.equal(found.ancestors[0], plain.ancestors[0]) and len(set(found.ancestors[0, 1].tolist())) == 1
    assert torch.equal(found.samples[1], plain.samples[1, :1].expand(3, -1, -1, -1))
    assert torch.isnan(found.reward_path[1, 1]).all() and found.unique_roots[1] == 1
    assert len(set(found.log_weights[1].tolist())) == 1
    # Steps 0 and 1 were evaluated for all nine, the other three for seven.
    rows = 1 if guidance == 1 else 2
    assert found.budget.denoiser_calls == rows * (2 * 9 + 3 * 7)
    assert [found.record(b)["budget"]["denoiser_calls"] for b in range(3)] == [rows * 15, rows * 9, rows * 15]
    assert [found.record(b)["one_particle_from"] for b in range(3)] == [None, 1, None]
    assert found.record(0)["one_particle_above"] == limit and plain.record(0)["one_particle_above"] is None
    # Of the others nothing has changed.
    every = fklit.steer(pipeline, prompts, **options)
    assert torch.equal(found.samples[[0, 2]], every.samples[[0, 2]]) and every.one_particle_from is None


def test_it_is_a_number_and_goes_with_settings_that_it_can_keep():
    for wrong in ("high", math.nan, True):
        with pytest.raises(ValueError, match="one_particle_above expected a reward"):
            SteeringSettings(reward=len, one_particle_above=wrong)
    with pytest.raises(ValueError, match=r"does not go with ess_threshold=0\.0, 0 never resamples"):
        SteeringSettings(reward=len, one_particle_above=1, ess_threshold=0.0)
    with pytest.raises(ValueError, match="does not go with proposal="):
        SteeringSettings(reward=len, one_particle_above=1, proposal=GradientProposal())
    with pytest.raises(ValueError, match="search=SVDD expected one_particle_above=None"):
        SteeringSettings(reward=len, one_particle_above=1, search=SVDD(children=2), num_particles=2)
    assert SteeringSettings(reward=len, one_particle_above=1).one_particle_above == 1.0

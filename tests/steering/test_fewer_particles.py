"""Prompts that go on with fewer particles: the same target and an unbiased Z, and fewer rows of the denoiser."""

import math

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit
from fklit.feynman_kac import ParticleSystem, Schedule
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.settings import ParticleSettings, RewardSettings
from fklit.steering.fewer_particles import FewerParticles
from fklit.steering.gradient_proposal import GradientProposal
from fklit.steering.search import SVDD
from fklit.steering.settings import SteeringSettings

CENTER, SCALE, STEPS, GROUPS, PARTICLES = 1.0, 2.0, 6, 6000, 4


def _reward(x):
    return -((x.reshape(len(x), -1)[:, 0] - CENTER) ** 2) / 2


@pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")
@pytest.mark.parametrize("potential", ["difference", "max", "sum"])
@pytest.mark.parametrize(("limit", "number"), [(-0.6, 1), (-0.3, 1), (-0.6, 2), (-0.3, 2)])
def test_target_and_z_are_those_of_the_closed_form(limit, number, potential):
    """A random walk whose end is N(0, 1); groups above the limit move as one or two particles."""
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
    x, few = torch.zeros(GROUPS, PARTICLES), torch.zeros(GROUPS, dtype=torch.bool)
    copies = PARTICLES // number
    for step in range(STEPS):
        if step in term.steps:
            rewards, _ = term.score(x.reshape(-1, 1, 1, 1), where="here")
            reduced = (rewards > limit).all(dim=1) & ~few
            log_potential = term.update(rewards, system.log_weights)
            ancestors = system.update(log_potential, reduced=reduced, num_kept=number)
            few |= reduced
            term.stop_scoring(reduced)
            if ancestors is not None:
                term.path.select(ancestors)
                x = x.gather(1, ancestors)
        noise = torch.randn(x.shape, generator=generator)
        shared = noise[:, ::copies].repeat_interleave(copies, dim=1)
        x = x + torch.where(few.unsqueeze(1), shared, noise) / math.sqrt(STEPS)
    _, log_potential = term.close(x.reshape(-1, 1, 1, 1), torch.zeros(x.numel(), dtype=torch.bool))
    system.update(log_potential, may_resample=False)
    assert 0.05 < float(few.double().mean()) < 0.95
    assert bool((x[few] == x[few][:, ::copies].repeat_interleave(copies, dim=1)).all())
    # N(0, 1) tilted by exp(-s (x - c)^2 / 2): Gaussian conjugacy
    z = math.exp(-SCALE * CENTER**2 / (2 * (1 + SCALE))) / math.sqrt(1 + SCALE)
    mean = SCALE * CENTER / (1 + SCALE)
    second = mean**2 + 1 / (1 + SCALE)
    weights, x = system.log_weights.exp() / PARTICLES, x.double()
    for values, expected in ((1.0, z), (x, z * mean), (x**2, z * second)):
        found = (weights * values).sum(dim=1)
        error = float(found.std()) / math.sqrt(GROUPS)
        assert abs(float(found.mean()) - expected) < 4 * error, (float(found.mean()), expected, error)


@pytest.mark.parametrize("number", [1, 2])
def test_a_few_ancestors_are_drawn_by_weight_and_log_z_stays(number):
    groups, generator = 20_000, torch.Generator().manual_seed(1)
    system = ParticleSystem(groups, 4, ess_threshold=0.5, generator=generator)
    potential = torch.tensor([[0.5, -math.inf, 1.5, 0.0]]).double().expand(groups, 4)
    reduced = torch.arange(groups) % 2 == 0
    ancestors = system.update(potential, may_resample=False, reduced=reduced, num_kept=number)
    few, others = ancestors[reduced], ancestors[~reduced]
    copies = 4 // number
    assert bool((few == few[:, ::copies].repeat_interleave(copies, dim=1)).all())
    assert bool((others == torch.arange(4)).all())
    weights = torch.softmax(potential[0], dim=0)
    for slot in range(4):
        shares = (few == slot).double().mean(dim=1)  # over the slots of each group
        error = float(shares.std()) / math.sqrt(groups / 2)
        assert abs(float(shares.mean() - weights[slot])) <= 4 * error, slot
    log_z = float(torch.logsumexp(potential[0], dim=0)) - math.log(4)
    torch.testing.assert_close(system.log_z, torch.full((groups,), log_z, dtype=torch.float64))
    torch.testing.assert_close(system.log_weights[reduced], torch.full((groups // 2, 4), log_z, dtype=torch.float64))
    assert torch.equal(system.log_weights[~reduced], potential[~reduced]) and torch.equal(system.resampled, reduced)


def test_particles_that_are_kept_divide_the_group():
    system = ParticleSystem(1, 4)
    with pytest.raises(ValueError, match="expected num_kept to divide 4 particles, got 3"):
        system.update(torch.zeros(1, 4), reduced=torch.tensor([True]), num_kept=3)


def _brightness(images, prompts):
    return torch.tensor([1.0 if prompt == "easy" else 0.0 for prompt in prompts]) + 5 * images.mean((1, 2, 3))


@pytest.mark.parametrize(("guidance", "number"), [(1.0, 1), (1.0, 2), (3.0, 1), (3.0, 2)])
def test_a_prompt_goes_on_with_the_particles_of_its_ancestors(guidance, number):
    """The pipeline takes the steps that it would take if every slot had been resampled to that ancestor."""
    pipeline, prompts = tiny_stable_diffusion(), ["a", "easy", "b"]
    options = {
        **{"reward": _brightness, "reward_scale": 1e5, "num_particles": 4, "max_batch": 1, "scheduler": "keep"},
        **{"reward_schedule": Schedule(indices=(1, 3)), "ess_threshold": 1.0, "previews": False},
        **{"pipeline_kwargs": {"num_inference_steps": 5, "guidance_scale": guidance, "eta": 1.0}},
    }
    # At this scale the best particle has all the weight, so that plain resampling puts it into every slot as well.
    plain = fklit.steer(pipeline, prompts, **options | {"reward_schedule": Schedule(indices=(1,))})
    limit = float(plain.reward_path[0, [0, 2]].max()) + 0.01
    assert float(plain.reward_path[0, 1].min()) > limit
    fewer = FewerParticles(above=limit, number=number)
    found = fklit.steer(pipeline, prompts, fewer_particles=fewer, **options)
    assert found.fewer_particles_from.tolist() == [-1, 1, -1]
    assert torch.equal(found.ancestors[0], plain.ancestors[0]) and len(set(found.ancestors[0, 1].tolist())) == 1
    copies = 4 // number
    assert torch.equal(found.samples[1], plain.samples[1, ::copies].repeat_interleave(copies, dim=0))
    assert torch.isnan(found.reward_path[1, 1]).all() and found.unique_roots[1] == 1
    assert len(set(found.log_weights[1].tolist())) <= number
    # Steps 0 and 1 were evaluated for all twelve, the other three for eight and these.
    rows = 1 if guidance == 1 else 2
    assert found.budget.denoiser_calls == rows * (2 * 12 + 3 * (8 + number))
    shares = [found.record(b)["budget"]["denoiser_calls"] for b in range(3)]
    assert shares == [rows * 20, rows * (8 + 3 * number), rows * 20]
    assert [found.record(b)["fewer_particles_from"] for b in range(3)] == [None, 1, None]
    assert found.record(0)["fewer_particles"] == repr(fewer) and plain.record(0)["fewer_particles"] is None
    # Of the others nothing has changed.
    every = fklit.steer(pipeline, prompts, **options)
    assert torch.equal(found.samples[[0, 2]], every.samples[[0, 2]]) and every.fewer_particles_from is None


def test_it_goes_with_settings_that_it_can_keep():
    for wrong in ("high", math.nan, True):
        with pytest.raises(ValueError, match="above expected a reward"):
            FewerParticles(above=wrong)
    with pytest.raises(ValueError, match="number"):
        FewerParticles(above=0.0, number=0)
    fewer = FewerParticles(above=1)
    assert fewer == FewerParticles(above=1.0, number=1)
    with pytest.raises(TypeError, match="fewer_particles expected a FewerParticles, got a float"):
        SteeringSettings(reward=len, fewer_particles=1.0)
    with pytest.raises(ValueError, match=r"does not go with ess_threshold=0\.0, which never resamples"):
        SteeringSettings(reward=len, fewer_particles=fewer, ess_threshold=0.0)
    with pytest.raises(ValueError, match="does not go with num_particles=4, which 3 does not divide"):
        SteeringSettings(reward=len, fewer_particles=FewerParticles(above=0.0, number=3), num_particles=4)
    with pytest.raises(ValueError, match="does not go with proposal="):
        SteeringSettings(reward=len, fewer_particles=fewer, proposal=GradientProposal())
    with pytest.raises(ValueError, match="search=SVDD expected fewer_particles=None"):
        SteeringSettings(reward=len, fewer_particles=fewer, search=SVDD(children=2), num_particles=2)

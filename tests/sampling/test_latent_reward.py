"""Latent rewards in a run: nothing is decoded on the way, and the target is the closed form's."""

import math
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit
from fklit.feynman_kac import ParticleSystem, Schedule
from fklit.pipelines.step_call import StepCall
from fklit.rewards import LatentReward, RewardError
from fklit.sampling.reward_term import RewardTerm
from fklit.sampling.settings import ParticleSettings, RewardSettings

CENTER, SCALE, STEPS, GROUPS, PARTICLES = 1.0, 2.0, 6, 3000, 4


class Foresight(LatentReward):
    """`(1 / s) log E[exp(s r(x_T)) | x_t]` of the random walk below, in closed form; or without the spread to come."""

    def __init__(self, exact=True, until=1.0):
        super().__init__(until=until)
        self.exact = exact

    def score(self, latents, prompts, *, time):
        x = latents.flatten(1)[:, 0].double()
        left = time if self.exact else 0.0  # variance that is still to come
        found = -((x - CENTER) ** 2) / (2 * (1 + SCALE * left))
        return found - math.log(1 + SCALE * left) / (2 * SCALE)


def _walk(latent, seed=0):
    """FK steering of a random walk whose end is N(0, 1), with B independent groups."""
    settings = RewardSettings(
        reward=lambda x: -((x.reshape(len(x), -1)[:, 0] - CENTER) ** 2) / 2,
        reward_scale=SCALE,
        reward_schedule=Schedule(indices=tuple(range(1, STEPS))),
        decode=lambda x: x,
        latent_reward=latent,
    )
    term = RewardTerm(None, [""] * GROUPS, settings, ParticleSettings(num_particles=PARTICLES))
    term.begin(STEPS)
    generator = torch.Generator().manual_seed(seed)
    system = ParticleSystem(GROUPS, PARTICLES, ess_threshold=1.0, generator=generator)
    scheduler = SimpleNamespace(config={"num_train_timesteps": STEPS})
    x = torch.zeros(GROUPS, PARTICLES, dtype=torch.float64)
    for step in range(STEPS):
        if step in term.steps:
            latents = x.reshape(-1, 1, 1, 1)
            call = StepCall(step, STEPS, STEPS - step, latents, latents, scheduler)
            rewards, _ = term.score(latents, where="here", call=call)
            ancestors = system.update(term.update(rewards, system.log_weights))
            if ancestors is not None:
                term.path.select(ancestors)
                x = x.gather(1, ancestors)
        x = x + torch.randn(x.shape, generator=generator, dtype=torch.float64) / math.sqrt(STEPS)
    _, log_potential = term.close(x.reshape(-1, 1, 1, 1), torch.zeros(x.numel(), dtype=torch.bool))
    system.update(log_potential, may_resample=False)
    return term, system, x


@pytest.mark.parametrize(("exact", "until"), [(True, 1.0), (True, 0.5), (False, 1.0)])
def test_target_and_z_are_those_of_the_closed_form(exact, until):
    term, system, x = _walk(Foresight(exact, until))
    z = math.exp(-SCALE * CENTER**2 / (2 * (1 + SCALE))) / math.sqrt(1 + SCALE)
    mean = SCALE * CENTER / (1 + SCALE)
    weights = system.log_weights.exp() / PARTICLES
    for values, expected in ((1.0, z), (x, z * mean)):
        found = (weights * values).sum(dim=1)
        assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / math.sqrt(GROUPS)
    latent = 5 if until == 1 else 2  # steps 1 to 5, of which those before 3
    assert term.latent.steps == list(range(1, 1 + latent))
    assert term.latent.calls == latent * GROUPS * PARTICLES
    assert term.reward_calls == (6 - latent) * GROUPS * PARTICLES == term.decoder.decodes + GROUPS * PARTICLES


def test_a_conditional_mean_has_less_variance_than_the_reward_of_the_prediction():
    """What training aims at: the log of the mean of exp(scale r), given the state."""
    spread = [float(_walk(latent)[1].log_z.var()) for latent in (Foresight(True), Foresight(False), None)]
    assert spread[0] < 0.85 * spread[1] and spread[1] == pytest.approx(spread[2], rel=1e-6)


class FirstChannel(LatentReward):
    """Sees nothing but latents, prompts and the time."""

    def __init__(self, until=1.0, result=None):
        super().__init__(until=until)
        self.result, self.seen = result, []

    def score(self, latents, prompts, *, time):
        self.seen.append((tuple(latents.shape), list(prompts), time))
        return 0.1 * latents[:, 0].mean((1, 2)) if self.result is None else self.result

    def __repr__(self):
        return f"FirstChannel({self.until})"


def _steer(pipeline, latent, **options):
    given = {
        **{"reward": lambda images: 10 * images.mean((1, 2, 3)), "reward_scale": 2.0, "num_particles": 2},
        **{"reward_schedule": Schedule(indices=(1, 2, 3)), "scheduler": "keep"},
        **{"pipeline_kwargs": {"num_inference_steps": 5, "guidance_scale": 1.0, "eta": 1.0}},
        **options,
    }
    return fklit.steer(pipeline, ["a", "b"], latent_reward=latent, **given)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_stable_diffusion()


def test_alone_it_decodes_nothing_on_the_way(pipeline):
    latent = FirstChannel()
    result = _steer(pipeline, latent, ess_threshold=0.0)
    budget = result.budget
    assert (budget.decodes, budget.reward_calls, budget.latent_reward_calls) == (4, 4, 12)
    assert result.latent_steps == result.scored_steps == (1, 2, 3) and result.previews is None
    assert (
        result.record(0)["budget"]["latent_reward_calls"] == 6
        and result.settings["latent_reward"] == "FirstChannel(1.0)"
    )
    times = [float(t) / 1000 for t in pipeline.scheduler.timesteps[1:4]]
    assert latent.seen == [((4, 4, 8, 8), ["a", "a", "b", "b"], time) for time in times]
    torch.testing.assert_close(result.log_z, (2.0 * result.rewards).logsumexp(1) - math.log(2))
    base = _steer(pipeline, None, reward_scale=0.0)
    assert torch.equal(_steer(pipeline, latent, reward_scale=0.0).samples, base.samples)


def test_early_it_leaves_the_late_steps_to_decoded_scores(pipeline):
    result = _steer(pipeline, FirstChannel(until=0.4), ess_threshold=0.0)
    own = _steer(pipeline, None, ess_threshold=0.0)
    assert result.latent_steps == (1,)
    assert torch.equal(result.reward_path[1:], own.reward_path[1:]) and not torch.equal(
        result.reward_path, own.reward_path
    )
    assert torch.equal(result.previews[1:], own.previews[1:]) and not result.previews[0].any()
    assert (result.budget.decodes, result.budget.reward_calls, result.budget.latent_reward_calls) == (12, 12, 4)


def test_it_scores_the_prompts_that_are_still_scored(pipeline):
    latent = FirstChannel()
    result = _steer(pipeline, latent, stop_scoring_above=-1000, ess_threshold=0.0)
    assert result.budget.latent_reward_calls == 4 and result.scored.tolist() == [[True, True], [False] * 2, [False] * 2]
    assert [result.record(b)["budget"]["latent_reward_calls"] for b in range(2)] == [2, 2]


def test_what_is_no_score_is_refused(pipeline):
    for result, message in (
        (torch.zeros(3), r"at step 1 of 5: expected 4 score\(s\) from FirstChannel, got \(3,\)"),
        (torch.full((4,), math.nan), "at step 1 of 5: expected finite scores"),
    ):
        with pytest.raises(RewardError, match=message):
            _steer(pipeline, FirstChannel(result=result))
    for until in (0, 1.1, "half", math.nan):
        with pytest.raises(ValueError, match="until expected a share"):
            FirstChannel(until=until)
    with pytest.raises(TypeError, match="latent_reward expected a LatentReward, got a str"):
        _steer(pipeline, "fast")


def test_guidance_correction_takes_it_too(pipeline):
    result = fklit.correct(
        pipeline,
        ["a"],
        guidance_scale=2.0,
        reward=lambda images: 10 * images.mean((1, 2, 3)),
        reward_scale=1.0,
        reward_schedule=Schedule(indices=(1, 2)),
        latent_reward=FirstChannel(),
        num_particles=2,
        pipeline_kwargs={"num_inference_steps": 4, "eta": 1.0},
    )
    assert (result.budget.decodes, result.budget.latent_reward_calls) == (2, 4)


def test_yaml_takes_cheaper_scores_by_class_path():
    """As the command line builds a task: the settings of a run, and a module that follows to its device."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule

    from fklit.pipelines.fast_decoder import FastDecoder

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    settings = {
        "source": {"class_path": "fklit.PipelineSource", "init_args": {"path": "fklit:emoji_scenes"}},
        "reward": {"class_path": "fklit.rewards.ImageReward", "init_args": {"model_name": "fklit:emoji_reward"}},
        "preview_decoder": {
            "class_path": "fklit.pipelines.fast_decoder.FastDecoder",
            "init_args": {"dtype": "float32"},
        },
        "latent_reward": {"class_path": f"{__name__}.FirstChannel", "init_args": {"until": 0.5}},
        "stop_scoring_above": -0.1,
    }
    model = {"class_path": "fklit.steering.task.SteeringTask", "init_args": settings}
    task = parser.instantiate(parser.parse_object({"model": model})).model
    assert isinstance(task.sampling.preview_decoder, FastDecoder) and task.sampling.preview_decoder.dtype == "float32"
    assert task.latent_reward is task.sampling.latent_reward and task.latent_reward.until == 0.5
    assert task.sampling.stop_scoring_above == -0.1

"""The setting: bit equality with the plain score, what it costs, whom it concerns, what it refuses."""

import math

import pytest
import torch
from tiny import tiny_stable_diffusion
from tiny_flow import make as make_flow

import fklit
from fklit.feynman_kac import Schedule
from fklit.feynman_kac.soft_mean import soft_mean
from fklit.pipelines.fast_decoder import FastDecoder
from fklit.pipelines.finite import NonFiniteError
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.rewards import LatentReward, RewardError
from fklit.sampling.look_ahead import LookAhead
from fklit.steering.calibration import Calibrated
from fklit.steering.fewer_particles import FewerParticles
from fklit.steering.search import SVDD
from fklit.steering.settings import SteeringSettings

STEPS, PROMPTS = 6, ["a", "b", "c"]
SCHEDULE = Schedule(indices=(1, 3, 5))


def brightness(images):
    return 20 * images.mean((1, 2, 3))


@pytest.fixture(scope="module")
def pipeline():
    return tiny_stable_diffusion()


def _steer(pipeline, look=None, prompts=PROMPTS, *, guidance=3.0, **changes):
    settings = {
        **{"reward": brightness, "reward_scale": 2.0, "num_particles": 2, "scheduler": "keep"},
        **{"reward_schedule": SCHEDULE},
        "pipeline_kwargs": {"num_inference_steps": STEPS, "guidance_scale": guidance, "eta": 1.0},
    }
    return fklit.steer(pipeline, prompts, look_ahead=look, **settings | changes)


@pytest.mark.parametrize("max_batch", [None, 3])
def test_one_sample_of_one_step_is_the_plain_score_bit_for_bit(pipeline, max_batch):
    plain = _steer(pipeline, max_batch=max_batch)
    for eta in (0.0, 0.7, 1.0):
        same = _steer(pipeline, LookAhead(num_samples=1, num_steps=1, eta=eta), max_batch=max_batch)
        for name in ("samples", "log_weights", "log_z", "reward_path", "rewards", "ancestors", "previews"):
            assert torch.equal(getattr(plain, name), getattr(same, name)), name
        assert same.budget.denoiser_calls == plain.budget.denoiser_calls
        assert same.budget.reward_calls == plain.budget.reward_calls


def test_the_base_and_the_last_level_are_as_without(pipeline):
    plain, look = _steer(pipeline, ess_threshold=0.0), _steer(pipeline, LookAhead(num_samples=2), ess_threshold=0.0)
    assert torch.equal(plain.samples, look.samples) and torch.equal(plain.rewards, look.rewards)
    assert torch.equal(plain.log_weights, look.log_weights)  # the potentials close on the finished samples
    assert torch.equal(plain.reward_path[2], look.reward_path[2])  # step 5 of 6 has no level ahead
    assert (plain.reward_path[:2] != look.reward_path[:2]).all()
    base = _steer(pipeline, reward_scale=0.0)
    assert torch.equal(_steer(pipeline, LookAhead(num_samples=2), reward_scale=0.0).samples, base.samples)


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 1), (3.0, 2)])
def test_everything_is_counted(pipeline, guidance, rows):
    plain = _steer(pipeline, guidance=guidance)
    found = _steer(pipeline, LookAhead(num_samples=3, num_steps=3), guidance=guidance)
    # 6 particles; step 1 has 5 steps left, step 3 has 3 and step 5 has 1: two, two and no levels ahead.
    assert found.look_ahead_calls == (rows * 6 * 3 * 2, rows * 6 * 3 * 2, 0) and found.score_draws == (3, 3, 1)
    assert found.budget.denoiser_calls == plain.budget.denoiser_calls + 2 * rows * 6 * 3 * 2
    assert found.budget.reward_calls == found.budget.decodes == 6 * (3 + 3 + 1 + 1)
    assert found.previews.shape == plain.previews.shape
    look = "LookAhead(num_samples=3, num_steps=3, eta=1.0)"
    assert found.record(0)["look_ahead"] == look and plain.record(0)["look_ahead"] is None
    records = [found.record(b)["budget"] for b in range(3)]
    assert {record["denoiser_calls"] for record in records} == {found.budget.denoiser_calls // 3}
    few = _steer(pipeline, LookAhead(num_steps=100), guidance=guidance)
    assert few.look_ahead_calls == (rows * 6 * 4, rows * 6 * 2, 0)


def test_draws_belong_to_the_prompt(pipeline):
    """They do not depend on neighbors, on early stops of others, or on what else the run draws."""
    look = LookAhead(num_samples=2, num_steps=3)
    given = {"max_batch": 2, "decode_batch": 2, "ess_threshold": 0.0}
    every = _steer(pipeline, look, **given)
    alone = _steer(pipeline, look, ["b"], prompt_indices=[1], **given)
    assert torch.equal(alone.reward_path[:, 0], every.reward_path[:, 1])
    other = _steer(pipeline, look, seed=1, **given)
    assert not torch.equal(other.reward_path, every.reward_path)
    limit = float(every.reward_path[0, 1].min()) - 1e-6
    stopped = _steer(pipeline, look, stop_scoring_above=limit, **given)
    scored = stopped.scored
    assert scored[0].all() and not scored[1, 1] and scored[1].any(), "chosen so that some go on"
    assert torch.equal(stopped.reward_path[scored], every.reward_path[scored])
    assert stopped.reward_path[~scored].isnan().all()
    count = scored.sum(1).tolist()
    assert stopped.look_ahead_calls[:2] == tuple(2 * 2 * 2 * 2 * n for n in count[:2])
    records = [stopped.record(b)["budget"] for b in range(3)]
    for name in ("denoiser_calls", "reward_calls", "decodes"):
        assert sum(record[name] for record in records) == getattr(stopped.budget, name)
    own = 2 * 2 * STEPS
    assert records[1]["denoiser_calls"] == own + 16 and records[1]["reward_calls"] == 2 * (2 + 1)


def test_stopped_everywhere_nothing_is_spent(pipeline):
    found = _steer(pipeline, LookAhead(num_samples=2), stop_scoring_above=-1e9, ess_threshold=0.0)
    assert found.look_ahead_calls[1:] == (0, 0) and found.score_draws == (2, 0, 0)
    assert found.record(0)["budget"]["reward_calls"] == 2 * 3


def test_fewer_particles_and_their_shares(pipeline):
    """The pipeline's own calls by the particles that go on, those of the look-ahead by who was scored."""
    look, fewer = LookAhead(num_samples=2), FewerParticles(above=-1e9)
    found = _steer(pipeline, look, guidance=1.0, fewer_particles=fewer, ess_threshold=1.0)
    assert found.fewer_particles_from.tolist() == [1, 1, 1] and found.look_ahead_calls == (6 * 2, 0, 0)
    assert found.budget.denoiser_calls == 6 * 2 + 3 * (STEPS - 2) + 12
    assert [found.record(b)["budget"]["denoiser_calls"] for b in range(3)] == [4 + (STEPS - 2) + 4] * 3


def test_the_value_is_the_soft_mean_of_single_draws(pipeline, monkeypatch):
    seen = []

    def watch(rewards, scale):
        seen.append((rewards, scale))
        return soft_mean(rewards, scale)

    monkeypatch.setattr("fklit.sampling.look_ahead_scores.soft_mean", watch)
    found = _steer(pipeline, LookAhead(num_samples=3))
    assert [(tuple(rewards.shape), scale) for rewards, scale in seen] == [((3, 2, n), 2.0) for n in (3, 3, 1)]
    assert torch.equal(found.reward_path, torch.stack([soft_mean(*pair) for pair in seen]))
    assert found.reward_path.dtype == torch.float64 and float(seen[0][0].std(dim=2).min()) > 0
    one = _steer(pipeline, LookAhead(num_samples=1))
    torch.testing.assert_close(one.reward_path[0], seen[0][0][:, :, 0], rtol=0, atol=1e-12)


def test_dead_draws_count_for_nothing_and_dead_particles_die(pipeline):
    state = {"calls": 0, "bad": -math.inf}

    def reward(images):
        state["calls"] += 1
        found = brightness(images)
        if state["calls"] == 1:  # the first draw of the first score; the second is as it is
            found[:3] = state["bad"]
        return found

    given = {"max_batch": 6, "decode_batch": 6, "ess_threshold": 0.0}
    both = _steer(pipeline, LookAhead(num_samples=2), **given)
    found = _steer(pipeline, LookAhead(num_samples=2), reward=reward, **given)
    assert found.reward_path[0].isfinite().all() and torch.equal(found.reward_path[0].flatten()[3:],
                                                                 both.reward_path[0].flatten()[3:])  # fmt: skip
    assert (found.reward_path[0].flatten()[:3] != both.reward_path[0].flatten()[:3]).all()
    state.update(calls=0, bad=math.nan)
    with pytest.raises(
        RewardError, match=r"at step 1 of 6: expected finite scores of .*reward, got nan for particle 0"
    ):
        _steer(pipeline, LookAhead(num_samples=2), reward=reward, **given)
    state.update(calls=0)
    dropped = _steer(pipeline, LookAhead(num_samples=2), reward=reward, on_nan="drop", on_degenerate="keep", **given)
    assert dropped.reward_path[0].flatten()[:3].isnan().all() and dropped.dropped.tolist() == [2, 1, 0]
    state.update(calls=0, bad=-math.inf)
    single = _steer(pipeline, LookAhead(num_steps=2), reward=reward, on_degenerate="keep", **given)
    assert single.log_weights.flatten()[:3].tolist() == [-math.inf] * 3 or bool(single.degenerate[0])


def test_a_denoiser_that_fails_ahead_is_named(pipeline, monkeypatch):
    plain = pipeline.unet.forward

    def forward(sample, timestep, *args, **kwargs):
        found = plain(sample, timestep, *args, **kwargs)
        if float(timestep) < 600:
            found[0].fill_(math.nan)
        return found

    monkeypatch.setattr(pipeline.unet, "forward", forward)
    with pytest.raises(NonFiniteError, match=r"looking ahead at step 1 of 6 to timestep \d+ the denoiser \(UNet2D"):
        _steer(pipeline, LookAhead())


def test_a_preview_decoder_decodes_the_draws(pipeline):
    found = _steer(pipeline, LookAhead(num_samples=2), preview_decoder=FastDecoder("float32"))
    assert (found.budget.preview_decodes, found.budget.decodes) == (6 * (2 + 2 + 1), 6)
    full = _steer(pipeline, LookAhead(num_samples=2))
    torch.testing.assert_close(found.reward_path, full.reward_path, atol=1e-3, rtol=0)


def test_flow_matching_looks_ahead_too():
    pipeline, arguments = make_flow("sd3")
    given = {"pipeline_kwargs": {**arguments, "num_inference_steps": STEPS}, "scheduler": "auto"}
    with pytest.warns(fklit.pipelines.stochasticity.SchedulerSwapWarning):
        found = _steer(pipeline, LookAhead(num_samples=2, num_steps=2), **given)
    assert found.reward_path.isfinite().all() and found.look_ahead_calls == (2 * 6 * 2, 2 * 6 * 2, 0)


def test_numbers_out_of_range_are_refused():
    for wrong in ({"num_samples": 0}, {"num_steps": 0}, {"num_steps": 1.5}, {"eta": -0.1}, {"eta": 1.1},
                  {"eta": math.nan}, {"num_samples": True}):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
            LookAhead(**wrong)
    with pytest.raises(
        ValueError, match="expected num_samples=1 with num_steps=1, which draws no noise, got num_samples=2"
    ):
        LookAhead(num_samples=2, num_steps=1)
    with pytest.raises(ValueError, match="expected num_samples=1 with eta=0, which draws no noise, got num_samples=3"):
        LookAhead(num_samples=3, eta=0.0)
    assert LookAhead() == LookAhead(num_samples=1, num_steps=2, eta=1)


class Latent(LatentReward):
    def score(self, latents, prompts, *, time):
        return latents.flatten(1).mean(1)


def test_what_it_does_not_go_with_is_refused():
    look = LookAhead()
    with pytest.raises(TypeError, match="look_ahead expected a LookAhead, got a int; give one such as"):
        SteeringSettings(reward=len, look_ahead=2)
    with pytest.raises(ValueError, match="expected look_ahead=None with latent_reward="):
        SteeringSettings(reward=len, look_ahead=look, latent_reward=Latent())
    with pytest.raises(ValueError, match="which scores finished samples only, got LookAhead"):
        SteeringSettings(reward=len, look_ahead=look, potential="terminal")
    with pytest.raises(ValueError, match="search=SVDD expected look_ahead=None"):
        SteeringSettings(reward=len, look_ahead=look, search=SVDD(children=2), num_particles=2)
    with pytest.raises(TypeError, match="look_ahead"):
        fklit.correct(None, ["a"], guidance_scale=2.0, look_ahead=look)


def test_models_that_own_their_steps_have_draws_of_their_own():
    class Owner:
        def steering_model(self, prompts, settings):
            raise AssertionError

    with pytest.raises(ValueError, match="expected look_ahead=None, as Owner owns its steps, got LookAhead"):
        fklit.steer(Owner(), ["a"], reward=len, reward_scale=1.0, look_ahead=LookAhead())


def test_pipelines_it_cannot_look_ahead_with_are_refused(pipeline):
    import diffusers

    own = pipeline.scheduler
    try:
        pipeline.scheduler = diffusers.LCMScheduler.from_config(own.config)
        with pytest.raises(
            UnsupportedPipelineError, match=r"LCMScheduler samples by consistency.*or set look_ahead=None"
        ):
            _steer(pipeline, LookAhead())
        pipeline.scheduler = diffusers.KDPM2AncestralDiscreteScheduler.from_config(own.config)
        with pytest.raises(UnsupportedPipelineError, match="noise levels are known, got KDPM2Ancestral"):
            _steer(pipeline, LookAhead())
        half = {"num_inference_steps": 4, "guidance_scale": 1.0, "eta": 1.0}  # timesteps 750, 500, 250 and 0
        pipeline.scheduler = diffusers.DDIMScheduler.from_config(own.config, steps_offset=0)
        with pytest.raises(
            UnsupportedPipelineError, match="a first score away from timestep 500, half of those of train"
        ):
            _steer(pipeline, LookAhead(), pipeline_kwargs=half, reward_schedule=Schedule(indices=(1, 2)))
        early = _steer(pipeline, LookAhead(), pipeline_kwargs=half, reward_schedule=Schedule(indices=(0, 1)))
        assert early.look_ahead_calls == (6, 6)
        pipeline.scheduler = diffusers.KDPM2AncestralDiscreteScheduler.from_config(own.config)
        plain = _steer(pipeline, LookAhead(num_steps=1))  # which asks for no other level
        assert plain.budget.denoiser_calls == _steer(pipeline).budget.denoiser_calls
    finally:
        pipeline.scheduler = own
    rescaled = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "eta": 1.0, "guidance_rescale": 0.7}
    with pytest.raises(UnsupportedPipelineError, match="a linear combination of what the denoiser"):
        _steer(pipeline, LookAhead(), pipeline_kwargs=rescaled)


def test_a_calibration_belongs_to_the_look_ahead(pipeline):
    look, scale = LookAhead(num_samples=2), 2.0
    call = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "eta": 1.0}
    run = {"reward": brightness, "scheduler": "keep", "pipeline_kwargs": call}
    made = {
        name: fklit.calibrate(
            pipeline, PROMPTS, num_samples=4, schedule=SCHEDULE, reward_scale=scale, look_ahead=given, **run
        )
        for name, given in (("plain", None), ("look", look))
    }
    assert made["look"].run["look_ahead"] == repr(look) and made["look"].run["score_scale"] == scale
    assert made["look"].calls_per_step == made["plain"].calls_per_step == 1.0
    assert "look_ahead" not in made["plain"].run
    steer = {"num_particles": 2, "reward_scale": scale, "reward_schedule": SCHEDULE, **run}
    found = fklit.steer(pipeline, PROMPTS, potential=Calibrated(made["look"]), look_ahead=look, **steer)
    assert found.log_z.isfinite().all()
    for name, given in (("plain", look), ("look", None)):
        with pytest.raises(ValueError, match="expected a calibration of look_ahead"):
            fklit.steer(pipeline, PROMPTS, potential=Calibrated(made[name]), look_ahead=given, **steer)
    with pytest.raises(ValueError, match=r"expected a calibration of score_scale 1\.0, got one of 2\.0"):
        fklit.steer(pipeline, PROMPTS, potential=Calibrated(made["look"]), look_ahead=look,
                    **steer | {"reward_scale": 1.0})  # fmt: skip


def test_yaml_takes_it_by_class_path_and_the_base_runs_without():
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    settings = {
        "source": {"class_path": "fklit.PipelineSource", "init_args": {"path": "fklit:emoji_scenes"}},
        "reward": {"class_path": "fklit.rewards.ImageReward", "init_args": {"model_name": "fklit:emoji_reward"}},
        "look_ahead": {"class_path": "fklit.sampling.look_ahead.LookAhead", "init_args": {"num_samples": 2}},
    }
    model = {"class_path": "fklit.steering.task.SteeringTask", "init_args": settings}
    task = parser.instantiate(parser.parse_object({"model": model})).model
    assert task.sampling.look_ahead == LookAhead(num_samples=2)
    assert task.settings()["look_ahead"] == {
        "class": "fklit.sampling.look_ahead.LookAhead", "num_samples": 2, "num_steps": 2, "eta": 1.0,
    }  # fmt: skip
    assert task.without_method().look_ahead is None
    settings["look_ahead"] = {"class_path": "fklit.sampling.look_ahead.LookAhead", "init_args": {"eta": 2.0}}
    with pytest.raises(Exception, match="eta"):
        parser.instantiate(parser.parse_object({"model": model}))

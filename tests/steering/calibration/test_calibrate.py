"""fklit.calibrate on pipelines, on models that own their steps, in the task, and from the command line."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit
from fklit.rewards import LatentReward
from fklit.sampling.settings import DEFAULT_REWARD_SCHEDULE
from fklit.steering.calibration import Calibrated, Calibration, CalibrationWarning
from fklit.steering.calibration.api import DEFAULT_SCHEDULE

STEPS = 6
CALL = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "eta": 1.0}
DENSE = fklit.Schedule(indices=(1, 2, 3, 4))


def brightness(images):
    return 100 * images.mean((1, 2, 3))


def _calibrate(pipeline, prompts=("a cat", "a dog", "a car"), **options):
    given = {"reward": brightness, "num_samples": 4, "schedule": DENSE, "pipeline_kwargs": CALL, **options}
    return fklit.calibrate(pipeline, prompts, **given)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_stable_diffusion()


@pytest.fixture(scope="module")
def made(pipeline):
    return _calibrate(pipeline)


def test_it_holds_the_scores_and_rewards_of_unsteered_samples(pipeline, made):
    plain = fklit.steer(
        pipeline,
        ["a cat", "a dog", "a car"],
        reward=brightness,
        reward_scale=1.0,
        num_particles=4,
        ess_threshold=0.0,
        scheduler="stochastic",
        reward_schedule=DENSE,
        seed=20_000,
        pipeline_kwargs=CALL,
    )
    assert torch.allclose(made.rewards, plain.rewards, atol=1e-4)
    assert torch.allclose(made.scores, plain.reward_path.permute(1, 2, 0), atol=1e-4)
    assert (made.steps, made.num_steps, made.prompts) == ((1, 2, 3, 4), STEPS, ("a cat", "a dog", "a car"))
    assert made.run["sampler"] == plain.sampler and "brightness" in made.run["reward"]
    assert made.run["arguments"] == {"eta": 1.0, "guidance_scale": 3.0}
    assert made.upper_bound is None and made.calls_per_step == 2.0
    assert made.score_cost > 0 and made.denoiser_seconds > 0


def test_prompts_do_not_depend_on_the_batch(pipeline, made):
    done = []
    alike = _calibrate(pipeline, batch_size=2, on_batch=done.append)
    assert done == [2, 3]
    assert torch.allclose(alike.scores, made.scores, atol=1e-4)
    last = _calibrate(pipeline, ["a car"], prompt_indices=[2])
    assert torch.allclose(last.rewards[0], made.rewards[2], atol=1e-4)


def test_the_sampler_is_that_of_steering(pipeline, made):
    """A calibration made with settings serves a run with the same, and no other sampler."""
    kwargs = {"reward": brightness, "goal": "sample", "calibration": made, "reward_scale": 0.5, "num_particles": 4}
    kwargs |= {"reward_schedule": fklit.Schedule(indices=(1, 3)), "pipeline_kwargs": CALL}
    with pytest.warns(CalibrationWarning) if _few(made, 0.5) else _nothing():
        result = fklit.steer(pipeline, "a cat", **kwargs)
    assert result.settings["ess_threshold"] == 1.0 and result.settings["potential"].startswith("Calibrated(")
    assert result.resampled.any() and torch.isfinite(result.log_weights).all()
    cases = (
        ({"pipeline_kwargs": {**CALL, "eta": 0.5}}, "expected a calibration of sampler"),
        ({"pipeline_kwargs": {**CALL, "num_inference_steps": 8}}, "expected a run of 6 steps"),
        ({"reward": lambda images: images.mean((1, 2, 3))}, "expected a calibration of reward"),
        ({"reward_schedule": fklit.Schedule(indices=(0, 1))}, r"of 6, got step 0"),
    )
    for changed, message in cases:
        with pytest.raises(ValueError, match=message):
            fklit.steer(pipeline, "a cat", **{**kwargs, **changed})
    with pytest.warns(CalibrationWarning, match=r"made with arguments .*3.0.*, the run has .*2.0"):
        fklit.steer(pipeline, "a cat", **{**kwargs, "pipeline_kwargs": {**CALL, "guidance_scale": 2.0}})
    corrected = {"num_particles": 4, "guidance_scale": 3.0, "potential": Calibrated(made), "reward_scale": 0.5}
    call = {"num_inference_steps": STEPS, "eta": 1.0}
    with pytest.warns(CalibrationWarning, match="made with arguments"):
        fklit.correct(pipeline, "a cat", reward=brightness, reward_schedule=DENSE, pipeline_kwargs=call, **corrected)


def test_best_takes_nothing_from_a_calibration_of_another_run(pipeline, made):
    """Its scale and its steps would mean something else there."""
    kwargs = {"reward": brightness, "goal": "best", "calibration": made, "reward_scale": 0.5, "num_particles": 2}
    kwargs |= {"reward_schedule": fklit.Schedule(indices=(1, 3)), "pipeline_kwargs": CALL}
    assert torch.isfinite(fklit.steer(pipeline, "a cat", **kwargs).log_weights).all()
    for changed, message in (
        ({"pipeline_kwargs": {**CALL, "eta": 0.5}}, "expected a calibration of sampler"),
        ({"pipeline_kwargs": {**CALL, "num_inference_steps": 8}}, "expected a run of 6 steps"),
        ({"reward": lambda images: images.mean((1, 2, 3))}, "expected a calibration of reward"),
    ):
        with pytest.raises(ValueError, match=message):
            fklit.steer(pipeline, "a cat", **{**kwargs, **changed})


def test_scores_of_a_latent_reward_are_not_those_of_the_calibration(pipeline, made):
    class Flat(LatentReward):
        def score(self, latents, prompts, *, time):
            return latents.mean((1, 2, 3))

    with pytest.warns(CalibrationWarning, match="made with latent_reward None, the run has"):
        fklit.steer(
            pipeline, "a cat", reward=brightness, latent_reward=Flat(), potential=Calibrated(made), reward_scale=0.5,
            reward_schedule=fklit.Schedule(indices=(1, 3)), num_particles=2, pipeline_kwargs=CALL,
        )  # fmt: skip


def _few(made, scale):
    weights = torch.softmax(scale * made.rewards, dim=1)
    return float((1 / weights.square().sum(dim=1) - 1).sum()) < 8


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_bad_arguments(pipeline):
    for given, message in (
        ({"num_samples": 1}, "num_samples=1 is too small"),
        ({"batch_size": 0}, "batch_size=0 is too small"),
        ({"reward_scale": 0.0}, "expected reward_scale above 0"),
        ({"upper_bound": 0.0}, "expected scores of at most upper_bound=0|expected rewards of at most upper_bound=0"),
        ({"schedule": fklit.Schedule(indices=())}, "expected a schedule with steps that score"),
    ):
        with pytest.raises(ValueError, match=message):
            _calibrate(pipeline, ["a cat"], **given)


def test_the_calibration_that_ships_fits_its_configuration():
    import yaml

    from fklit.rewards import ImageReward
    from fklit.sampling.describe_run import describe_run

    folder = Path(__file__).parents[3] / "configs" / "steering"
    arguments = yaml.safe_load((folder / "calibrated.yaml").read_text())["model"]["init_args"]
    made = Calibration.load(folder / Path(arguments["calibration"]).name)
    reward = ImageReward(arguments["reward"]["init_args"]["model_name"])
    call = arguments["pipeline_kwargs"]
    assert made.run == describe_run(
        reward, model="StableDiffusionPipeline", sampler="DDIMScheduler with eta=1", arguments=call
    )
    steps = fklit.Schedule(**arguments["reward_schedule"]).resolve(call["num_inference_steps"])
    fitted = Calibrated(made).prepare(steps, num_steps=30, reward_scale=arguments["reward_scale"])
    assert all(curve.slope > 0 for curve in fitted.curves.values())
    steered = (folder / Path("emoji_prompts.jsonl")).read_text()
    assert not {prompt for prompt in made.prompts if f'"{prompt}"' in steered}


@pytest.mark.parametrize("num_steps", [4, 10, 20, 25, 28, 30, 50, 100])
def test_the_dense_schedule_serves_the_usual_one(num_steps):
    dense = DEFAULT_SCHEDULE.resolve(num_steps)
    made = Calibration(
        scores=torch.zeros(1, 2, len(dense)),
        rewards=torch.zeros(1, 2),
        steps=dense,
        num_steps=num_steps,
        prompts=[""],
    )
    for step in DEFAULT_REWARD_SCHEDULE.resolve(num_steps):
        assert abs(made.nearest(step) - step) <= num_steps // 20

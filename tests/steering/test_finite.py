"""NaN and infinities are named where they arise; what is dropped has weight zero and is never the best."""

import functools

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit
from fklit.pipelines.finite import NonFiniteError, check_finite, finite_rows

SETTINGS = {
    "reward": lambda images: 100 * images.mean((1, 2, 3)),
    "reward_scale": 1.0,
    "num_particles": 3,
    "reward_schedule": fklit.Schedule(indices=(2, 4)),
    "pipeline_kwargs": {"num_inference_steps": 6, "eta": 1.0, "guidance_scale": 3.0},
}


@pytest.fixture
def pipeline():
    from diffusers import DDIMScheduler

    made = tiny_stable_diffusion()
    made.scheduler = DDIMScheduler.from_config(made.scheduler.config, clip_sample=False)
    return made


def _spoil(monkeypatch, target, name, row, *, at=0, value=float("nan")):
    """Has a method return `value` in one row from its call number `at` on."""
    original, calls = getattr(target, name), []

    @functools.wraps(original)
    def spoilt(*args, **kwargs):
        output = original(*args, **kwargs)
        calls.append(None)
        if len(calls) > at:
            tensor = output[0] if isinstance(output, tuple) else output.sample
            tensor[row::3] = value
        return output

    monkeypatch.setattr(target, name, spoilt)


def test_rows():
    values = torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [0.0, float("inf")]])
    assert finite_rows(values).tolist() == [True, False, False]
    with pytest.raises(NonFiniteError, match=r"now the decoder \(int\) .* for row 1 \(2 of 3 samples\); run it"):
        check_finite(values, "decoder", 3, where="now", name=lambda row: f"row {row}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_denoiser_is_named(pipeline, monkeypatch, value):
    _spoil(monkeypatch, pipeline.unet, "forward", 1, at=3, value=value)
    message = r"at step 3 of 6 the denoiser \(UNet2DConditionModel\) .* for particle 1 of prompt 'a cat' .*float32"
    with pytest.raises(NonFiniteError, match=message):
        fklit.steer(pipeline, "a cat", **SETTINGS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_decoder_is_named_and_not_the_reward(pipeline, monkeypatch, value):
    _spoil(monkeypatch, pipeline.vae, "decode", 2, at=1, value=value)
    message = r"at step 4 of 6 the decoder \(AutoencoderKL\) .* for particle 2 of prompt 'a dog'.*torch\.float32"
    with pytest.raises(NonFiniteError, match=message):
        fklit.steer(pipeline, ["a dog"], **SETTINGS)


def test_the_scheduler_is_named(pipeline, monkeypatch):
    _spoil(monkeypatch, pipeline.scheduler, "step", 0, at=2)
    with pytest.raises(NonFiniteError, match=r"at step 3 of 6 the scheduler \(DDIMScheduler\).*eta below 1"):
        fklit.steer(pipeline, "a cat", **SETTINGS)


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("as_pil", [False, True])
def test_best_of_n_and_the_base_are_checked_at_the_end_whatever_the_reward_makes_of_nan(
    pipeline, monkeypatch, scale, as_pil
):
    _spoil(monkeypatch, pipeline.vae, "decode", 1)
    reward = (lambda images: [float(i) for i in range(len(images))]) if as_pil else SETTINGS["reward"]
    given = {**SETTINGS, "reward": reward, "reward_scale": scale, "potential": "terminal"}
    with pytest.raises(NonFiniteError, match="at the end the decoder"):
        fklit.steer(pipeline, "a cat", **given)
    result = fklit.steer(pipeline, "a cat", **given, on_nan="drop")
    assert result.log_weights[0, 1] == -torch.inf and int(result.best_index()) != 1
    assert torch.isfinite(result.samples).all() and result.samples[0, 1].max() == 0
    assert int(result.dropped) == 1


def test_dropped_on_the_way(pipeline, monkeypatch):
    _spoil(monkeypatch, pipeline.unet, "forward", 1, at=1)
    result = fklit.steer(pipeline, "a cat", **SETTINGS, on_nan="drop")
    assert torch.isfinite(result.samples).all() and torch.isfinite(result.log_z).all()
    assert torch.isnan(result.reward_path[0, 0, 1]) and int(result.dropped) >= 1


def test_corrected_guidance_checks_its_samples(pipeline, monkeypatch):
    given = {"num_particles": 3, "guidance_scale": 2.0, "pipeline_kwargs": {"num_inference_steps": 4, "eta": 1.0}}
    _spoil(monkeypatch, pipeline.vae, "decode", 1)
    with pytest.raises(NonFiniteError, match="at the end the decoder"):
        fklit.correct(pipeline, "a cat", **given)
    result = fklit.correct(pipeline, "a cat", **given, on_nan="drop")
    assert result.log_weights[0, 1] == -torch.inf and torch.isfinite(result.samples).all()
    assert result.ess.shape[0] == 5


def test_the_real_safety_checker_blackens_in_place_and_the_score_is_of_what_was_sampled(pipeline):
    plain = fklit.steer(pipeline, "a cat", **SETTINGS)

    def checker(image, device, dtype):  # as StableDiffusionSafetyChecker does
        image[0] = 0.0
        return image, [True, False, False]

    pipeline.run_safety_checker = checker
    checked = fklit.steer(pipeline, "a cat", **SETTINGS)
    assert torch.equal(checked.rewards, plain.rewards) and torch.equal(checked.log_weights, plain.log_weights)
    assert checked.flagged == [[True, False, False]]
    assert int(checked.best_index()) == 1 + int(plain.rewards[0, 1:].argmax()), "the best of what is not flagged"
    pipeline.run_safety_checker = lambda image, device, dtype: (image, [True] * 3)
    assert int(fklit.steer(pipeline, "a cat", **SETTINGS).best_index()) == int(plain.best_index())

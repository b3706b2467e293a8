"""The denoised prediction before a step equals what the scheduler itself computes in it."""

import copy

import pytest
import torch
from schedulers import WITH_MODEL_OUTPUTS, WITH_X0, make

from fklit.pipelines.denoised import UnknownSchedulerError, denoised, is_known


def _run(name, compare):
    scheduler = make(name)
    scheduler.set_timesteps(6)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(3, 4, 4, 4, generator=generator) * scheduler.init_noise_sigma
    compared = 0
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(sample, timestep)
        output = torch.randn(sample.shape, generator=generator)
        before = copy.deepcopy(scheduler.__dict__.get("_step_index"))
        prediction = denoised(scheduler, output, timestep, sample)
        assert scheduler.__dict__.get("_step_index") == before, "the scheduler was changed"
        stepped = scheduler.step(output, timestep, sample)
        compare(prediction, stepped, scheduler)
        compared += 1
        sample = stepped.prev_sample
    assert compared == len(scheduler.timesteps)


@pytest.mark.parametrize("name", WITH_X0)
def test_equals_pred_original_sample(name):
    def compare(prediction, stepped, scheduler):
        torch.testing.assert_close(prediction, stepped.pred_original_sample, rtol=1e-5, atol=2e-5)

    _run(name, compare)


@pytest.mark.parametrize("name", WITH_MODEL_OUTPUTS)
def test_equals_solver_history(name):
    def compare(prediction, stepped, scheduler):
        held = scheduler.model_outputs[-1]
        if "Singlestep" in name:  # one entry an order: the newest is the last that is set
            held = [entry for entry in scheduler.model_outputs if entry is not None][-1]
        torch.testing.assert_close(prediction, held, rtol=1e-5, atol=2e-5)

    if "Singlestep" in name:
        scheduler = make(name)
        scheduler.set_timesteps(6)
        sample = torch.randn(3, 4, 4, 4)
        output = torch.randn_like(sample)
        prediction = denoised(scheduler, output, scheduler.timesteps[0], sample)
        scheduler.step(output, scheduler.timesteps[0], sample)
        return compare(prediction, None, scheduler)
    return _run(name, compare)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_is_kept(dtype):
    scheduler = make("DDIMScheduler")
    scheduler.set_timesteps(4)
    sample = torch.randn(2, 4, 4, 4, dtype=dtype)
    assert denoised(scheduler, sample, scheduler.timesteps[0], sample).dtype == dtype


def test_learned_variance_and_clipping():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=True, clip_sample_range=0.5)
    scheduler.set_timesteps(4)
    sample, output = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 4, 4)
    expected = scheduler.step(output, scheduler.timesteps[0], sample).pred_original_sample
    prediction = denoised(scheduler, output, scheduler.timesteps[0], sample)
    torch.testing.assert_close(prediction, expected)
    assert prediction.abs().max() <= 0.5


def test_flow_matching_formula():
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    scheduler.set_timesteps(5)
    x0, noise = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    sigma = scheduler.sigmas[0]
    sample = (1 - sigma) * x0 + sigma * noise
    torch.testing.assert_close(
        denoised(scheduler, noise - x0, scheduler.timesteps[0], sample), x0, rtol=1e-4, atol=1e-5
    )


def test_unknown_scheduler_is_refused():
    from diffusers import ScoreSdeVeScheduler

    scheduler = ScoreSdeVeScheduler()
    assert not is_known(scheduler)
    with pytest.raises(UnknownSchedulerError, match=r"got ScoreSdeVeScheduler; use one of"):
        denoised(scheduler, torch.zeros(1, 3, 4, 4), 0, torch.zeros(1, 3, 4, 4))

"""Pipelines that step copies of their scheduler: each copy goes by its own history, or is refused by name."""

import copy

import pytest
import torch
from tiny import tiny_stable_diffusion

from fklit.pipelines.interception import Interception, UnsupportedPipelineError


class Hook:
    """Sees steps and changes nothing."""

    def begin(self, num_steps, noisy):
        self.noise = noisy(range(num_steps))

    def step(self, call):
        return None


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import UniPCMultistepScheduler

    found = tiny_stable_diffusion()
    found.scheduler = UniPCMultistepScheduler.from_config(found.scheduler.config)
    return found


def _two_tracks(scheduler):
    """Two samples, each stepped by a scheduler of its own, as LTX-2 steps pictures and sound."""
    source = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 4, 8, 8, generator=source)
    scheduler.set_timesteps(4)
    other = copy.deepcopy(scheduler)
    for timestep in scheduler.timesteps:
        first = scheduler.step(first / 2, timestep, first, return_dict=False)[0]
        second = other.step(second / 3, timestep, second, return_dict=False)[0]
    return first, second


def test_a_copy_steps_by_its_own_history(pipeline):
    """UniPC keeps the predictions of the steps before: with one history for both the tracks would mix."""
    expected = _two_tracks(pipeline.scheduler)
    with Interception(pipeline, Hook(), resamples=False, may_edit=True) as run:
        found = _two_tracks(pipeline.scheduler)
        assert run.steps_taken == 4 and run.num_steps == 4
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert "step" not in vars(pipeline.scheduler)


def test_a_copy_is_refused_where_particles_move(pipeline):
    with (
        pytest.raises(UnsupportedPipelineError, match=r"StableDiffusionPipeline copies of UniPC.* one for each frame"),
        Interception(pipeline, Hook(), may_edit=False),
    ):
        _two_tracks(pipeline.scheduler)


def test_a_copy_knows_the_arguments_of_a_step(pipeline):
    import inspect

    expected = inspect.signature(pipeline.scheduler.step)
    for may_edit in (True, False):
        with Interception(pipeline, Hook(), resamples=False, may_edit=may_edit):
            assert inspect.signature(pipeline.scheduler.step) == expected
            assert inspect.signature(copy.deepcopy(pipeline.scheduler).step) == expected

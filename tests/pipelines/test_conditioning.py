"""Arguments of a denoiser that differ between the particles of a prompt, whatever their form."""

import pytest
import torch

from fklit.pipelines.conditioning import PerParticleConditioning
from fklit.pipelines.interception import UnsupportedPipelineError

SHAPE = torch.Size([4, 3, 2, 2])
ANCESTORS = torch.tensor([1, 1, 3, 2])  # two prompts of two particles


class Denoiser(torch.nn.Module):
    def forward(self, sample, timestep, labels=None, extra=None, controlnet_states=None):
        raise AssertionError


def _make():
    def refuse(message):
        return UnsupportedPipelineError(message)

    return PerParticleConditioning(4, 2, refuse)


def _arranged(conditioning, *args, shape=SHAPE, **kwargs):
    return conditioning.arranged(Denoiser(), args, kwargs, shape=shape)


def _after_resampling(conditioning, *args, **kwargs):
    _arranged(conditioning, *args, **kwargs)
    conditioning.next_step()
    conditioning.select(ANCESTORS)
    return _arranged(conditioning, *args, **kwargs)


def test_what_differs_moves_and_the_rest_stays():
    sample, time = torch.randn(4, 3, 2, 2), torch.tensor(5)
    labels, same = torch.randn(4, 7), torch.tensor([[1.0], [1.0], [2.0], [2.0]])
    args, kwargs = _after_resampling(_make(), sample, time, labels, extra={"a": labels, "b": (same, "text"), "c": None})
    assert args[0] is sample and args[1] is time
    assert torch.equal(args[2], labels[ANCESTORS]) and torch.equal(kwargs["extra"]["a"], labels[ANCESTORS])
    assert kwargs["extra"]["b"][0] is same and kwargs["extra"]["b"][1] == "text" and kwargs["extra"]["c"] is None


def test_both_predictions_of_guidance_are_re_indexed():
    labels = torch.randn(8, 7)
    args, _ = _after_resampling(_make(), torch.randn(8, 3, 2, 2), 0, labels)
    assert torch.equal(args[2], torch.cat([labels[:4][ANCESTORS], labels[4:][ANCESTORS]]))


def test_two_resamplings_compose():
    conditioning, labels = _make(), torch.randn(4, 1)
    _after_resampling(conditioning, torch.randn(4, 3, 2, 2), 0, labels)
    conditioning.next_step()
    second = torch.tensor([1, 0, 2, 2])
    conditioning.select(second)
    args, _ = _arranged(conditioning, torch.randn(4, 3, 2, 2), 0, labels)
    assert torch.equal(args[2], labels[ANCESTORS[second]])


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4, 5, 2, 2), 1), ((4, 6, 5), 2), ((4, 5, 6), 1), ((4, 2, 5, 2, 2), 2)],
    ids=["channels", "channels of tokens", "tokens", "channels of frames"],
)
def test_what_lies_behind_the_samples_is_a_condition(shape, axis):
    own = torch.Size(3 if i == axis else size for i, size in enumerate(shape))
    sample = torch.randn(shape)
    (found, _), _ = _after_resampling(_make(), sample, 0, shape=own)
    latents, condition = sample.split([3, 2], dim=axis)
    assert torch.equal(found, torch.cat([latents, condition[ANCESTORS]], dim=axis))


def test_a_condition_with_a_row_for_each_frame_moves_with_its_sample():
    frames, labels = torch.Size([4, 3, 5, 2, 2]), torch.randn(8, 7)
    rows = labels.repeat_interleave(5, dim=0)
    args, _ = _after_resampling(_make(), torch.randn(8, *frames[1:]), 0, rows, shape=frames)
    expected = torch.cat([labels[:4][ANCESTORS], labels[4:][ANCESTORS]]).repeat_interleave(5, dim=0)
    assert torch.equal(args[2], expected)


def test_two_calls_a_step_are_told_apart():
    conditioning, conditional, unconditional = _make(), torch.randn(4, 1), torch.randn(4, 1)
    for resampled in (False, True):
        for labels in (unconditional, conditional):
            args, _ = _arranged(conditioning, torch.randn(4, 3, 2, 2), 0, labels)
            assert torch.equal(args[2], labels[ANCESTORS] if resampled else labels)
        conditioning.next_step()
        conditioning.select(ANCESTORS if not resampled else torch.arange(4))


def test_what_changes_from_step_to_step_is_refused_by_name_unless_it_is_made_of_the_samples():
    conditioning = _make()
    states = torch.randn(4, 2)
    _arranged(conditioning, torch.randn(4, 3, 2, 2), 0, extra={"noise": states}, controlnet_states=(states,))
    conditioning.next_step()
    _, kwargs = _arranged(conditioning, torch.randn(4, 3, 2, 2), 0, controlnet_states=(2 * states,))
    assert torch.equal(kwargs["controlnet_states"][0], 2 * states)
    conditioning.next_step()
    with pytest.raises(UnsupportedPipelineError, match=r"argument 'extra\.noise' differs between the particles"):
        _arranged(conditioning, torch.randn(4, 3, 2, 2), 0, extra={"noise": 2 * states})

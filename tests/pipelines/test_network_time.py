"""The timestep among a denoiser's arguments: found, put elsewhere, or refused."""

import pytest
import torch

from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.network_time import find_time
from fklit.pipelines.step_call import NetworkCall


class Network(torch.nn.Module):
    def forward(self, sample, timestep=None, *, timestep_cond=None, timestep_r=None, sigma_max=None, text=None):
        return sample


class Nameless(torch.nn.Module):
    def forward(self, sample, level):
        return sample


X = torch.zeros(2, 3, 4, 4)


def _call(*args, network=None, **kwargs):
    network = network or Network()
    return NetworkCall(network, network, (X, *args), kwargs, X)


def _find(call, timestep=750.0, total=1000):
    return find_time(call, timestep, total, "stop")


@pytest.mark.parametrize("value", [
    750, 750.0, torch.tensor(750), torch.tensor([750.0, 750.0]), torch.full((2,), 750.0, dtype=torch.bfloat16),
    0.75, torch.tensor(0.75), torch.full((2, 7), 0.75), torch.full((2,), 0.75, dtype=torch.float16),
])  # fmt: skip
@pytest.mark.parametrize("named", [True, False])
def test_a_multiple_of_the_timestep_is_found_and_moved(value, named):
    call = _call(timestep=value) if named else _call(value)
    found = _find(call)
    factor = 1.0 if float(torch.as_tensor(value).flatten()[0]) > 1 else 1e-3
    assert (found.name, found.factor, found.mirrored) == ("timestep" if named else 1, factor, False)
    args, kwargs = found.put(call.args, call.kwargs, torch.tensor(250.0))
    moved = kwargs["timestep"] if named else args[1]
    expected = 250 * factor
    if isinstance(value, torch.Tensor):
        assert moved.dtype == value.dtype and torch.equal(moved, torch.full_like(value, expected))
    else:
        assert type(moved) is type(value) and moved == pytest.approx(expected)
    assert args[0] is X and (call.kwargs.get("timestep", value) is value)


def test_rounding_of_the_dtype_is_none_of_the_pipelines_fault():
    assert _find(_call(timestep=torch.full((2,), 981.0, dtype=torch.bfloat16)), 981).factor == 1.0
    assert _find(_call(timestep=(torch.full((2,), 981.0).bfloat16() / 1000)), 981).factor == 1e-3


def test_time_that_runs_backwards_is_told_apart_but_in_the_middle():
    for value in (1 - 0.75, 1000 - 750, 749, 0.3, torch.tensor([750.0, 749.0]), "750"):
        with pytest.raises(UnsupportedPipelineError, match="expected Network to be called with timestep = 750"):
            _find(_call(timestep=value))
    assert _find(_call(timestep=0.5), 500).mirrored and not _find(_call(timestep=0.49), 490).mirrored


def test_levels_in_other_arguments_are_refused():
    for name, value in (("timestep_r", torch.tensor(0.5)), ("sigma_max", 80.0)):
        with pytest.raises(UnsupportedPipelineError, match=f"whose argument '{name}' belongs to the level of the step"):
            _find(_call(timestep=750, **{name: value}))
    residuals = {"down_block_additional_residuals": (X,)}
    with pytest.raises(UnsupportedPipelineError, match="down_block_additional_residuals"):
        _find(_call(timestep=750, **residuals))
    assert _find(_call(timestep=750, timestep_r=None, timestep_cond=torch.ones(2, 8))).factor == 1.0


def test_no_time_and_a_memory_are_refused():
    with pytest.raises(
        UnsupportedPipelineError, match="with an argument timestep or timesteps or t, got Nameless, which is"
    ):
        _find(_call(750, network=Nameless()))
    network = Network()
    network.is_cache_enabled = True
    with pytest.raises(
        UnsupportedPipelineError, match=r"got Network, which caches .* call its disable_cache\(\), or stop"
    ):
        _find(_call(timestep=750, network=network))

"""At which calls a scheduler injects noise, found by trying it.

Clones of a particle separate only through noise. Tables of class names are wrong about it (DDIM depends on `eta`,
TCD on what the pipeline sends, KDPM2 ancestral draws at every second call only), so the scheduler itself is asked: two
copies are stepped with different generators on a dummy sample. No denoiser call is spent.
"""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.seeds import copied_without_noise


class SchedulerSwapWarning(UserWarning):
    """`scheduler='auto'` runs another sampler than the one the pipeline came with."""


def noisy_calls(
    scheduler: Any, arguments: Mapping[str, Any], timesteps: Sequence[Any], wanted: Collection[int]
) -> dict[int, bool]:
    """Which of the coming `scheduler.step` calls inject noise.

    Args:
        scheduler: the scheduler at the first call of a run; copies of it are stepped, it is not changed.
        arguments: arguments of the first call by name, with tensors of one row (`model_output`, `sample`, ...).
        timesteps: the timesteps of all the calls.
        wanted: indices of the calls that are asked about.

    Returns:
        For each index in `wanted` whether two different generators give two different results.
    """
    runner = _unpatched_copy(scheduler)
    sample: Tensor = arguments["sample"]
    devices = [sample.device] if sample.device.type == "cuda" else []
    result: dict[int, bool] = {}
    last = max(wanted, default=-1)
    with torch.random.fork_rng(devices=devices):
        for index, timestep in enumerate(timesteps[: last + 1]):
            call = {**arguments, "timestep": timestep, "sample": sample}
            if hasattr(runner, "scale_model_input"):  # some schedulers find their position there
                runner.scale_model_input(sample, timestep)
            if index in wanted:
                outcomes = [_step(copied_without_noise(runner), call, seed) for seed in (1, 2)]
                result[index] = not torch.equal(*outcomes)
            sample = _step(runner, call, 1)
    return result


def _unpatched_copy(scheduler: Any) -> Any:
    duplicate = copied_without_noise(scheduler)
    duplicate.__dict__.pop("step", None)  # an interception lives there, bound to the original
    return duplicate


def _step(scheduler: Any, arguments: Mapping[str, Any], seed: int) -> Tensor:
    names = inspect.signature(scheduler.step).parameters
    torch.manual_seed(seed)  # for schedulers that take no generator
    given = dict(arguments)
    if "generator" in names and given.get("variance_noise") is None:
        given["generator"] = torch.Generator().manual_seed(seed)
    given["return_dict"] = False
    stepped: Tensor = scheduler.step(**{name: value for name, value in given.items() if name in names})[0]
    return stepped

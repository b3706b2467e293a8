"""Seconds and peak memory of calls on a device, and of the networks within them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class Clock:
    """Seconds that some networks took within a context, from their first operation to their last."""

    seconds: float = 0.0
    _start: float = 0.0


def wait(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(device: torch.device, call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall time of a call, with all that it gave the device to do, and what it returned."""
    wait(device)
    start = time.perf_counter()
    found = call()
    wait(device)
    return time.perf_counter() - start, found


@contextmanager
def clock_of(device: torch.device, *modules: nn.Module) -> Iterator[Clock]:
    """Add up, within the context, the seconds of the calls of `modules`."""
    clock = Clock()

    def before(module: nn.Module, given: Any) -> None:
        wait(device)
        clock._start = time.perf_counter()

    def after(module: nn.Module, given: Any, output: Any) -> None:
        wait(device)
        clock.seconds += time.perf_counter() - clock._start

    handles = [module.register_forward_pre_hook(before, prepend=True) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules]
    try:
        yield clock
    finally:
        for handle in handles:
            handle.remove()


def reset_peak(device: torch.device) -> None:
    """Forget the peak of the memory so far, and give back what is not in use."""
    if device.type != "cpu":
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float | None:
    """Return the peak of the allocated memory since the reset, in 10^9 bytes; None on a CPU."""
    return None if device.type == "cpu" else torch.accelerator.max_memory_allocated(device) / 1e9

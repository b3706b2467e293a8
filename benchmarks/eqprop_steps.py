"""What the benchmarks of equilibrium propagation measure of a training step: gradients, memory, seconds."""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop import EquilibriumNetwork, RecurrentBackprop, Relaxation

Step = Callable[[], Any]


def gradients_of(network: EquilibriumNetwork) -> dict[str, Tensor]:
    """Gradients of the dynamics' weights after a backward pass."""
    named = network.named_parameters()
    return {n: p.grad.clone() for n, p in named if p.grad is not None and not n.startswith("readout.")}


def distance(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Relative distance of all gradients as one vector."""
    parts = [(got[name].double() - value).flatten() for name, value in wanted.items()]
    return float(torch.cat(parts).norm() / torch.cat([value.flatten() for value in wanted.values()]).norm())


def exact_gradients(network: EquilibriumNetwork, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """By recurrent backprop in float64 to the end."""
    twin = copy.deepcopy(network).double()
    twin.free = Relaxation(2000, 1e-13)
    twin.estimator = RecurrentBackprop(relaxation=Relaxation(2000, 1e-13))
    twin.zero_grad()
    F.cross_entropy(twin(x.double()), y).backward()
    return gradients_of(twin)


def peak_memory(step: Step, device: torch.device) -> float:
    """Megabytes that a step has allocated at the most."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 1e6


def seconds(step: Step, device: torch.device) -> float:
    """Processor seconds of a step, or seconds on the clock with a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    step()
    return time.process_time() - start

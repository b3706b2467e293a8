"""Kernels and multiply-adds of equilibrium propagation, counted: what a GPU would be given, without a GPU.

    python benchmarks/eqprop_kernels.py                                  # the network of configs/eqprop/imagenet32.yaml
    python benchmarks/eqprop_kernels.py --compiled --output docs/results/eqprop_kernels.json   # minutes: compiles, too

Operators that compute or copy are counted, views are not: each is one kernel of a GPU, or a few. They do not depend on
widths, so they are counted on a narrow network on the CPU, as the difference of two relaxations, one of which takes one
iteration more. Multiply-adds of convolutions and matrix products are counted at full size, on tensors without data.
`--compiled` counts the kernels that `torch.compile` makes of the iterations of one call on this machine. Hours of a
training follow by the formula of docs/equilibrium-propagation.md: an estimate from counts, nothing here is timed.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fklit.eqprop import ConvNet, CrossEntropyNudge, ExactResponse, Execution, Homeostasis, Relaxation, Symmetric
from fklit.eqprop.relaxation.compiled import UNROLLED
from fklit.eqprop.relaxation.fields import NetworkField, ResponseField
from fklit.eqprop.relaxation.iteration import advance
from fklit.eqprop.relaxation.progress import Progress, advance_several
from fklit.eqprop.relaxation.result import Equilibrium, RelaxationResult

CLASSES = 1000
# Operators that give no device anything to do: views are recognized by their schema, these are not.
NO_KERNEL = {"aten::_local_scalar_dense", "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty",
             "aten::detach", "aten::_unsafe_view", "aten::item"}  # fmt: skip


class KernelCounter(TorchDispatchMode):
    """Counts operators within it that compute or copy.

    Attributes:
        counts: By name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and go on."""
        name = func._schema.name
        if not func.is_view and name not in NO_KERNEL:
            self.counts[name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


def counted(call: Callable[[], Any]) -> Counter[str]:
    """Kernels of a call, by operator."""
    with KernelCounter() as counter:
        call()
    return counter.counts


def _network(channels: Sequence[int], **options: Any) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet((3, 32, 32), channels, num_classes=CLASSES, **options)


def kernels(samples: int = 2) -> dict[str, dict[str, int]]:
    """Kernels of one more iteration of each phase, all of relaxation with it, and of the homeostatic loss.

    Returns:
        By phase, their number by operator and their `total`.
    """
    network = _network((2, 2, 3, 3)).requires_grad_(False)
    x, y = torch.rand(samples, 3, 32, 32), torch.arange(samples)
    nudge = CrossEntropyNudge(y, CLASSES)

    def free(iterations: int) -> Callable[[], Any]:
        network.free = Relaxation(iterations, 0.0, check_every=1000)
        return lambda: network.free_equilibrium(x)

    def nudged(kind: Any, iterations: int) -> Callable[[], Any]:
        free(2)
        equilibrium = network.free_equilibrium(x)
        estimator = kind(relaxation=Relaxation(iterations, 0.0, check_every=1000))
        return lambda: estimator.respond(network, equilibrium, nudge)

    def homeostasis(probes: int) -> Callable[[], Any]:
        equilibrium = network.free_equilibrium(x)
        loss = Homeostasis(probes=probes)
        network.requires_grad_()

        def call() -> None:
            with torch.enable_grad():
                loss(network, equilibrium, sample_ids=range(samples)).backward()

        return call

    phases: dict[str, Callable[[int], Callable[[], Any]]] = {
        "free": free,
        "nudged (N = 2)": lambda count: nudged(Symmetric, count),
        "exact response": lambda count: nudged(ExactResponse, count),
    }
    found = {name: _sorted(counted(make(6)) - counted(make(5))) for name, make in phases.items()}
    found["homeostatic loss, a step"] = _sorted(counted(homeostasis(1)))
    return found


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {"total": counts.total(), **dict(counts.most_common())}


def multiply_adds(channels: Sequence[int], probes: int) -> dict[str, float]:
    """Multiply-adds of one image at full size, on tensors without data.

    Args:
        channels: Of the network.
        probes: Of the homeostatic loss.
    """
    network = _network(channels).to("meta")
    x = torch.empty(1, 3, 32, 32, device="meta")
    relaxation = Relaxation()
    state = network.zero_state(1)
    rows = torch.zeros(1, device="meta")
    result = RelaxationResult(state, rows, rows, rows > 0, rows > 0, rows > 0)

    def count(call: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops() / 2

    drive: tuple[Tensor, ...] = ()

    def take_drive() -> None:
        nonlocal drive
        drive = network.drive(x)

    found = {"drive": count(take_drive)}
    with torch.no_grad():
        found["free iteration"] = count(lambda: advance(NetworkField(network, drive), state, relaxation, False))
        field = ResponseField(network, state, drive, state, transposed=False)
        found["linearization"] = count(lambda: ResponseField(network, state, drive, state, transposed=False))
        found["response iteration"] = count(lambda: advance(field, state, relaxation, False))
    equilibrium = Equilibrium(x, drive, result)
    found["local gradients"] = count(lambda: _local_gradients(network, equilibrium))
    found["homeostatic loss"] = count(lambda: _homeostasis(network, equilibrium, probes))
    return found


def _local_gradients(network: ConvNet, equilibrium: Equilibrium) -> None:
    from fklit.eqprop.learning.autograd import local_gradients

    weights = network.dynamics_parameters()
    local_gradients(network, equilibrium.state, equilibrium.x, equilibrium.state, weights, to_input=False)


def _homeostasis(network: ConvNet, equilibrium: Equilibrium, probes: int) -> None:
    from fklit.eqprop.learning.homeostasis import two_term
    from fklit.eqprop.network.linearized import LinearizedRecurrence

    linear = LinearizedRecurrence(network, equilibrium.state, differentiable=True)
    probe = tuple(torch.cat([part] * probes) for part in equilibrium.state)
    two_term(linear, probe).sum().backward()


def compiled_kernels(samples: int = 2) -> dict[str, float]:
    """Kernels of an iteration, when `torch.compile` makes several one call on this machine: fused and of a library."""
    from torch._inductor import metrics

    network = _network((2, 2, 3, 3), execution=Execution(compile=True))
    x = torch.rand(samples, 3, 32, 32)
    relaxation = Relaxation(2, 0.0)
    with torch.no_grad():
        drive, state = network.drive(x), network.zero_state(samples)
        fields = {"free": NetworkField(network, drive)}
        fields["exact response"] = ResponseField(network, state, drive, state, transposed=False)
        found = {}
        for name, field in fields.items():
            torch._dynamo.reset()
            metrics.reset()
            given = (field, state, Progress.start(samples, state[0]), relaxation, False, UNROLLED)
            libraries = counted(lambda: advance_several(*given))  # noqa: B023
            torch.compile(advance_several)(*given)
            fused = metrics.generated_kernel_count
            found[name] = (fused + sum(libraries[op] for op in ("convolution", "mm", "addmm"))) / UNROLLED
    return found


@dataclass(frozen=True)
class Assumptions:
    """What an estimate of hours assumes, as it was not measured.

    Attributes:
        low: Iterations of the free phase in half precision, a sample.
        full: Iterations of the free phase in float32 after those.
        response_low: Iterations of the response in half precision.
        response: Iterations of the response in float32 after those.
        rate_low: Multiply-adds a second of one GPU in half precision.
        rate_full: The same in float32, without TF32.
        launch: Seconds that the host takes for each kernel.
        batch: Images of one GPU.
        kernels: Of an iteration, as the host launches them: if compiled, a fifth of 1 graph and the copies around it.
    """

    low: float
    full: float
    response_low: float
    response: float
    rate_low: float
    rate_full: float
    launch: float
    batch: int
    kernels: float


CASES = {
    # configs/eqprop/imagenet32_fast.yaml on an H100, whose peaks are 495e12 (half) and 33e12 (float32): few iterations
    # at high rates, and many at low ones
    "fast, low": Assumptions(12, 4, 4, 4, 200e12, 25e12, 5e-6, 256, 5),
    "fast, high": Assumptions(50, 15, 15, 15, 100e12, 15e12, 5e-6, 256, 5),
    # the same iterations as configs/eqprop/imagenet32.yaml takes them, and those that the paper takes
    "faithful, low": Assumptions(12, 4, 0, 8, 200e12, 25e12, 5e-6, 32, 103),
    "faithful, high": Assumptions(50, 15, 0, 30, 100e12, 15e12, 5e-6, 32, 103),
    "faithful, 250 + 40 iterations": Assumptions(0, 250, 0, 40, 100e12, 15e12, 5e-6, 32, 103),
}
IMAGES = 1_281_167 * 90


def hours(macs: dict[str, float], given: Assumptions) -> dict[str, float]:
    """Hours of one GPU for 90 epochs of ImageNet 32x32.

    Each iteration takes what its multiply-adds take or what the host takes to launch its kernels, whichever is longer.

    Args:
        macs: What `multiply_adds` counted, of one image.
        given: What is assumed.

    Returns:
        Hours by part, and their `total`.
    """

    def one(name: str, rate: float) -> float:
        return max(macs[name] / rate, given.kernels * given.launch / given.batch)

    once = sum(macs[name] for name in ("drive", "linearization", "local gradients", "homeostatic loss"))
    image = {
        "free phase, half precision": given.low * one("free iteration", given.rate_low),
        "free phase, float32": given.full * one("free iteration", given.rate_full),
        "response, half precision": given.response_low * one("response iteration", given.rate_low),
        "response, float32": given.response * one("response iteration", given.rate_full),
        "gradients and homeostatic loss": once / given.rate_full,
        "linearization, half precision": (given.response_low > 0) * macs["linearization"] / given.rate_low,
    }
    found = {name: IMAGES * seconds / 3600 for name, seconds in image.items()}
    return {**found, "total": sum(found.values())}


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Count, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[128, 256, 512, 512])
    parser.add_argument("--compiled", action="store_true", help="compile an iteration, too (minutes)")
    parser.add_argument("--output", type=Path, default=None, help="write the JSON here, too")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    macs = {probes: multiply_adds(asked.channels, probes) for probes in (1, 5)}
    found: dict[str, Any] = {
        "kernels": kernels(),
        "multiply_adds_an_image": macs[1],
        "hours": {
            name: {**asdict(case), **hours(macs[5 if name.startswith("faithful") else 1], case)}
            for name, case in CASES.items()
        },
        "torch": torch.__version__,
    }
    if asked.compiled:
        found["compiled_kernels"] = compiled_kernels()
    print("| phase | kernels |\n|---|---|")
    for name, counts in found["kernels"].items():
        print(f"| {name} | {counts['total']} |")
    for name, count in found.get("compiled_kernels", {}).items():
        print(f"| {name}, compiled | {count} |")
    print("\n| part | million multiply-adds an image |\n|---|---|")
    for name, count in macs[1].items():
        print(f"| {name} | {count / 1e6:.0f} |")
    print("\n| case | hours of one GPU, an estimate |\n|---|---|")
    for name, parts in found["hours"].items():
        print(f"| {name} | {parts['total']:.0f} |")
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()

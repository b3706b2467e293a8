"""What a training step of equilibrium propagation costs, against a naive complex loop, unrolled and plain backprop.

    python benchmarks/eqprop.py                        # conv net 32-64-128-128 and MLP 784-256-256-10; prints JSON
    python benchmarks/eqprop.py --free 250 --nudged 40 # the published numbers of iterations (takes minutes)
    python benchmarks/eqprop.py --trained --data_dir DIR --output docs/results/eqprop_trained.json   # keeps other cells

Compared in one run, on one untied network that starts symmetric (so that every method has the same true gradient):
(a) the naive loop: complex tensors, autograd for the backward input in every iteration, all N phases one after another,
    weights cast and input drive computed anew in each; its free phase is real;
(b) backpropagation through the unrolled iterations of the free phase;
(c) backpropagation through the same network without its backward weights.
"equal" takes all iterations (tolerance 0), "converged" stops each sample by its residual. Times are medians of
interleaved repetitions, processor time on a CPU. Peak memory is what a step allocates beyond weights and batch. The
error is the relative distance of the gradient of all weights but the readout's from the exact one in float64.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from eqprop_naive import naive_step
from eqprop_steps import Step, distance, exact_gradients, gradients_of, peak_memory, seconds
from eqprop_trained import NETS, WAYS, trained
from torch import Tensor

from fklit.eqprop import (
    MLP,
    Cauchy,
    ComplexStep,
    ConvNet,
    CorrectedNudge,
    EquilibriumNetwork,
    Homeostasis,
    Relaxation,
    Symmetric,
    unrolled,
)
from fklit.eqprop.training.backprop import feedforward


def measure(network: EquilibriumNetwork, x: Tensor, y: Tensor, asked: argparse.Namespace) -> dict[str, Any]:
    """All methods on one network."""
    exact = exact_gradients(network, x, y)
    ids = list(range(len(x)))
    found: dict[str, dict[str, Any]] = {}
    iterations: dict[str, Any] = {}

    def ep(name: str, estimator: Any, free: Relaxation, loss: Homeostasis | None = None) -> Step:
        def step() -> None:
            network.free, network.estimator = free, estimator
            network.zero_grad()
            record: list[Any] = []
            equilibrium = network.free_equilibrium(x)
            total = F.cross_entropy(network.read(network.attach(equilibrium, record=record)), y)
            if loss is not None:
                total = total + loss(network, equilibrium, sample_ids=ids)
            total.backward()
            nudged = max(int(result.iterations.max()) for result in record[0].results)
            iterations[name] = {"free": int(equilibrium.result.iterations.max()), "nudged": nudged}

        return step

    def bptt(count: int) -> Step:
        def step() -> None:
            network.zero_grad()
            F.cross_entropy(network.read(unrolled(network, x, iterations=count)), y).backward()

        return step

    def backprop() -> None:
        network.zero_grad()
        F.cross_entropy(network.read(feedforward(network, x)), y).backward()

    all_free, all_nudged = Relaxation(asked.free, 0.0), Relaxation(asked.nudged, 0.0)
    to_tolerance, nudge = Relaxation(250, 1e-4), Relaxation(60, 1e-5)
    b = asked.beta
    steps: dict[str, Step] = {
        "N=2 equal": ep("N=2 equal", Symmetric(b, relaxation=all_nudged), all_free),
        "N=4 equal": ep("N=4 equal", Cauchy(4, b, relaxation=all_nudged), all_free),
        "complex step equal": ep("complex step equal", ComplexStep(1e-3, relaxation=all_nudged), all_free),
        "N=2 converged": ep("N=2 converged", Symmetric(b, relaxation=nudge), to_tolerance),
        "N=4 converged": ep("N=4 converged", Cauchy(4, b, relaxation=nudge), to_tolerance),
        "complex step converged": ep(
            "complex step converged", ComplexStep(1e-3, relaxation=Relaxation(60, 1e-8)), to_tolerance
        ),
        "corrected nudge converged": ep("corrected nudge converged", CorrectedNudge(b, relaxation=nudge), to_tolerance),
        "N=2 converged + homeostasis": ep(
            "N=2 converged + homeostasis",
            Symmetric(b, relaxation=nudge),
            to_tolerance,
            Homeostasis("squared", probes=1),
        ),
        "(b) unrolled": bptt(asked.free),
        "(c) feed-forward backprop": backprop,
    }
    naive: dict[str, dict[str, Tensor]] = {}

    def naive_of(phases: int) -> Step:
        def step() -> None:
            settings = {"phases": phases, "beta": b, "free": asked.free, "nudged": asked.nudged}
            naive[f"(a) naive N={phases}"] = naive_step(network, x, y, **settings)

        return step

    steps |= {f"(a) naive N={phases}": naive_of(phases) for phases in (2, 4)}
    for name, step in steps.items():
        network.zero_grad()  # before, or the gradients of the last step would count as freed
        found[name] = {"peak_megabytes": peak_memory(step, x.device)}
        if name in naive:
            found[name]["gradient_error"] = distance(naive[name], exact)
        elif not name.startswith("(c)"):
            if "homeostasis" not in name:
                found[name]["gradient_error"] = distance(gradients_of(network), exact)
            found[name]["iterations"] = iterations.get(name, {"free": asked.free})
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(asked.repeats):
        for name, step in steps.items():
            times[name].append(seconds(step, x.device))
    for name, values in times.items():
        found[name]["seconds"] = statistics.median(values)
    twice = ep("twice", Symmetric(b, relaxation=all_nudged), Relaxation(2 * asked.free, 0.0))
    network.zero_grad()
    longer = peak_memory(twice, x.device)
    network.zero_grad()
    unrolled_longer = peak_memory(bptt(2 * asked.free), x.device)
    at = {name: entry["seconds"] for name, entry in found.items()}
    plain = at["(c) feed-forward backprop"]
    ratios = {
        "N=4 / naive N=4, equal iterations": at["N=4 equal"] / at["(a) naive N=4"],
        "N=2 / naive N=2, equal iterations": at["N=2 equal"] / at["(a) naive N=2"],
        "complex step / naive N=4, equal iterations": at["complex step equal"] / at["(a) naive N=4"],
        "N=4 converged / naive N=4": at["N=4 converged"] / at["(a) naive N=4"],
        "N=2 converged / unrolled": at["N=2 converged"] / at["(b) unrolled"],
        "N=2 converged / feed-forward": at["N=2 converged"] / plain,
        "N=4 converged / feed-forward": at["N=4 converged"] / plain,
        "N=2 converged + homeostasis / feed-forward": at["N=2 converged + homeostasis"] / plain,
        "unrolled / feed-forward": at["(b) unrolled"] / plain,
        "memory of N=2, twice the free iterations": longer / found["N=2 equal"]["peak_megabytes"],
        "memory of unrolled, twice the iterations": unrolled_longer / found["(b) unrolled"]["peak_megabytes"],
        "memory of N=2 / unrolled": found["N=2 equal"]["peak_megabytes"] / found["(b) unrolled"]["peak_megabytes"],
    }
    return {"ratios": ratios, "methods": found}


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128, 128])
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--conv-batch", type=int, default=16)
    parser.add_argument("--mlp-batch", type=int, default=50)
    parser.add_argument("--free", type=int, default=50, help="iterations of the free phase where all are taken")
    parser.add_argument("--nudged", type=int, default=20, help="iterations of a nudged phase where all are taken")
    parser.add_argument("--beta", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more make small steps slower")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=None, help="write the JSON here, too")
    parser.add_argument("--trained", action="store_true", help="ways to the fixed point of trained networks instead")
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS), help="which, with --trained")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="which, with --trained")
    parser.add_argument("--data_dir", default=None, help="Fashion-MNIST, for two of the trained networks")
    parser.add_argument("--cells", type=Path, default=Path("outputs/eqprop/trained"), help="checkpoints and cells")
    parser.add_argument("--samples", type=int, default=1000, help="whose fixed points are compared, with --trained")
    asked = parser.parse_args(words)
    torch.set_num_threads(asked.threads)
    if asked.trained:
        report = trained(
            asked.nets,
            asked.ways,
            asked.data_dir,
            asked.cells,
            samples=asked.samples,
            repeats=asked.repeats,
            output=asked.output,
        )
        return write(report, asked)
    torch.manual_seed(0)
    side = 4 * 2 ** (len(asked.channels) - 1)
    networks = {
        f"conv {'-'.join(map(str, asked.channels))}": (ConvNet((3, side, side), asked.channels), asked.conv_batch),
        f"mlp 784-{'-'.join(map(str, asked.hidden))}-10": (MLP((784,), asked.hidden, gain=0.5), asked.mlp_batch),
    }
    report = {}
    for name, (network, batch) in networks.items():
        shape = network.input_shape
        coarse = torch.rand(batch, shape[0], 4, 4) if len(shape) == 3 else torch.rand(batch, 1, 1, 98)
        x = F.interpolate(coarse, shape[1:] if len(shape) == 3 else (1, *shape), mode="bilinear").view(batch, *shape)
        y = torch.randint(10, (batch,))
        report[name] = measure(network.to(asked.device), x.to(asked.device), y.to(asked.device), asked)
    return write(report, asked)


def write(report: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """Add settings and machine, and print and keep the JSON."""
    report |= {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(asked).items() if k != "output"},
        "hardware": {"system": platform.platform(), "cores": os.cpu_count(), "device": asked.device},
        "versions": {package: version(package) for package in ("fklit", "torch")},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(text + "\n", encoding="utf-8")
    return report


if __name__ == "__main__":
    main()

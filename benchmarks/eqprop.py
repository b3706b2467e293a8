"""What a training step of equilibrium propagation costs, against a naive complex loop, unrolled and plain backprop.

    python benchmarks/eqprop.py                        # conv net 32-64-128-128 and MLP 784-256-256-10; prints JSON
    python benchmarks/eqprop.py --free 250 --nudged 40 # the published numbers of iterations (takes minutes)

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
import cmath
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop import (
    MLP,
    Cauchy,
    ComplexStep,
    ConvNet,
    CorrectedNudge,
    EquilibriumNetwork,
    Homeostasis,
    RecurrentBackprop,
    Relaxation,
    Symmetric,
    unrolled,
)
from fklit.eqprop.network.links import ConvolutionLink, DenseLink, Link
from fklit.eqprop.training.backprop import feedforward

Step = Callable[[], Any]


def naive_pool(z: Tensor, size: int) -> Tensor:
    """Softmax pooling as one would write it."""
    n, c, h, w = z.shape
    windows = z.reshape(n, c, h // size, size, w // size, size).transpose(3, 4).flatten(4)
    p = (windows - windows.real.amax(-1, keepdim=True)).exp()
    return (p * windows).sum(-1) / p.sum(-1)


def naive_forward(link: Link, s: Tensor, weight: Tensor) -> Tensor:
    """Forward input of a link with any weights of its shape."""
    if isinstance(link, DenseLink):
        return F.linear(s.flatten(1), weight.to(s.dtype))
    assert isinstance(link, ConvolutionLink)
    z = F.conv2d(s, weight.to(s.dtype), padding=link.padding)
    return z if link.pool == 1 else naive_pool(z, link.pool)


def naive_backward(link: Link, s: Tensor, post: Tensor) -> Tensor:
    """Backward input: the transpose of the forward map with the backward weights, by autograd (which conjugates)."""
    with torch.enable_grad():
        s = s.detach().requires_grad_()
        out = naive_forward(link, s, link.aligned_backward_weight().detach())
        (product,) = torch.autograd.grad(out, s, post.conj().reshape(out.shape))
    return product.conj()


def naive_phase(
    network: EquilibriumNetwork, x: Tensor, start: list[Tensor], force: Tensor, iterations: int
) -> list[Tensor]:
    """Iterations with one nudge."""
    state = list(start)
    for _ in range(iterations):
        for color in network.colors:
            new = {}
            for i in color:
                shape, bias = network.layers[i].shape, network.biases[network.names[i]].detach()
                total: Any = bias.reshape(1, *shape) if bias.dim() == 1 else bias
                for name, (pre, post) in network.ends.items():
                    link = network.link(name)
                    if post == i:
                        source = x.to(state[i].dtype) if pre < 0 else state[pre]
                        total = total + naive_forward(link, source, link.forward_weight.detach()).view(-1, *shape)
                    elif pre == i and link.reciprocal:
                        total = total + naive_backward(link, state[i], state[post])
                new[i] = network.activations[i](total + force if i == network.output else total)
            for i, value in new.items():
                state[i] = value
    return state


def naive_step(network: EquilibriumNetwork, x: Tensor, y: Tensor, *, phases: int, beta: float, free: int, nudged: int):
    """Gradients of a step of the naive loop, by name."""
    zero = [x.new_zeros(len(x), *layer.shape) for layer in network.layers]
    with torch.no_grad():
        state = naive_phase(network, x, zero, x.new_zeros(()), free)
    out = state[network.output].requires_grad_()
    loss = F.cross_entropy(network.read((*state[:-1], out)), y)
    (gradient,) = torch.autograd.grad(loss, out)
    size = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.dim() - 1))
    error = [torch.zeros_like(part) for part in zero]
    with torch.no_grad():
        start = [part.detach().to(x.dtype.to_complex()) for part in state]
        for k in range(phases):
            b = beta * cmath.exp(2j * cmath.pi * k / phases)
            reached = naive_phase(network, x, start, b * gradient / size, nudged)
            for i, part in enumerate(reached):
                error[i] += (part / b).real / phases
    gradients = {}
    for name, (pre, post) in network.ends.items():
        link = network.link(name)
        source = x if pre < 0 else state[pre].detach()
        directions = [("forward_weight", post)]
        if link.backward_weight is not None:
            directions.append(("backward_weight", pre))
        for key, target in directions:
            transposed = key == "backward_weight" and isinstance(link, DenseLink)
            weight = getattr(link, key).detach()
            aligned = (weight.T if transposed else weight).requires_grad_()
            at = source if target == post else source.clone().requires_grad_()
            out = naive_forward(link, at, aligned)
            if target == post:
                product = out
            else:
                (product,) = torch.autograd.grad(out, at, state[post].detach().reshape(out.shape), create_graph=True)
            signal = (error[target] * size.view(-1, *[1] * (error[target].dim() - 1))).reshape(product.shape)
            (found,) = torch.autograd.grad(product, aligned, signal)
            gradients[f"links.{name}.{key}"] = found.T if transposed else found
    for i, name in enumerate(network.names):
        e = error[i] * size.view(-1, *[1] * (error[i].dim() - 1))
        gradients[f"biases.{name}"] = e.sum(0) if e.dim() == 2 else e.sum((0, 2, 3))[:, None, None]
    return gradients


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
    asked = parser.parse_args(words)
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    side = 4 * 2 ** (len(asked.channels) - 1)
    networks = {
        f"conv {'-'.join(map(str, asked.channels))}": (ConvNet((3, side, side), asked.channels), asked.conv_batch),
        f"mlp 784-{'-'.join(map(str, asked.hidden))}-10": (MLP((784,), asked.hidden, gain=0.5), asked.mlp_batch),
    }
    report: dict[str, Any] = {}
    for name, (network, batch) in networks.items():
        shape = network.input_shape
        coarse = torch.rand(batch, shape[0], 4, 4) if len(shape) == 3 else torch.rand(batch, 1, 1, 98)
        x = F.interpolate(coarse, shape[1:] if len(shape) == 3 else (1, *shape), mode="bilinear").view(batch, *shape)
        y = torch.randint(10, (batch,))
        report[name] = measure(network.to(asked.device), x.to(asked.device), y.to(asked.device), asked)
    report |= {
        "settings": {k: v for k, v in vars(asked).items() if k != "output"},
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

"""Ways to the fixed point of trained networks: what a training step costs, and whether the fixed points are the same.

Part of `benchmarks/eqprop.py --trained`. Each network is trained by its configuration; a cell is one way on one
network, kept as a file and not computed again. In a cell, steps of the way and of feed-forward backpropagation through
the same weights take turns on the same batches, and their processor times are compared. For the fixed points, the state
that a way reaches is relaxed on in double precision to 1e-11 by plain iterations, and compared with where plain
iterations from zero end.
"""

import copy
import importlib
import json
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from eqprop_steps import distance, gradients_of, seconds
from torch import Tensor

from fklit.eqprop import EqPropTask, EquilibriumNetwork, Execution, Relaxation, RelaxationResult
from fklit.eqprop.network.state import State
from fklit.eqprop.training.backprop import feedforward

ROOT = Path(__file__).resolve().parents[1]
NETS = {"digits": ("digits", 12), "fashion_mnist": ("fashion_mnist", 5), "conv": ("fashion_mnist_conv", 4)}
"""Configuration and epochs of each network."""
Loss = Callable[[Tensor, Tensor], Tensor]
FREE = {"max_iterations": 300, "tolerance": 1e-4}


@dataclass(frozen=True)
class Way:
    """A way to the fixed point: how to relax, from the fixed points of an epoch before or not, compiled or not."""

    relaxation: Relaxation
    warm: bool = False
    compiled: bool = False


PLAIN, TO_THE_END = Relaxation(**FREE), Relaxation(5000, 1e-11)
WAYS = {
    "plain": Way(PLAIN),
    "anderson": Way(Relaxation(**FREE, anderson_window=3)),
    "feedforward start": Way(Relaxation(**FREE, start="feedforward")),
    "anderson + feedforward start": Way(Relaxation(**FREE, anderson_window=3, start="feedforward")),
    "warm start": Way(PLAIN, warm=True),
    "compiled": Way(PLAIN, compiled=True),
    "compiled warm start": Way(PLAIN, warm=True, compiled=True),
}


@dataclass
class Trained:
    """A trained network with its weights of one epoch before, and images with labels."""

    network: EquilibriumNetwork
    before: EquilibriumNetwork
    x: Tensor
    y: Tensor
    batch: int

    @cached_property
    def exact(self) -> EquilibriumNetwork:
        """The network in double precision, not compiled."""
        network = copy.deepcopy(self.network).double()
        network.execution = Execution()
        return network

    @cached_property
    def ends_of_plain(self) -> RelaxationResult:
        """Where plain iterations from zero end."""
        return relaxed(self.exact, self.x.double(), TO_THE_END)


def train(name: str, data_dir: str | None, folder: Path, samples: int) -> Trained:
    """Train a network unless its checkpoints are there."""
    from fklit.cli import main

    config, epochs = NETS[name]
    path = ROOT / "configs" / "eqprop" / f"{config}.yaml"
    kept = [folder / name / f"epoch={epoch}.ckpt" for epoch in (epochs - 2, epochs - 1)]
    where = ["--data.data_dir", data_dir] if data_dir and name != "digits" else []
    if not all(file.is_file() for file in kept):
        checkpoint = {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(folder / name), "filename": "{epoch}", "save_top_k": -1},
        }
        quiet = [
            "--trainer.logger",
            "false",
            "--trainer.enable_progress_bar",
            "false",
            "--trainer.limit_val_batches",
            "0",
        ]
        words = ["fit", "--config", str(path), "--trainer.max_epochs", str(epochs), *where, *quiet]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main([*words, "--trainer.callbacks", json.dumps([checkpoint])])
    before, network = (EqPropTask.load_from_checkpoint(file, map_location="cpu").network.eval() for file in kept)
    data = yaml.safe_load(path.read_text())["data"]
    module, kind = data["class_path"].rsplit(".", 1)
    options = data["init_args"] | ({"data_dir": data_dir} if where else {})
    loader = getattr(importlib.import_module(module), kind)(**options)
    loader.setup("fit")
    batches, found = [], 0
    for batch in loader.train_dataloader():
        batches.append(batch)
        found += len(batch["y"])
        if found >= samples:
            break
    x, y = (torch.cat([batch[key] for batch in batches])[:samples] for key in ("x", "y"))
    return Trained(network, before, x, y, options["batch_size"])


def relaxed(network: EquilibriumNetwork, x: Tensor, how: Relaxation, start: State | None = None) -> RelaxationResult:
    """A free phase."""
    network.free = how
    return network.free_equilibrium(x, start=start).result


def doubled(state: State) -> State:
    """The same in double precision."""
    return tuple(part.double() for part in state)


def apart(left: State, right: State) -> Tensor:
    """Largest distance of an activity of each sample."""
    pairs = zip(left, right, strict=True)
    return torch.stack([(a - b).abs().flatten(1).amax(1) for a, b in pairs]).amax(0)


def gradient(network: EquilibriumNetwork, x: Tensor, y: Tensor, start: State | None) -> dict[str, Tensor]:
    """The gradient of a batch in double precision, with nudged phases to the end."""
    network.zero_grad()
    equilibrium = network.free_equilibrium(x, start=start)
    F.cross_entropy(network.read(network.attach(equilibrium)), y).backward()
    return gradients_of(network)


def cell(net: Trained, way: str, *, repeats: int) -> dict[str, Any]:
    """Iterations, fixed points, gradients and times of one way to the fixed point."""
    how, network, tolerance = WAYS[way].relaxation, net.network, FREE["tolerance"]
    start = relaxed(net.before, net.x, PLAIN).state if WAYS[way].warm else None
    network.execution = Execution(compile=WAYS[way].compiled)
    result = relaxed(network, net.x, how, start)
    iterations = result.iterations.double()

    # Fixed points: where both end in double precision, and how far a way stops before that
    ends = relaxed(net.exact, net.x.double(), TO_THE_END, doubled(result.state))
    wanted = net.ends_of_plain
    both = ends.converged & wanted.converged
    same = apart(ends.state, wanted.state) < 10 * tolerance
    left = apart(doubled(result.state), ends.state)
    plain = apart(doubled(result.state), wanted.state)

    # Gradients of a batch whose samples end at the same fixed points, to the end of both phases
    rows = (both & same).nonzero().squeeze(1)[: net.batch]
    exact = copy.copy(net.exact)
    exact.estimator = copy.copy(exact.estimator)
    exact.estimator.relaxation = Relaxation(2000, 1e-12)
    chosen = (net.x[rows].double(), net.y[rows])
    exact.free = TO_THE_END
    reference = gradient(exact, *chosen, None)
    exact.free = replace(how, max_iterations=TO_THE_END.max_iterations, tolerance=TO_THE_END.tolerance)
    exact.execution = network.execution
    found = gradient(exact, *chosen, None if start is None else tuple(part[rows].double() for part in start))

    def feedforward_loss(bx: Tensor, by: Tensor) -> Tensor:
        return F.cross_entropy(network.read(feedforward(network, bx)), by)

    compiled_loss = torch.compile(feedforward_loss) if WAYS[way].compiled else None
    times: dict[str, list[float]] = {}
    for repeat in range(-1, repeats):  # the first compiles
        for i in range(0, min(len(net.x), 4 * net.batch), net.batch):
            bx, by = net.x[i : i + net.batch], net.y[i : i + net.batch]
            bs = None if start is None else tuple(part[i : i + net.batch] for part in start)

            def step(bx: Tensor = bx, by: Tensor = by, bs: State | None = bs) -> None:
                network.zero_grad()
                network.free = how
                state = network.attach(network.free_equilibrium(bx, start=bs))
                F.cross_entropy(network.read(state), by).backward()

            def backprop(loss: Loss, bx: Tensor = bx, by: Tensor = by) -> None:
                network.zero_grad()
                loss(bx, by).backward()

            steps = {"way": step, "feedforward": partial(backprop, feedforward_loss)}
            if compiled_loss is not None:
                steps["compiled feedforward"] = partial(backprop, compiled_loss)
            for name, work in steps.items():
                spent = seconds(work, net.x.device)
                if repeat >= 0:
                    times.setdefault(name, []).append(spent)
    middle = {name: statistics.median(values) for name, values in times.items()}
    steps_of = {f"steps_of_{name.replace(' ', '_')}": middle["way"] / middle[name] for name in middle if name != "way"}
    return {
        **steps_of,
        "milliseconds": {name: 1e3 * value for name, value in middle.items()},
        "iterations": {
            "mean": float(iterations.mean()),
            "p50": float(iterations.quantile(0.5)),
            "p90": float(iterations.quantile(0.9)),
            "max": float(iterations.max()),
        },
        "samples": len(iterations),
        "unconverged": int((~result.converged).sum()),
        "other_fixed_point": int((both & ~same).sum()),
        "without_fixed_point": int((~both).sum()),
        "beyond_10_tolerances_of_its_fixed_point": int((both & (left > 10 * tolerance)).sum()),
        "beyond_10_tolerances_of_plain": int((both & (plain > 10 * tolerance)).sum()),
        "gradient_difference": distance(found, reference),
    }


def summarize(cells: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """For each network the cheapest way that leaves every fixed point where it is, and all ways.

    It leaves no more samples unconverged than plain iterations do.
    """
    best, which, every = {}, {}, {}
    for name, ways in cells.items():
        every[name] = {way: entry["steps_of_feedforward"] for way, entry in ways.items()}
        most = ways["plain"]["unconverged"] / ways["plain"]["samples"]
        clean = [
            way for way, e in ways.items() if e["other_fixed_point"] == 0 and e["unconverged"] / e["samples"] <= most
        ]
        if clean:
            which[name] = min(clean, key=lambda way: every[name][way])
            best[name] = every[name][which[name]]
    return {"steps_of_feedforward": best, "way": which, "all": every}


def trained(
    nets: Sequence[str],
    ways: Sequence[str],
    data_dir: str | None,
    folder: Path,
    *,
    samples: int = 1000,
    repeats: int = 5,
    output: Path | None = None,
) -> dict[str, Any]:
    """All cells that are asked for, the others of the output file if it is there, and the summary."""
    if data_dir is None and set(nets) - {"digits"}:
        raise SystemExit(
            "expected --data_dir with Fashion-MNIST for its networks, got none; give it, or --nets digits."
        )
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    if output is not None and output.is_file():
        before = json.loads(output.read_text(encoding="utf-8"))
        if "cells" not in before:
            raise SystemExit(f"expected figures of --trained in {output}, got others; give another --output.")
        cells = before["cells"]
    for name in nets:
        net = None
        for way in ways:
            file = folder / f"{name} {way} {samples} {repeats}.json"
            if not file.is_file():
                net = train(name, data_dir, folder, samples) if net is None else net
                found = cell(net, way, repeats=repeats)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
                print(name, way, json.dumps(found), flush=True)
            cells.setdefault(name, {})[way] = json.loads(file.read_text())
    return {"cells": cells, "summary": summarize({name: ways for name, ways in cells.items() if "plain" in ways})}

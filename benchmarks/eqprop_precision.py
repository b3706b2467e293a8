"""Whether the response to a nudge survives bfloat16: cosines of gradients with those of float32.

    python benchmarks/eqprop_precision.py --output docs/results/eqprop_precision.json

A convolutional network of the paper's topology, 8-16-32-32, untied, after some steps of training; the free phase in
float32. Then the response to the nudge of the loss is measured in float32, with the convolutions under autocast to
bfloat16, with all states in bfloat16, and with the inputs of convolutions rounded to the ten bits of TF32. All take the
same number of iterations. The gradient of each kernel is compared with that of float32: the smallest cosine of the
recurrent kernels and of the input's, and the distance of all relative to their norm. fklit itself runs no response in
any of these formats.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fklit.eqprop import (
    ConvNet,
    CrossEntropyNudge,
    Equilibrium,
    Estimator,
    ExactResponse,
    RecurrentBackprop,
    Relaxation,
    Symmetric,
)
from fklit.eqprop.learning.autograd import local_gradients

CLASSES = 10
_PRODUCTS = (F.conv2d, F.conv_transpose2d, torch.conv2d, torch.conv_transpose2d, F.linear)


class TF32(TorchFunctionMode):
    """Rounds the float32 inputs of convolutions and matrix products to ten bits of mantissa, as a tensor core does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Round and go on."""
        if func in _PRODUCTS:
            args = (*(_rounded(value) for value in args[:2]), *args[2:])
        return func(*args, **(kwargs or {}))


def _rounded(values: Tensor) -> Tensor:
    return ((values.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32).view(values.shape)


@contextmanager
def _autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


def _as(equilibrium: Equilibrium, dtype: torch.dtype) -> Equilibrium:
    """The same free equilibrium, in another number format."""

    def cast(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(part.to(dtype) for part in state)

    result = replace(equilibrium.result, state=cast(equilibrium.state))
    return Equilibrium(equilibrium.x.to(dtype), cast(equilibrium.drive), result)


FORMATS: dict[str, tuple[torch.dtype, Callable[[], Any]]] = {
    "float32": (torch.float32, nullcontext),
    "TF32": (torch.float32, TF32),
    "bfloat16 autocast": (torch.float32, _autocast),
    "bfloat16 states": (torch.bfloat16, nullcontext),
}


def gradients(
    network: ConvNet, estimator: Estimator, equilibrium: Equilibrium, nudge: CrossEntropyNudge, name: str
) -> dict[str, Tensor]:
    """Gradients of the dynamics' kernels, with the response in one of the formats."""
    dtype, context = FORMATS[name]
    with torch.no_grad(), context():
        response = estimator.respond(network, _as(equilibrium, dtype), nudge)
    error = tuple(part.float() for part in response.error)
    weights = network.dynamics_parameters()
    found, _ = local_gradients(network, equilibrium.state, equilibrium.x, error, weights, to_input=False)
    return {key: value for key, value in found.items() if key.startswith("links.")}


def pictures(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Smooth pictures whose class is the place of their brightest stripe."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (samples,), generator=generator)
    coarse = 0.5 * torch.rand(samples, 3, 4, CLASSES, generator=generator)
    coarse[torch.arange(samples), :, :, y] += 0.5
    return F.interpolate(coarse, (32, 32), mode="bilinear"), y


def trained(seed: int, steps: int) -> ConvNet:
    """A network after some steps of recurrent backprop."""
    torch.manual_seed(seed)
    network = ConvNet((3, 32, 32), (8, 16, 32, 32), num_classes=CLASSES, angle=0.0)
    network.free, network.unconverged = Relaxation(100, 1e-3), "drop"
    network.estimator = RecurrentBackprop(relaxation=Relaxation(40, 1e-3))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(steps):
        x, y = pictures(16, 1000 * seed + step)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


def measure(seed: int, steps: int, samples: int) -> dict[str, dict[str, dict[str, float]]]:
    """By estimator and format: smallest cosines and the relative distance to float32."""
    network = trained(seed, steps)
    network.free = Relaxation(300, 1e-6)
    x, y = pictures(samples, 10**6 + seed)
    equilibrium, nudge = network.free_equilibrium(x), CrossEntropyNudge(y, CLASSES)
    how = Relaxation(20, 0.0)
    estimators: dict[str, Estimator] = {
        f"N = 2, beta {beta:g}": Symmetric(beta, relaxation=how) for beta in (0.1, 0.5, 1.0)
    }
    estimators["exact response"] = ExactResponse(relaxation=how)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, estimator in estimators.items():
        exact = gradients(network, estimator, equilibrium, nudge, "float32")
        found[name] = {}
        for number_format in list(FORMATS)[1:]:
            got = gradients(network, estimator, equilibrium, nudge, number_format)
            cosines = {key: float(F.cosine_similarity(got[key].flatten(), exact[key].flatten(), 0)) for key in exact}
            gaps = torch.cat([(got[key] - exact[key]).flatten() for key in exact])
            found[name][number_format] = {
                "cosine_input": cosines["links.input-conv1.forward_weight"],
                "cosine_recurrent": min(value for key, value in cosines.items() if "input" not in key),
                "distance": float(gaps.norm() / torch.cat([part.flatten() for part in exact.values()]).norm()),
            }
    return found


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table of means and smallest values over seeds, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of training")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--output", type=Path, default=None, help="write the JSON here, too")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    runs = [measure(seed, asked.steps, asked.samples) for seed in range(asked.seeds)]
    print(
        "| response | format | cosine, input kernel | cosine, worst recurrent one | distance |\n|---|---|---|---|---|"
    )
    for name, formats in runs[0].items():
        for number_format in formats:
            cells = [run[name][number_format] for run in runs]
            columns = [[cell[key] for cell in cells] for key in ("cosine_input", "cosine_recurrent", "distance")]
            shown = [
                f"{sum(c) / len(c):.4f} (worst {worst(c):.4f})"
                for c, worst in zip(columns, (min, min, max), strict=True)
            ]
            print(f"| {name} | {number_format} |", " | ".join(shown), "|")
    found = {
        "seeds": asked.seeds,
        "steps": asked.steps,
        "samples": asked.samples,
        "runs": runs,
        "torch": torch.__version__,
    }
    if asked.output is not None:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()

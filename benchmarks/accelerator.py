"""What a GPU gives: the shipped pipeline steered and corrected in three precisions, a simulation, and EP under TF32.

    python benchmarks/accelerator.py --device cuda --out outputs/accelerator.json

Each part is a check and a timing: at scale 0 samples equal the pipeline's own, steered and base rewards come from the
same run, a corrected mixture is held against its exact law, and equilibrium-propagation gradients against float64.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fklit
from fklit.analytic import GaussianMixture
from fklit.correctors import FittedControl, VariancePreserving
from fklit.eqprop import ConvNet, RecurrentBackprop, Relaxation, Symmetric
from fklit.feynman_kac import group_generators
from fklit.metrics.distributions import wasserstein

PROMPTS = ["a yellow heart above a frog", "a red heart left of a dog", "two cats", "a green apple"]
CALL = {"num_inference_steps": 30, "eta": 1.0, "guidance_scale": 1.0}


def seconds(device: torch.device, call: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Least wall time of a few calls after a warm-up, and what the last returned."""
    call()
    times, found = [], None
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        found = call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times), found


def steering(device: torch.device) -> list[dict[str, Any]]:
    """The shipped pipeline in three precisions: equality with its own call, rewards and seconds."""
    rows = []
    for dtype in ("float32", "bfloat16", "float16"):
        source = fklit.PipelineSource("fklit:emoji_scenes", dtype=dtype)
        pipeline = source.load().to(device).pipeline
        reward = fklit.rewards.CLIPScore("fklit:emoji_clip").to(device)
        given = {"reward": reward, "num_particles": 8, "pipeline_kwargs": CALL}
        generators = [source for source in group_generators(0, len(PROMPTS)) for _ in range(8)]
        own = pipeline(prompt=PROMPTS, num_images_per_prompt=8, generator=generators, output_type="pt", **CALL).images
        base_seconds, base = seconds(device, lambda: fklit.steer(pipeline, PROMPTS, reward_scale=0.0, **given))  # noqa: B023
        fk_seconds, fk = seconds(device, lambda: fklit.steer(pipeline, PROMPTS, reward_scale=300.0, **given))  # noqa: B023
        guided = fklit.correct(
            pipeline, PROMPTS, guidance_scale=2.0, pipeline_kwargs={"num_inference_steps": 30, "eta": 1.0}
        )
        rows.append(
            {
                "dtype": dtype,
                "equals the pipeline": bool(torch.equal(base.samples.flatten(0, 1), own.float().cpu())),
                "base reward, best of 8": float(base.rewards.amax(dim=1).mean()),
                "steered reward, best": float(fk.rewards.amax(dim=1).mean()),
                "base seconds": base_seconds,
                "steered seconds": fk_seconds,
                "peak GiB": fk.budget.peak_memory_bytes / 2**30,
                "corrected log_weight_std": float(guided.log_weight_std.nanmean()),
                "finite": bool(torch.isfinite(fk.samples).all() and torch.isfinite(guided.samples).all()),
            }
        )
    return rows


def simulation(device: torch.device) -> dict[str, float]:
    """A mixture annealed to 2.5 with a fitted control: distance to the exact law and seconds."""
    law = GaussianMixture([[-1.5], [1.2]], [0.15, 0.3], [0.35, 0.65])
    target = fklit.Target.annealed(law.on(VariancePreserving()), 2.5)

    def call() -> Any:
        return fklit.simulate(
            target, num_particles=4000, num_groups=4, control=FittedControl(), dtype=torch.float64, device=device
        )

    took, result = seconds(device, call)
    x = torch.linspace(-6, 6, 20001, dtype=torch.float64).unsqueeze(1)
    mass = (2.5 * law.log_density(x)).softmax(dim=0)
    exact = x[torch.multinomial(mass, 4000, replacement=True, generator=torch.Generator().manual_seed(0))]
    drawn = [result.sample(4000, seed=seed)[group].cpu() for seed in range(1) for group in range(4)]
    distance = sum(wasserstein(points, exact, seed=0)[0] for points in drawn) / len(drawn)
    return {"W1 to the exact law": distance, "min ESS": float(result.min_ess.mean()), "seconds": took}


def equilibrium_propagation(device: torch.device) -> list[dict[str, Any]]:
    """Error of the first convolution's gradient against float64, by precision of the convolutions."""
    network = ConvNet((3, 32, 32), (32, 64, 64, 64), num_classes=10, free=Relaxation(200, 1e-6)).to(device)
    x = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.randint(10, (32,), generator=torch.Generator().manual_seed(1)).to(device)
    exact = network.double()
    exact.free = Relaxation(2000, 1e-12)
    exact.estimator = RecurrentBackprop(relaxation=Relaxation(2000, 1e-12))
    reference = _gradient(exact, x.double(), y)
    network.float()
    network.free, network.estimator = Relaxation(200, 1e-6), Symmetric(0.1, relaxation=Relaxation(200, 1e-7))
    rows = []
    before = torch.backends.cudnn.allow_tf32
    for tf32 in (False, True):
        torch.backends.cudnn.allow_tf32 = tf32
        took, found = seconds(device, lambda: _gradient(network, x, y))
        error = float((found.double() - reference).norm() / reference.norm())
        rows.append({"TF32 allowed": tf32, "relative error": error, "seconds": took})
    torch.backends.cudnn.allow_tf32 = before
    return rows


def _gradient(network: Any, x: Tensor, y: Tensor) -> Tensor:
    network.zero_grad()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    name = next(name for name, _ in network.named_parameters() if "input" in name)
    return dict(network.named_parameters())[name].grad.clone()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Run all parts, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"}
    for part in (steering, simulation, equilibrium_propagation):
        found[part.__name__] = part(device)
        print(json.dumps({part.__name__: found[part.__name__]}, indent=1), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What a GPU gives: the shipped pipeline steered and corrected in three precisions, a simulation, and EP under TF32.

    python benchmarks/accelerator.py --device cuda --out outputs/accelerator.json

Each part is a check and a timing: at scale 0 samples equal the pipeline's own, steered and base rewards come from the
same run, a corrected mixture is held against its exact law, and equilibrium-propagation gradients against float64.
`benchmarks/device.py` has models of full size and random weights instead, and needs fewer packages.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from device_checks import equilibrium_propagation

import fklit
from fklit.analytic import GaussianMixture
from fklit.correctors import FittedControl, VariancePreserving
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

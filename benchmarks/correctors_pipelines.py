"""The parts of benchmarks/correctors.py on corrected guidance through pipelines: `pipelines` and `overhead`."""

import time
from typing import Any

import torch
from correctors_simulation import FIRST, GRID, SECOND, Figures, Part, density

from fklit.analytic import MixturePipeline
from fklit.correctors import Target, VariancePreserving, correct
from fklit.metrics.distributions import w1_to_density


def overhead() -> Part:
    """A corrected call of the shipped pipeline over a plain one of the same samples, seeds as repetitions."""
    from fklit.pipelines.source import PipelineSource

    loaded: list[Any] = []

    def cell(seed: int) -> Figures:
        if not loaded:
            loaded.append(PipelineSource("fklit:emoji_scenes").pipeline)
            loaded[0].set_progress_bar_config(disable=True)
            cell(seed)  # the first calls warm up
        options = {"num_inference_steps": 30, "eta": 1.0}
        generators = [torch.Generator().manual_seed(seed)] * 8
        start = time.perf_counter()
        loaded[0]("a dog", guidance_scale=2.0, num_images_per_prompt=8, generator=generators, **options)
        middle = time.perf_counter()
        correct(
            loaded[0],
            "a dog",
            guidance_scale=2.0,
            num_particles=8,
            scheduler="keep",
            seed=seed,
            pipeline_kwargs=options,
        )
        end = time.perf_counter()
        return {"plain": middle - start, "corrected": end - middle, "ratio": (end - middle) / (middle - start)}

    yield {"method": "shipped text-to-image model, K = 8, 30 steps"}, cell


def through_schedulers() -> Part:
    """Guidance through diffusers' schedulers and the interception: what a user's pipeline gets."""
    import diffusers

    first, second = (law.on(VariancePreserving()) for law in (FIRST, SECOND))
    mass, _ = density(Target.guided(second, first, 2.0))
    for name in ("DDIMScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler"):
        options = {} if name.startswith("Euler") else {"clip_sample": False}
        more = {"eta": 1.0} if name.startswith("DDIM") else {}
        for steps in (15, 30, 60):
            for way, correction, increment in (
                ("heuristic", 0.0, "net_interval"),
                ("corrected, net interval", 1.0, "net_interval"),
                ("corrected, kernel", 1.0, "kernel"),
            ):

                def cell(
                    seed: int,
                    name: str = name,
                    options: dict[str, Any] = options,
                    more: dict[str, Any] = more,
                    steps: int = steps,
                    correction: float = correction,
                    increment: Any = increment,
                ) -> Figures:
                    pipeline = MixturePipeline({"second": SECOND}, FIRST, getattr(diffusers, name)(**options))
                    result = correct(
                        pipeline,
                        "second",
                        guidance_scale=2.0,
                        num_particles=4000,
                        correction=correction,
                        increment=increment,
                        scheduler="keep",
                        seed=seed,
                        pipeline_kwargs={"num_inference_steps": steps, **more},
                    )
                    x, weights = result.samples.flatten().double(), result.log_weights[0].exp()
                    return {"w1": w1_to_density(x, weights, GRID, mass), "ess": float(result.ess[-1, 0]) / 4000}

                yield {"scheduler": name, "steps": str(steps), "method": way}, cell

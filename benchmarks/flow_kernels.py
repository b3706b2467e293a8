"""Kernels of flow matching on laws with exact velocity: final law, whole path, and noise off the plane of the data.

    python benchmarks/flow_kernels.py                 # 10 minutes; writes docs/results/flow_kernels.json
    python benchmarks/flow_kernels.py --samples 2000  # seconds

Laws: a Gaussian of variance 0.3; two modes; and a plane: eight dimensions of which the data fill two (two modes), with
a standard deviation of .05 in the other six. Grids: that of SD3 (shift 3, ends in .0089 and 0) and of Flux (dynamic
shift 1.15, ends in .26 to .03 and 0). Figures:

- `w1`: W1 between sampled and exact draws, the mean over coordinates; `floor` is that of two sets of exact draws.
- `path`: the largest error of the mean variance of a coordinate along the path.
- `off_plane`: variance in the six thin dimensions over the truth; above 1 is noise that would be seen.
"""

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fklit.analytic.gaussian import GaussianMixture
from fklit.pipelines.flow.kernel import FlowKernel
from fklit.pipelines.flow.names import FlowKernelName, get_flow_kernel
from fklit.pipelines.transition import draw

STEPS = (10, 28, 50, 200)
KERNELS: tuple[tuple[str, float | None], ...] = (
    ("capped_dpmsolver++", None),
    ("capped_dpmsolver++", 0.5),
    ("sde-dpmsolver++", None),
    ("sde", None),
    ("dance", None),
    ("precise", None),
    ("cps", None),
    ("ode", None),
)
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "flow_kernels.json"


def laws() -> dict[str, GaussianMixture]:
    """Return the three laws."""
    wide, thin = torch.full((2,), 0.1), torch.full((6,), 0.05**2)
    centers = torch.zeros(2, 8)
    centers[0, :2], centers[1, :2] = torch.tensor([1.0, 0.5]), torch.tensor([-1.0, -0.5])
    return {
        "gauss": GaussianMixture([[0.0]], 0.3),
        "two": GaussianMixture([[-1.0], [1.0]], 0.04, [0.4, 0.6]),
        "plane": GaussianMixture(centers, torch.cat([wide, thin]).expand(2, 8)),
    }


def grid(name: str, steps: int) -> list[float]:
    """Return the noise levels of a run, which end in 0, as the scheduler itself makes them."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    if name == "sd3":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(steps)
    else:
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), mu=1.15)
    return [float(sigma) for sigma in scheduler.sigmas]


def sample(law: GaussianMixture, kernel: FlowKernel | None, levels: list[float], x: Tensor, source: Any) -> Any:
    """Return samples and the largest error of the mean variance along the path.

    Args:
        law: of the data.
        kernel: takes the steps; None for the ODE.
        levels: noise levels from 1 to 0.
        x: noise (N, d).
        source: a generator.
    """
    truth, worst, previous, before = law.moments()[1], 0.0, None, None
    for sigma, after in itertools.pairwise(levels):
        x0 = torch.zeros_like(x) + law.moments()[0] if sigma >= 1 else law.denoised(x, 1 - sigma, sigma)
        if kernel is None:
            x = x + (after - sigma) * (x - x0) / sigma
        else:
            moved = kernel.transition(x, x0, sigma, after, previous=previous, previous_sigma=before)
            x = draw(moved, torch.randn(x.shape, generator=source, dtype=x.dtype))
        error = x.var(dim=0) - ((1 - after) ** 2 * truth + after**2)
        worst, previous, before = max(worst, float(error.abs().mean())), x0, sigma
    return x, worst


def w1(a: Tensor, b: Tensor) -> float:
    """Return W1 of each coordinate, averaged, between as many draws."""
    return float((a.sort(dim=0).values - b.sort(dim=0).values).abs().mean())


def main() -> None:
    """Run all kernels on all laws and grids, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000, help="draws of each cell")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, rows, floors = time.perf_counter(), [], {}
    for law_name, law in laws().items():
        source = torch.Generator().manual_seed(0)
        exact, other = (law.sample((options.samples,), source, dtype=torch.float64) for _ in range(2))
        floors[law_name] = w1(exact, other)
        for grid_name in ("sd3", "flux"):
            for name, level in KERNELS:
                kernel = None if name == "ode" else get_flow_kernel(_name(name), level)
                row: dict[str, Any] = {"law": law_name, "grid": grid_name, "kernel": name, "w1": [], "path": []}
                row["noise_level"] = 0.0 if kernel is None else kernel.noise_level
                if law_name == "plane":
                    row["off_plane"] = []
                for steps in STEPS:
                    source = torch.Generator().manual_seed(1)
                    x = torch.randn(options.samples, law.dim, generator=source, dtype=torch.float64)
                    x, worst = sample(law, kernel, grid(grid_name, steps), x, source)
                    row["w1"].append(_rounded(w1(x, exact)))
                    row["path"].append(_rounded(worst))
                    if law_name == "plane":
                        row["off_plane"].append(_rounded(float(x[:, 2:].var(dim=0).mean()) / 0.05**2))
                rows.append(row)
                print(
                    *(row[key] for key in ("law", "grid", "kernel", "noise_level")), *_shown(row), sep="  ", flush=True
                )
    found = {"samples": options.samples, "steps": STEPS, "floor": floors, "rows": rows}
    options.output.write_text(json.dumps({**found, "seconds": round(time.perf_counter() - started)}, indent=1) + "\n")
    print(f"figures: {options.output}")


def _name(name: str) -> FlowKernelName:
    return name  # type: ignore[return-value]  # one of KERNELS


def _rounded(value: float) -> float:
    return float(f"{value:.3g}") if math.isfinite(value) else value


def _shown(row: dict[str, Any]) -> list[str]:
    return [f"{key} {'/'.join(f'{v:.3g}' for v in row[key])}" for key in ("w1", "path", "off_plane") if key in row]


if __name__ == "__main__":
    main()

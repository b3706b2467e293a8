"""Feynman-Kac correctors against their heuristics and against exact answers.

    python benchmarks/correctors.py --only mixtures gmm40 variance throughput --seeds 5
    python benchmarks/correctors.py --only emoji            # the shipped text-to-image model; resumes where it stopped

mixtures    1-D mixtures with a known answer: W1 of the heuristic sampler, of plain correctors, and with drift control.
pipelines   the same guidance through diffusers' schedulers and the interception, as a user's pipeline does.
gmm40       the forty Gaussians of arXiv 2503.02819, section 5.2: annealing to a third of the temperature, 10,000
            particles, 1,000 steps. W1, W2 (exact assignment of 2,000 points), total variation (200 x 200 cells),
            squared MMD, energy W1 and W2, and that of the masses of modes; lengths in the units of the data.
variance    standard deviation over seeds of log Z, and terminal ESS / N without resampling, with and without control.
throughput  seconds for N = 4000, 400 steps, two analytic experts.
overhead    a corrected call of the shipped pipeline over a plain one, in seconds.
emoji       one weighted draw from each group of K = 2, 4, 8, one plain draw, and best of K at the same denoiser calls.
information nats that the prompts of the text-to-image model tell at each step, against the prompts' entropy.
summaries   what a linear drift control on summaries of its latents explains of the weights.
pictures    guidance with exact denoisers of 1,800 pictures (needs `python -m fklit.data fetch emoji`).

Every cell (method, seed) is one line of JSON under --output and is not computed again. Means are over seeds, with
standard errors. `benchmarks/correctors_tables.py` makes the tables of the guide, with the paper's figures beside ours.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fklit.analytic import GaussianMixture
from fklit.analytic.mixture_pipeline import MixturePipeline
from fklit.analytic.mixtures import forty_gaussians, power
from fklit.correctors import (
    EulerMaruyama,
    FittedControl,
    GaussianControl,
    KernelWeight,
    LinearFlow,
    NoisePath,
    Ramp,
    ReverseKernel,
    Target,
    Uncorrected,
    VarianceExploding,
    VariancePreserving,
    correct,
    simulate,
)
from fklit.feynman_kac.resampling import systematic
from fklit.metrics.distributions import (
    energy_wasserstein,
    mmd,
    mode_masses,
    total_variation,
    w1_to_density,
    wasserstein,
)

FIRST = GaussianMixture([[-1.5], [1.2]], [0.15, 0.30], [0.35, 0.65])
SECOND = GaussianMixture([[-1.2], [1.6]], [0.25, 0.20], [0.7, 0.3])
THIRD = GaussianMixture([[0.4]], 1.0)
GRID = torch.linspace(-8, 8, 16001, dtype=torch.float64)
Figures = dict[str, float]
Part = Iterator[tuple[dict[str, Any], Callable[[int], Figures]]]


def targets(path: NoisePath) -> dict[str, Target]:
    """The 1-D targets."""
    first, second, third = (law.on(path) for law in (FIRST, SECOND, THIRD))
    return {
        "annealing 2.5": Target.annealed(first, 2.5),
        "annealing 0.5": Target.annealed(first, 0.5),
        "guidance 2": Target.guided(second, first, 2.0),
        "geometric average": Target.geometric_average([first, second]),
        "product": Target.product([first, second]),
        "product squared": Target.annealed(Target.product([first, second]), 2.0),
        "exponents 1.2, 0.8, -0.5": Target.product([first, second, third], [1.2, 0.8, -0.5]),
    }


def density(target: Target) -> tuple[torch.Tensor, float]:
    """Masses on the grid and log Z of a target's law of data, by quadrature."""
    log_gamma = target.log_gamma(GRID[None, :, None], 0.0)[0]
    spacing = float(GRID[1] - GRID[0])
    return torch.softmax(log_gamma, dim=0), float(torch.logsumexp(log_gamma, dim=0)) + math.log(spacing)


def one_dimensional(target: Target, seed: int, **options: Any) -> Figures:
    """W1, errors of the variance and of log Z, and the final ESS of a run of 4,000 particles and 400 steps."""
    mass, log_z = density(target)
    settings = {"num_particles": 4000, "num_steps": 400, "dtype": torch.float64, **options}
    start = time.process_time()
    run = simulate(target, seed=seed, **settings)
    seconds = time.process_time() - start
    x, weights = run.samples[0, :, 0], torch.softmax(run.log_weights[0], dim=0)
    mean = float((weights * x).sum())
    truth = float((mass * (GRID - (mass * GRID).sum()).square()).sum())
    return {
        "w1": w1_to_density(x, weights, GRID, mass),
        "variance_error": float((weights * (x - mean).square()).sum()) - truth,
        "log_z_error": float(run.log_z[0]) - log_z,
        "ess": float(run.ess[-1, 0]) / settings["num_particles"],
        "resamplings": float(run.resampled.sum()),
        "cpu_seconds": seconds,
    }


def mixtures() -> Part:
    """W1 of the heuristic, of plain correctors and with control; few steps; other paths."""
    ways: dict[str, dict[str, Any]] = {
        "heuristic": {"increment": Uncorrected()},
        "corrected": {"ess_threshold": 1.0},
        "corrected, fitted control": {"control": FittedControl(), "ess_threshold": 0.5},
    }
    for name, target in targets(VariancePreserving()).items():
        for way, options in ways.items():
            yield {"target": name, "method": way}, lambda seed, t=target, o=options: one_dimensional(t, seed, **o)
    flow = targets(LinearFlow(stop=0.002))["guidance 2"]
    for way in ("heuristic", "corrected"):
        yield (
            {"target": "guidance 2, flow path", "method": way},
            lambda seed, o=ways[way]: one_dimensional(flow, seed, num_steps=300, **o),
        )
    guided = targets(VariancePreserving())["guidance 2"]
    for steps in (15, 30, 60):
        few: dict[str, dict[str, Any]] = {
            "heuristic": {"increment": Uncorrected()},
            "corrected, rate": {"ess_threshold": 0.5},
            "corrected, kernel weight": {
                "ess_threshold": 0.5,
                "proposal": ReverseKernel(),
                "increment": KernelWeight(),
            },
        }
        for way, options in few.items():
            yield (
                {"target": f"guidance 2, {steps} steps", "method": way},
                lambda seed, n=steps, o=options: one_dimensional(guided, seed, num_steps=n, **o),
            )


def variance() -> Part:
    """Log Z over seeds, and the ESS that is left when nothing is resampled."""
    ways: dict[str, dict[str, Any]] = {
        "plain, no resampling": {"ess_threshold": 0.0},
        "Gaussian control, no resampling": {"ess_threshold": 0.0, "control": GaussianControl()},
        "fitted control, no resampling": {"ess_threshold": 0.0, "control": FittedControl()},
        "plain, ESS < 0.9": {"ess_threshold": 0.9},
        "fitted control, ESS < 0.5": {"ess_threshold": 0.5, "control": FittedControl()},
    }
    known = targets(VariancePreserving())
    for name in ("annealing 2.5", "product", "guidance 2"):
        for way, options in ways.items():
            yield (
                {"target": name, "method": way},
                lambda seed, t=known[name], o=options: one_dimensional(t, seed, num_particles=2000, **o),
            )
    # Two modes along the first of 39 axes; Gaussian, and so favorable, in the others.
    means = torch.zeros(2, 39)
    means[:, 0] = torch.tensor([-1.5, 1.2])
    spreads = torch.ones(2, 39)
    spreads[:, 0] = torch.tensor([0.15, 0.30])
    wide = Target.annealed(GaussianMixture(means, spreads, [0.35, 0.65]).on(VariancePreserving()), 2.0)
    for way, options in ways.items():
        if "no resampling" in way:
            yield {"target": "annealing 2, 39 axes", "method": way}, lambda seed, o=options: spread(wide, seed, **o)


def spread(target: Target, seed: int, **options: Any) -> Figures:
    """Final ESS / N and standard deviation of the log weights where no density on a grid exists."""
    run = simulate(target, num_particles=2000, num_steps=250, seed=seed, dtype=torch.float64, **options)
    return {"ess": float(run.ess[-1, 0]) / 2000, "log_weight_std": float(run.log_weights[0].std())}


def gmm40(particles: int = 10_000, steps: int = 1_000) -> Part:
    """Annealing the forty Gaussians to beta = 3."""
    law = forty_gaussians()
    expert = law.on(VarianceExploding(sigma_min=0.01, sigma_max=10.0))
    annealed = Target.annealed(expert, 3.0)
    late, late_ito = (Target.annealed(expert, Ramp.late(3.0, start=0.6), log_density=kind) for kind in ("exact", "ito"))
    always: dict[str, Any] = {"ess_threshold": 1.0}
    ways: dict[str, tuple[Target, dict[str, Any]]] = {
        "late ramp, FKC": (late, always),
        "target score": (annealed, {"increment": Uncorrected()}),
        "tempered noise": (annealed, {"increment": Uncorrected(), "proposal": EulerMaruyama("tempered_noise")}),
        "target score, FKC": (annealed, always),
        "late ramp, FKC, Ito log densities": (late_ito, always),
        "fitted control, ESS < 0.5": (annealed, {"ess_threshold": 0.5, "control": FittedControl()}),
        "tempered noise, FKC": (annealed, {**always, "proposal": EulerMaruyama("tempered_noise")}),
    }
    truth = power(law, 3)
    yield {"method": "truth against truth"}, lambda seed: forty_figures(truth, law, draw(truth, seed, particles), seed)
    for way, (target, options) in ways.items():

        def cell(seed: int, target: Target = target, options: dict[str, Any] = options) -> Figures:
            start = time.process_time()
            run = simulate(target, num_particles=particles, num_steps=steps, seed=seed, dtype=torch.float64, **options)
            seconds = time.process_time() - start
            generator = torch.Generator().manual_seed(seed)
            x = run.samples[0][systematic(run.log_weights, generator)[0]]
            return {
                **forty_figures(truth, law, x, seed),
                "resamplings": float(run.resampled.sum()),
                "cpu_seconds": seconds,
            }

        yield {"method": way}, cell


def draw(law: GaussianMixture, seed: int, count: int) -> torch.Tensor:
    """Exact samples of a law."""
    return law.sample((count,), torch.Generator().manual_seed(seed), dtype=torch.float64)


def forty_figures(truth: GaussianMixture, law: GaussianMixture, x: torch.Tensor, seed: int) -> Figures:
    """Every distance between samples and fresh draws of the truth, in the units of the data."""
    y = draw(truth, 10_000 + seed, len(x))
    first, second = wasserstein(50 * x, 50 * y, seed=seed)
    energy_1, energy_2 = energy_wasserstein(x, y, lambda z: -truth.log_density(z))
    return {
        "w1": first,
        "w2": second,
        "tv": total_variation(50 * x, 50 * y, low=-50.0, high=50.0),
        "mmd": mmd(50 * x, 50 * y, bandwidths=(1.0, 4.0, 16.0), seed=seed),
        "energy_w1": energy_1,
        "energy_w2": energy_2,
        "mode_tv": 0.5 * float((mode_masses(x, law.means) - mode_masses(draw(truth, 1, 10**6), law.means)).abs().sum()),
    }


def throughput() -> Part:
    """The figure of the issue: N = 4000, 400 steps, two experts."""
    target = targets(VariancePreserving())["guidance 2"]
    for way, options in {"plain": {}, "fitted control": {"control": FittedControl()}}.items():

        def cell(seed: int, options: dict[str, Any] = options) -> Figures:
            start, cpu = time.perf_counter(), time.process_time()
            simulate(target, num_particles=4000, num_steps=400, seed=seed, **options)
            return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}

        yield {"method": way}, cell


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
        correct(loaded[0], "a dog", guidance_scale=2.0, num_particles=8, scheduler="keep", seed=seed, call=options)
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
        call = {"eta": 1.0} if name.startswith("DDIM") else {}
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
                    call: dict[str, Any] = call,
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
                        call={"num_inference_steps": steps, **call},
                    )
                    x, weights = result.samples.flatten().double(), result.log_weights[0].exp()
                    return {"w1": w1_to_density(x, weights, GRID, mass), "ess": float(result.ess[-1, 0]) / 4000}

                yield {"scheduler": name, "steps": str(steps), "method": way}, cell


PARTS: dict[str, Callable[[], Part]] = {
    "mixtures": mixtures,
    "pipelines": through_schedulers,
    "gmm40": gmm40,
    "variance": variance,
    "throughput": throughput,
    "overhead": overhead,
}
IMAGE_PARTS = ("information", "summaries", "pictures", "emoji")  # in files of their own


def run_part(name: str, seeds: Sequence[int], folder: Path, console: Console) -> list[dict[str, Any]]:
    """Compute the cells that are not on disk and return one row a method, in order."""
    path = folder / f"{name}.cells.jsonl"
    known: dict[str, Figures] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            cell = json.loads(line)
        except ValueError:  # cut short by a crash
            continue
        known[cell["key"]] = cell["figures"]
    # Seeds on the outside: every method has its first seed before any has its second.
    work = list(PARTS[name]())
    for seed in seeds:
        for labels, compute in work:
            key = json.dumps([labels, seed], sort_keys=True)
            if key not in known:
                known[key] = compute(seed)
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "figures": known[key]}) + "\n")
                console.print(f"[dim]{name} {', '.join(labels.values())}, seed {seed}[/dim]")
    rows = []
    for labels, _ in work:
        cells = [known[json.dumps([labels, seed], sort_keys=True)] for seed in seeds]
        rows.append({**labels, "figures": {figure: summary([c[figure] for c in cells]) for figure in cells[0]}})
    return rows


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation and standard error; the last two are None for one seed."""
    tensor = torch.tensor(values, dtype=torch.float64)
    deviation = float(tensor.std()) if len(values) > 1 else None
    error = None if deviation is None else deviation / math.sqrt(len(values))
    return {"mean": float(tensor.mean()), "sd": deviation, "se": error}


def show(name: str, rows: list[dict[str, Any]], seeds: int, console: Console) -> None:
    """Print a part's table."""
    labels = [key for key in rows[0] if key != "figures"]
    figures = list(dict.fromkeys(figure for row in rows for figure in row["figures"]))
    table = Table(title=f"{name}: mean ± standard error over {seeds} seed(s)")
    for column in (*labels, *figures):
        table.add_column(column)
    for row in rows:
        cells = []
        for figure in figures:
            found = row["figures"].get(figure)
            spread = "" if found is None or found["se"] is None else f" ± {found['se']:.3f}"
            cells.append("" if found is None else f"{found['mean']:.3f}{spread}")
        table.add_row(*[row[label] for label in labels], *cells)
    console.print(table)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *IMAGE_PARTS], default=[*PARTS, *IMAGE_PARTS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=24, help="emoji: prompts")
    parser.add_argument("--steps", type=int, default=30, help="emoji: steps")
    parser.add_argument("--pipeline", default="fklit:emoji_scenes")
    parser.add_argument("--reward", default="fklit:emoji_clip")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/correctors"))
    return parser.parse_args(words)


def run_image_part(name: str, given: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Compute and print a part about pictures."""
    sys.path.insert(0, str(Path(__file__).parent))
    import correctors_emoji
    import correctors_exact_pictures
    import correctors_why

    seeds = range(given.seeds)
    if name == "information":
        rows = correctors_why.information(given.pipeline, seeds=seeds, prompts=given.prompts, steps=given.steps)
        correctors_why.show(rows, "information, in nats", console, hidden={"by_step"})
    elif name == "pictures":
        rows = correctors_exact_pictures.run(seeds=seeds, steps=given.steps)
        correctors_exact_pictures.show(rows, console)
    elif name == "summaries":
        rows = correctors_why.summaries(given.pipeline, prompts=min(given.prompts, 8), steps=given.steps)
        correctors_why.show(rows, "share of a step's log weight that a linear control explains", console)
    else:
        rows = correctors_emoji.run(
            given.output,
            console,
            seeds=seeds,
            prompts=given.prompts,
            steps=given.steps,
            pipeline=given.pipeline,
            reward=given.reward,
        )
        correctors_emoji.show(rows, console)
    return rows


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the tables and a line of JSON for each part, write the JSON."""
    given = parse(words)
    given.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=190)
    found: dict[str, Any] = {}
    for name in given.only:
        if name in IMAGE_PARTS:
            rows = run_image_part(name, given, console)
        else:
            rows = run_part(name, range(given.seeds), given.output, console)
            show(name, rows, given.seeds, console)
        found[name] = {
            "rows": rows,
            "seeds": given.seeds,
            "hardware": {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
            "versions": {package: version(package) for package in ("fklit", "torch", "diffusers", "scipy")},
        }
        target = given.output / f"{name}.json"
        part = target.with_suffix(".part")
        part.write_text(json.dumps(found[name], indent=2), encoding="utf-8")
        os.replace(part, target)
        print(json.dumps({name: found[name]}))
        console.print(f"Written to {target}.")
    return found


if __name__ == "__main__":
    main()

"""FK steering by a network that equilibrium propagation has trained: what the detector sees, paired with best-of-n.

    python benchmarks/eqprop_reward.py --output docs/results/eqprop_reward.json

Prompts and reward are those of `configs/steering/emoji_eqprop.yaml`: "a heart", of which color the class says. For each
prompt and seed there are a pool of unsteered samples, of whose subsets the base (a random sample) and best-of-n are
exact means, and steered samples. A cell is kept as a line of JSON and not computed again. Differences are means over
seeds within a prompt, with 95 % intervals over prompts (percentile bootstrap).
"""

import argparse
import json
import math
import os
import platform
import sys
import time
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from steering_cells import append, read_cells
from steering_summary import Values, difference, fk_values, values_of_pools, with_rewards

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/steering/emoji_eqprop.yaml"


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the configuration that both ways to sample share."""
    from fklit.feynman_kac.schedule import Schedule

    model = config["model"]["init_args"]
    window = {name: model["reward_schedule"][name] for name in ("start", "stop", "every")}
    names = ("ess_threshold", "resampler", "max_batch", "on_nan", "pipeline_kwargs")
    return {name: model[name] for name in names} | {"reward_schedule": Schedule(**window)}


def run(kind: str, k: int, scale: float, seed: int, rows: list[dict[str, Any]], models: Any) -> list[dict[str, Any]]:
    """Cells of some prompts with one seed."""
    from fklit import steer

    pipeline, reward, judge, shared = models
    began = time.process_time()
    result = steer(
        pipeline,
        [row["prompt"] for row in rows],
        metadata=rows,
        prompt_indices=[zlib.crc32(row["class"].encode()) for row in rows],
        reward=reward,
        reward_scale=scale,
        num_particles=k,
        potential="terminal" if kind == "pool" else "difference",
        seed=seed,
        previews=False,
        **shared,
    )
    seconds = (time.process_time() - began) / len(rows)
    cells = []
    for b, row in enumerate(rows):
        record = result.record(b)
        verdicts = judge.judge(result.samples[b], [row] * k)
        cells.append(
            {
                "key": key(kind, k, scale, seed, row),
                "kind": kind,
                "k": k,
                "seed": seed,
                "prompt": row["class"],
                "rewards": record["rewards"],
                "weights": result.log_weights[b].exp().tolist(),
                "judge": [float(verdict.correct) for verdict in verdicts],
                "best": record["best"],
                "unique_roots": record["unique_roots"],
                "seconds": seconds,
            }
        )
    return cells


def key(kind: str, k: int, scale: float, seed: int, row: dict[str, Any]) -> str:
    """Name of a cell."""
    return json.dumps([kind, k, scale, seed, row["class"]])


def summarize(cells: Sequence[dict[str, Any]], k: int) -> dict[str, Any]:
    """Means and paired differences of the judge's verdicts and the rewards."""
    pool, steered = ([cell for cell in cells if cell["kind"] == kind] for kind in ("pool", "fk"))

    cost = np.median([c["seconds"] / c["k"] for c in steered]) / np.median([c["seconds"] / c["k"] for c in pool])
    longer = min(math.ceil(k * cost), pool[0]["k"])
    ours: Values = {(cell["prompt"], cell["seed"]): fk_values(cell) for cell in steered}
    counts = {"base": 1, "best_of_n": k, "best_of_n, equal seconds": longer}
    rivals = {name: values_of_pools(pool, n) for name, n in counts.items()}
    figures = ("judge", "reward_best")
    means = {
        name: {f: float(np.mean([v[f] for v in found.values()])) for f in figures}
        for name, found in {**rivals, "fk": ours}.items()
    }
    gaps = {f"fk - {name}": {f: difference(ours, found, f) for f in figures} for name, found in rivals.items()}
    gaps["best_of_n - base"] = {f: difference(rivals["best_of_n"], rivals["base"], f) for f in figures}
    return {
        "means": means,
        "differences": gaps,
        "seconds_over_best_of_n": float(cost),
        "n_at_equal_seconds": longer,
        "pools_without_a_reward": len(pool) - len(with_rewards(pool)),
    }


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Compute what is missing, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--pool", type=int, default=8, help="unsteered samples of each prompt and seed")
    parser.add_argument("--scale", type=float, default=None, help="reward scale; by default that of the configuration")
    parser.add_argument("--prompts", type=int, default=None, help="the first so many prompts only")
    parser.add_argument("--reward", default=None, help="another folder of a network")
    parser.add_argument("--cells", type=Path, default=Path("outputs/benchmarks/eqprop_reward"))
    parser.add_argument("--output", type=Path, default=None, help="write the JSON here, too")
    asked = parser.parse_args(words)

    from fklit import assets
    from fklit.eqprop import EquilibriumClassifier
    from fklit.fingerprint import fingerprint
    from fklit.metrics.detector import Judge
    from fklit.pipelines.source import PipelineSource

    config = yaml.safe_load((ROOT / CONFIG).read_text())
    model = config["model"]["init_args"]
    scale = model["reward_scale"] if asked.scale is None else asked.scale
    lines = (ROOT / config["data"]["init_args"]["path"]).read_text().splitlines()[: asked.prompts]
    rows = [json.loads(line) for line in lines]
    name = asked.reward or model["reward"]["init_args"]["model_name"]
    torch.set_num_threads(1)
    pipeline = PipelineSource(model["source"]["init_args"]["path"]).load().pipeline
    models = (pipeline, EquilibriumClassifier(name), Judge(), settings_of(config))
    folder = asked.cells / fingerprint(assets.shipped(name) or Path(name))[:12]  # another network, other cells
    folder.mkdir(parents=True, exist_ok=True)
    wanted = []
    for seed in range(asked.seeds):
        for start in range(0, len(rows), 4):
            some = rows[start : start + 4]
            for kind, k, strength in (("pool", asked.pool, 1.0), ("fk", asked.particles, scale)):
                found = read_cells(folder)
                keys = [key(kind, k, strength, seed, row) for row in some]
                wanted += keys
                missing = [row for row, name_ in zip(some, keys, strict=True) if name_ not in found]
                if missing:
                    append(folder / "cells.0.jsonl", run(kind, k, strength, seed, missing, models))
                    print(f"{len(wanted)} cells", file=sys.stderr, flush=True)
    found = read_cells(folder)
    report = summarize([found[name_] for name_ in wanted], asked.particles)
    report["settings"] = {n: str(v) for n, v in vars(asked).items() if n not in ("output", "cells")} | {"scale": scale}
    report["hardware"] = {"system": platform.platform(), "cores": os.cpu_count(), "device": "cpu"}
    report["versions"] = {package: version(package) for package in ("fklit", "torch", "diffusers")}
    text = json.dumps(report, indent=2) + "\n"
    print(text)
    if asked.output is not None:
        asked.output.write_text(text, encoding="utf-8")
    return report


if __name__ == "__main__":
    main()

"""Trains variants of the shipped models of text side by side and picks the one of lowest validation loss.

    python -m fklit.data fetch text
    python benchmarks/text_training.py masked --steps 5000            # all variants at once, on one GPU
    python benchmarks/text_training.py causal --steps 1500
    python benchmarks/text_training.py masked --variants base wide_dropout --steps 8000 --max_time 00:00:08:00

Each variant is `fklit fit` with `configs/assets/text.yaml` (or `text_guide.yaml`) and what `VARIANTS` changes in it, in
a process and a folder of its own below `outputs/assets`. The best checkpoint of the best variant is exported to
`outputs/assets/text/text_diffusion` (or `text_guide/text_guide`); a table is printed, and JSON beside the folder.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
# Changes of settings by their places in the configuration.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "masked": {
        "base": {},
        "wide_dropout": {"model.init_args.network.dropout": 0.2},
        "small_batch": {"data.init_args.batch_size": 256, "model.init_args.learning_rate": 0.015},
        "strong_decay": {"model.init_args.weight_decay": 0.3, "model.init_args.network.dropout": 0.05},
    },
    "causal": {
        "base": {},
        "wide_dropout": {"model.init_args.dropout": 0.2},
        "strong_decay": {"model.init_args.dropout": 0.2, "model.init_args.weight_decay": 0.5},
    },
}
FILES = {"masked": ("text", "text_diffusion", "val/nelbo"), "causal": ("text_guide", "text_guide", "val/loss")}


def place(config: dict[str, Any], path: str, value: Any) -> None:
    """Sets the value at a dotted path."""
    *parents, last = path.split(".")
    for key in parents:
        config = config[key]
    config[last] = value


def write_config(task: str, name: str, *, steps: int, max_time: str | None, folder: Path) -> Path:
    """The configuration of a variant, with all that it writes in its folder."""
    config = yaml.safe_load((ROOT / "configs" / "assets" / f"{FILES[task][0]}.yaml").read_text())
    for path, value in VARIANTS[task][name].items():
        place(config, path, value)
    place(config, "model.init_args.export_dir", str(folder / "last"))
    place(config, "trainer.max_steps", steps)
    place(config, "trainer.max_time", max_time)
    place(config, "trainer.val_check_interval", max(1, min(steps // 10, 500)))
    place(config, "trainer.logger.init_args", {"save_dir": str(folder), "name": "log"})
    place(config, "trainer.enable_progress_bar", False)
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("ModelCheckpoint"):
            callback["init_args"]["dirpath"] = str(folder / "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "config.yaml"
    target.write_text(yaml.safe_dump(config, sort_keys=False))
    return target


def lowest(folder: Path, key: str) -> dict[str, float]:
    """The row of the validation of lowest loss."""
    logs = sorted((folder / "log").glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    with open(logs[-1]) as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    best = min(rows, key=lambda row: float(row[key]))
    return {
        "step": int(best["step"]) + 1,
        "nats_per_token": float(best[key]),
        "bits_per_character": float(best["val/bits_per_character"]),
        "last_nats_per_token": float(rows[-1][key]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(VARIANTS))
    parser.add_argument("--variants", nargs="+", help="default: all of the task")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--max_time", help="DD:HH:MM:SS, after which a training stops")
    given = parser.parse_args()
    base, exported, key = FILES[given.task]
    out = ROOT / "outputs" / "assets" / base
    names = given.variants or list(VARIANTS[given.task])
    running = {}
    for name in names:
        folder = out / "variants" / name
        config = write_config(given.task, name, steps=given.steps, max_time=given.max_time, folder=folder)
        with open(folder / "output.txt", "w") as log:
            command = [sys.executable, "-m", "fklit", "fit", "--config", str(config)]
            running[name] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    found = {}
    for name, process in running.items():
        folder = out / "variants" / name
        if process.wait() == 0:
            found[name] = lowest(folder, key)
        else:
            print(f"{name} failed:\n{(folder / 'output.txt').read_text()[-2000:]}", file=sys.stderr)
    if not found:
        raise SystemExit("expected a variant that trains, got none; see above.")
    print(f"{'variant':16}{'step':>8}{'nats/token':>12}{'bits/char':>11}{'at the end':>12}")
    for name, row in found.items():
        print(
            f"{name:16}{row['step']:8}{row['nats_per_token']:12.4f}{row['bits_per_character']:11.4f}"
            f"{row['last_nats_per_token']:12.4f}"
        )
    best = min(found, key=lambda name: found[name]["nats_per_token"])
    checkpoint = out / "variants" / best / "checkpoints" / "best.ckpt"
    command = [sys.executable, "-m", "fklit.text.training.export", given.task, str(checkpoint), str(out / exported)]
    subprocess.run(command, cwd=ROOT, check=True)
    (out / "variants.json").write_text(json.dumps({"best": best, "variants": found}, indent=1) + "\n")
    print(f"best: {best}")


if __name__ == "__main__":
    main()

"""Prompts a second that `fklit predict` steers with two processes, over those with one, on otherwise idle cores.

    python benchmarks/two_processes.py --rounds 3      # alternating runs of the shipped model; prints JSON

The start of the processes, the loading of the models and the first batch of each are not counted: the rate is that
at which records appear after these, which is what a long run has. Each process has one thread.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fklit.atomic import write_json_atomically
from fklit.emoji.prompts import compositional_prompts

ROOT = Path(__file__).resolve().parents[1]


def rate(processes: int, prompts: int, batch: int) -> float:
    """Prompts a second of one run.

    Args:
        processes: How many share the prompts.
        prompts: How many there are.
        batch: Prompts of a batch of one process.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "prompts.txt"
        listed.write_text("".join(prompt.text + "\n" for prompt in compositional_prompts(prompts, "test")))
        words = ["predict", "--config", "configs/steering/emoji.yaml", "--output_dir", str(Path(folder) / "run")]
        words += ["--data.path", str(listed), "--data.batch_size", str(batch), "--trainer.accelerator", "cpu"]
        words += ["--trainer.devices", str(processes), *(("--trainer.strategy", "ddp") if processes > 1 else ())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "fklit", *words]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        times = sorted(path.stat().st_mtime for path in Path(folder).glob("**/record.json"))
    assert len(times) == prompts, f"expected {prompts} records, got {len(times)}"
    first = processes * batch
    return (prompts - first) / (times[-1] - times[first - 1])


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--output", type=Path, default=None)
    given = parser.parse_args(words)
    rounds = [
        {str(processes): rate(processes, given.prompts, given.batch) for processes in (1, 2)[:: 1 if turn % 2 else -1]}
        for turn in range(given.rounds)
    ]
    ratios = [one["2"] / one["1"] for one in rounds]
    found = {
        "summary": {"ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}},
        "prompts_a_second": rounds,
        "settings": {"prompts": given.prompts, "batch": given.batch},
        "hardware": {"system": platform.platform(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("fklit", "torch", "lightning")},
    }
    print(json.dumps(found, indent=2))
    if given.output is not None:
        write_json_atomically(given.output, found)
    return found


if __name__ == "__main__":
    main()

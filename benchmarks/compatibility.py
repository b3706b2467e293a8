"""What fklit does with each pipeline class of diffusers: the runs behind `docs/compatibility.md`.

    python benchmarks/compatibility.py                    # all rows; writes the JSON and the page
    python benchmarks/compatibility.py --only FluxPipeline WanPipeline    # replaces these rows of the JSON

Every class that diffusers exports is a row (ONNX, Flax and deprecated ones aside, but for pictures of discrete tokens).
Those that have a tiny pipeline with random weights in `tests/tiny_families` are tried; the others say "not tried". A
row that fails or takes too long does not stop the others.
"""

import argparse
import importlib
import inspect
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import diffusers
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from compatibility_cells import run_cells  # noqa: E402
from compatibility_page import PAGE, RESULTS, render  # noqa: E402
from compatibility_tokens import run_token_cells  # noqa: E402
from tiny_families import rows  # noqa: E402

from fklit.atomic import write_json_atomically, write_text_atomically  # noqa: E402

# Deprecated, but the only pipelines of their kind: pictures of discrete tokens.
KEPT = ("AmusedImg2ImgPipeline", "AmusedInpaintPipeline", "AmusedPipeline", "VQDiffusionPipeline")
SECONDS = 180  # a row may take, on a busy machine


class LateError(BaseException):
    """A row took too long; no cell may catch it as its own error."""


def exported() -> dict[str, str]:
    """The pipeline classes that diffusers exports, with the folder of each; of deprecated ones only `KEPT`.

    Those of ONNX, which there are only beside an onnxruntime, have no torch modules to steer and are left out.
    """
    from diffusers import DiffusionPipeline

    structure = importlib.import_module("diffusers.pipelines")._import_structure
    found = {}
    for folder, names in structure.items():
        for name in [names] if isinstance(names, str) else names:
            kind = getattr(diffusers, name, None)
            pipeline = isinstance(kind, type) and issubclass(kind, DiffusionPipeline) and kind is not DiffusionPipeline
            if pipeline and "Onnx" not in name and ("deprecated" not in kind.__module__ or name in KEPT):
                found[name] = folder
    return dict(sorted(found.items()))


def verdict(cells: dict[str, str]) -> tuple[str, str]:
    """The verdict of a row and its reason, from the answers of its cells."""
    for bad in ("crash", "wrong"):
        for name, text in cells.items():
            if text.startswith(bad):
                return bad, f"{name}: {text}"
    if cells["terminal"] != "ok":
        return "refused", _reason(cells["terminal"])
    if cells["steer"] != "ok":
        return "best of n", _reason(cells["steer"])
    return "steered", ""


def _reason(text: str) -> str:
    """What is said after "refused: SomeError: "."""
    return text.split(": ", 2)[-1]


def try_row(row: Any, folder: str) -> dict[str, Any]:
    """The entry of one class in the results."""
    cells = _within(SECONDS, lambda: (run_token_cells if row.tokens else run_cells)(row))
    found, reason = verdict(cells)
    corrected = cells.get("correct", "")
    return {
        "pipeline": row.pipeline, "family": row.family, "folder": folder, "kind": row.kind, "main": row.main,
        "verdict": found, "reason": reason, "corrected": corrected == "ok",
        "correct_reason": "" if corrected == "ok" else _reason(corrected),
        "example": example(row, found), "cells": cells,
    }  # fmt: skip


def _within(seconds: int, work: Any) -> dict[str, str]:
    def late(number: int, frame: FrameType | None) -> None:
        raise LateError(f"the row took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        return work()
    except (Exception, LateError) as error:
        return {"build": f"crash: {type(error).__name__}: {error}"}
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def example(row: Any, found: str) -> str:
    """One line of Python that steers a model of this class, or draws the best of n; empty where it is refused."""
    if found == "refused":
        return ""
    if row.kind == "text":  # published as models of transformers, of which the pipeline is made
        parts = inspect.signature(getattr(diffusers, row.pipeline).__init__).parameters
        made = ", ".join(f"{name}={name}" for name in parts if name != "self")
        inputs = ", ".join(f'"{name}": {row.arguments[name]!r}' for name in row.shown)
        extra = f", pipeline_kwargs={{{inputs}}}" if inputs else ""
        return f"fklit.steer({row.pipeline}({made}), prompts, reward=reward{extra})"
    given = {name: name for name, value in row.arguments.items() if not isinstance(value, str | int | float)}
    given |= {name: repr(row.arguments[name]) for name in row.shown}
    inputs = ", ".join(f'"{name}": {value}' for name, value in given.items())
    prompts = "" if row.prompts is None else ", prompts"
    extra = ', potential="terminal"' if found == "best of n" else ""
    extra += f", pipeline_kwargs={{{inputs}}}" if inputs else ""
    return f'fklit.steer({row.pipeline}.from_pretrained("{row.example}"){prompts}, reward=reward{extra})'


def not_tried(name: str, folder: str) -> dict[str, Any]:
    """The entry of a class that no tiny pipeline stands for."""
    return {"pipeline": name, "family": folder, "folder": folder, "verdict": "not tried"}


def counted(entries: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many classes have each verdict, and of how many families the main class was tried."""
    names = {"steered": "steered", "best of n": "best_of_n", "refused": "refused", "not tried": "not_tried"}
    counts = {key: sum(entry["verdict"] == text for entry in entries) for text, key in names.items()}
    bad = {key: sum(entry["verdict"] == key for entry in entries) for key in ("crash", "wrong")}
    families = {entry["family"] for entry in entries if entry.get("main")}
    return counts | {key: count for key, count in bad.items() if count} | {"families_tried": len(families)}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the rows that are asked for and write JSON and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="classes to run; the others stay as recorded")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity(60)  # what it says about tiny networks
    diffusers.utils.logging.disable_progress_bar()
    classes, tiny = exported(), rows()
    wrong = [name for name in given.only or () if name not in tiny]
    if wrong:
        parser.error(f"no tiny pipeline of {', '.join(wrong)} in tests/tiny_families; add one.")
    recorded = {}
    if given.only and given.output.exists():
        recorded = {entry["pipeline"]: entry for entry in json.loads(given.output.read_text())["rows"]}
    entries = []
    for name, folder in classes.items():
        if name not in tiny:
            entries.append(not_tried(name, folder))
        elif given.only and name not in given.only:
            entries.append(recorded.get(name, not_tried(name, folder)))
        else:
            start = time.perf_counter()
            entries.append(try_row(tiny[name], folder))
            print(
                f"{name}: {entries[-1]['verdict']} {entries[-1]['reason'][:300]} ({time.perf_counter() - start:.0f} s)"
            )
    report = {"diffusers": diffusers.__version__, "counts": counted(entries), "rows": entries}
    write_json_atomically(given.output, report, indent=1)
    write_text_atomically(given.page, render(report))
    print(json.dumps(report["counts"]))
    return report


if __name__ == "__main__":
    main()

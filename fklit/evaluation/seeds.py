"""The same experiment with several seeds: means with standard errors, and paired differences between methods."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fklit.report.record import PromptRecord

Table = dict[int, dict[str, dict[int, float]]]
"""Seed -> figure -> prompt index -> number."""


@dataclass(frozen=True)
class SeedFigure:
    """One figure of an experiment that was run with several seeds.

    Attributes:
        by_seed: Mean over prompts, of each seed.
        error_by_seed: Standard error of that mean over prompts; NaN with one prompt.
        mean: Over the seeds.
        error: Standard error of the mean over the seeds, as papers report it; NaN with one seed. Prompts are the same
            for all seeds, so it says nothing about other prompts.
        prompt_error: Standard error over prompts of their means over seeds; NaN with one prompt.
    """

    by_seed: Mapping[int, float]
    error_by_seed: Mapping[int, float]
    mean: float
    error: float
    prompt_error: float


def over_seeds(runs: Sequence[str | Path], against: Sequence[str | Path] = ()) -> dict[str, SeedFigure]:
    """Summarize runs that differ in their seed alone.

    Args:
        runs: Output folders of `SampleWriter`, one a seed.
        against: Folders of another method with the same prompts and seeds: the figures are then of the differences,
            prompt by prompt and seed by seed.

    Returns:
        "reward_best" of the chosen sample and "reward_mean" by weight (both missing without a reward), "unique_roots",
        "denoiser_calls", "seconds", and what `fklit.report.reading.write_scores` has stored, of the chosen sample.

    Raises:
        FileNotFoundError: A folder holds no run.
        ValueError: The runs differ in more than the seed or in their prompts, two have one seed, or a figure is missing
            for some of the prompts.
    """
    found = _table(runs)
    if against:
        other = _table(against)
        if found.keys() != other.keys():
            raise ValueError(f"expected the seeds {sorted(found)} on both sides, got {sorted(other)}; run the others.")
        found = {seed: _difference(figures, other[seed], seed) for seed, figures in found.items()}
    names = [name for name in next(iter(found.values())) if all(name in figures for figures in found.values())]
    return {name: _figure({seed: figures[name] for seed, figures in found.items()}) for name in names}


def _table(runs: Sequence[str | Path]) -> Table:
    from fklit.report.differences import differences
    from fklit.report.reading import read_run

    if not runs:
        raise ValueError("expected the folder of at least one run, got none; name them.")
    table: Table = {}
    first: tuple[Path, Any, dict[int, str]] | None = None
    for path in map(Path, runs):
        run = read_run(path)
        settings = dict(run.settings.get("settings") or {})
        seed = settings.pop("seed", None)
        prompts = {index: record.prompt for index, record in run.records.items()}
        if not isinstance(seed, int):
            raise ValueError(f"expected a run with a seed, got {path} without one in run.json; sample it again.")
        if seed in table:
            raise ValueError(f"expected another seed for each run, got {path} with seed {seed} again; name it once.")
        if first is None:
            first = (path, settings, prompts)
        if settings != first[1]:
            changed = differences(first[1], settings)
            raise ValueError(f"expected runs that differ in their seed alone, got {path} with {changed}; name others.")
        if prompts != first[2]:
            raise ValueError(
                f"expected the prompts of {first[0]} ({len(first[2])}), got others in {path} ({len(prompts)}); run the "
                "same command again, which finishes a run."
            )
        table[seed] = {}
        for index, record in run.records.items():
            for name, value in _numbers(record).items():
                table[seed].setdefault(name, {})[index] = value
        for name, values in table[seed].items():
            lacking = [index for index in prompts if not math.isfinite(values.get(index, math.nan))]
            if lacking:
                raise ValueError(
                    f"expected {name} of every prompt, got none or no finite number for prompt {lacking[0]} in {path}; "
                    "score it, or sample it again."
                )
    return table


def _numbers(record: "PromptRecord") -> dict[str, float]:
    """The figures of one prompt; a prompt may lack some."""
    numbers: dict[str, float | None] = {}
    if record.rewards is not None:
        numbers["reward_best"] = float(record.rewards[record.chosen])
        numbers["reward_mean"] = record.weighted_mean(record.rewards)
    numbers |= {name: float(values[record.chosen]) for name, values in record.scores.items()}
    numbers["unique_roots"] = float(record.unique_roots)
    numbers |= {name: record.budget[name] for name in ("denoiser_calls", "seconds")}
    return {name: value for name, value in numbers.items() if value is not None}


def _difference(
    ours: Mapping[str, Mapping[int, float]], theirs: Mapping[str, Mapping[int, float]], seed: int
) -> dict[str, dict[int, float]]:
    names = [name for name in ours if name in theirs]
    if any(ours[name].keys() != theirs[name].keys() for name in names):
        raise ValueError(f"expected the same prompts on both sides, got others with seed {seed}; finish the runs.")
    return {name: {index: value - theirs[name][index] for index, value in ours[name].items()} for name in names}


def _figure(table: Mapping[int, Mapping[int, float]]) -> SeedFigure:
    by_seed = {seed: fmean(values.values()) for seed, values in table.items()}
    by_prompt = [fmean(values[index] for values in table.values()) for index in next(iter(table.values()))]
    return SeedFigure(
        by_seed,
        {seed: _error(list(values.values())) for seed, values in table.items()},
        fmean(by_seed.values()),
        _error(list(by_seed.values())),
        _error(by_prompt),
    )


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean; NaN of a single number."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def as_text(figures: Mapping[str, SeedFigure]) -> str:
    """A table, a line a figure.

    Args:
        figures: Of `over_seeds`.
    """
    seeds = sorted({seed for figure in figures.values() for seed in figure.by_seed})
    rows = [("", *(f"seed {seed}" for seed in seeds), "mean", "s.e. (seeds)", "s.e. (prompts)")]
    for name, figure in figures.items():
        numbers = (*(figure.by_seed[seed] for seed in seeds), figure.mean, figure.error, figure.prompt_error)
        rows.append((name, *("-" if math.isnan(number) else f"{number:.4g}" for number in numbers)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def as_json(figures: Mapping[str, SeedFigure]) -> str:
    """The same as JSON; what does not exist (an error of one number) is null.

    Args:
        figures: Of `over_seeds`.
    """
    plain: Callable[[float], float | None] = lambda value: None if math.isnan(value) else value  # noqa: E731
    content = {
        name: {
            "by_seed": {str(seed): plain(value) for seed, value in figure.by_seed.items()},
            "error_by_seed": {str(seed): plain(value) for seed, value in figure.error_by_seed.items()},
            "mean": plain(figure.mean),
            "error": plain(figure.error),
            "prompt_error": plain(figure.prompt_error),
        }
        for name, figure in figures.items()
    }
    return json.dumps(content, indent=1, allow_nan=False)

"""The page of a calibration: what scores tell of the end, step by step, what a scale costs, and what is proposed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fklit.atomic import write_atomically
from fklit.report.formatting import number
from fklit.report.page import environment
from fklit.report.shapes import Dot, Drawing, Label, Line, Shape, padded, scale, ticks, y_axis

_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 14.0, 8.0, 24.0
_MOST_CURVES = 8
_PLAIN, _FITTED = "var(--best_of_n)", "var(--fk)"


def write_calibration(output: Path | str, summary: Mapping[str, Any], *, title: str = "Calibration") -> Path:
    """Write one self-contained HTML page about a calibration.

    Args:
        output: the file to write, replaced in one step; folders on the way are made.
        summary: from `fklit.steering.calibration.summarize`.
        title: heading of the page.

    Returns:
        The path of the page.
    """
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = environment().get_template("calibration.html.j2").stream(_content(summary, title))
    with write_atomically(path) as file:
        page.dump(file, encoding="utf-8")
    return path


def _content(summary: Mapping[str, Any], title: str) -> dict[str, Any]:
    rows, scales = summary["steps"], summary["scales"]
    steps = [row["step"] for row in rows]
    noise = summary["rank_noise"]
    chosen = summary["proposals"][-1]["steps"] if summary["proposals"] else steps
    shown = [item for item in summary["curves"] if item["step"] in chosen][:_MOST_CURVES]
    correlations = lines(
        steps,
        {"correlation": ([row["rank_correlation"] for row in rows], _FITTED)},
        low=0.0,
        high=1.0,
        level=noise,
        marks=chosen,
        label="Rank correlation of scores with the final reward",
    )
    shares = lines(
        steps,
        {
            "plain": ([row["ess_plain"] for row in rows], _PLAIN),
            "calibrated": ([row["ess_calibrated"] for row in rows], _FITTED),
        },
        low=0.0,
        high=1.0,
        marks=chosen,
        label="Effective share of a prompt's samples",
    )
    charts = [
        ("Rank correlation with the final reward (dashed: noise; dots below: proposed steps)", correlations),
        ("Effective share of a prompt's samples if weighed at that step", shares),
    ]
    if scales:
        charts.append(("Budget by reward scale: nats from the base, and effective samples", budget(scales)))
    return {
        "title": title,
        "chips": [
            ("reward", summary["reward"]),
            ("sampler", summary["sampler"]),
            ("prompts", summary["num_prompts"]),
            ("samples a prompt", summary["num_samples"]),
            ("num steps", summary["num_steps"]),
            ("curves", summary["family"]),
        ],
        "facts": {
            "sd": number(summary["reward_std"]),
            "cost": None if summary["score_cost"] is None else number(summary["score_cost"], 2),
            "scale": number(summary["reward_scale"], 2),
            "noise": number(noise, 2),
        },
        "proposals": [_row_of_proposal(item) for item in summary["proposals"]],
        "num_samples": summary["num_samples"],
        "rows": [[number(row[name], 3) if name != "step" else str(row[name]) for name in row] for row in rows],
        "charts": charts,
        "curves": [(f"step {item['step']}", curve(item)) for item in shown],
    }


def _row_of_proposal(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "goal": item["goal"],
        "scale": f"{item['reward_scale']:g}",
        "steps": ", ".join(map(str, item["steps"])),
        "nats": number(item["nats"], 2),
        "effective": number(item["effective"], 1),
        "overhead": number(None) if item["overhead"] is None else f"{item['overhead']:.0%}",
    }


def budget(scales: Sequence[Mapping[str, float]]) -> Drawing:
    """Nats from the base and effective samples by reward scale.

    Args:
        scales: of the summary.
    """
    return lines(
        [math.log2(row["scale"]) for row in scales],
        {
            "nats": ([row["nats"] for row in scales], _FITTED),
            "effective": ([row["effective"] for row in scales], _PLAIN),
        },
        low=0.0,
        names=[number(row["scale"], 2) for row in scales],
        label="Nats from the base and effective samples by reward scale",
    )


def lines(
    places: Sequence[float],
    series: Mapping[str, tuple[Sequence[float], str]],
    *,
    label: str,
    low: float | None = None,
    high: float | None = None,
    level: float | None = None,
    marks: Sequence[float] = (),
    names: Sequence[str] | None = None,
    width: float = 520,
    height: float = 190,
) -> Drawing:
    """Lines with dots over steps or scales, one a series, its name at its end.

    Args:
        places: x of each point.
        series: name -> y of each point, NaN for none, and a color.
        label: what a screen reader says.
        low: lowest y that is shown at least; None for the data's.
        high: highest y that is shown at least.
        level: y of a dashed line.
        marks: places marked at the bottom.
        names: labels of the places; None for the numbers.
        width: pixels.
        height: pixels.
    """
    given = [value for values, _ in series.values() for value in values if math.isfinite(value)]
    bottom, top = padded(np.array(given, dtype=np.float64))
    least, most = (min(given), max(given)) if given else (0.0, 1.0)
    if low is not None and least >= low:
        bottom = low
    if high is not None and most <= high:
        top = high
    domain = (bottom, top)
    to_x = scale((min(places), max(places)), (_LEFT + 8, width - _RIGHT - 70))
    to_y = scale(domain, (height - _BOTTOM, _TOP))
    shapes: list[Shape] = y_axis(domain, _LEFT, width - _RIGHT, to_y)
    taken = -math.inf
    for place, words in zip(places, names or [f"{place:g}" for place in places], strict=True):
        if to_x(place) - taken > 28:
            shapes.append(Label(to_x(place), height - 8, words, anchor="middle"))
            taken = to_x(place)
    if level is not None:
        shapes.append(Line([(_LEFT, to_y(level)), (width - _RIGHT, to_y(level))], "event"))
    shapes += [Dot(to_x(mark), height - _BOTTOM, 3.5, "trenddot", title=f"score at step {mark:g}") for mark in marks]
    ends: list[tuple[float, float, str]] = []
    for name, (values, color) in series.items():
        known = [(x, y) for x, y in zip(places, values, strict=True) if math.isfinite(y)]
        points = [(to_x(x), to_y(y)) for x, y in known]
        if len(points) > 1:
            shapes.append(Line(points, "trend", color))
        for (x, y), (_, value) in zip(points, known, strict=True):
            shapes.append(Dot(x, y, 2.6, "trenddot", color, f"{name} {number(value)}"))
        ends += [(points[-1][1], points[-1][0], name)] if points else []
    lowest = -math.inf
    for y, x, name in sorted(ends):  # names that would touch are moved down
        lowest = max(y + 4, lowest + 13)
        shapes.append(Label(x + 8, lowest, name, "label"))
    return Drawing(width, height, shapes, label)


def curve(item: Mapping[str, Any], *, width: float = 300, height: float = 190) -> Drawing:
    """Scores and final rewards of all samples at a step as dots, and `log q` of the score as a line (right scale).

    Args:
        item: a step of `summary["curves"]`.
        width: pixels.
        height: pixels.
    """
    scores, rewards = np.array(item["scores"]), np.array(item["rewards"])
    x_domain, y_domain = padded(scores), padded(rewards)
    to_x = scale(x_domain, (_LEFT, width - _RIGHT - 34))
    to_y = scale(y_domain, (height - _BOTTOM, _TOP))
    shapes: list[Shape] = y_axis(y_domain, _LEFT, width - _RIGHT - 34, to_y)
    for mark in ticks(*x_domain, 3):
        shapes.append(Label(to_x(mark), height - 8, number(mark, 1), anchor="middle"))
    order = np.linspace(0, len(scores) - 1, min(len(scores), 400)).round().astype(int)
    shapes += [Dot(to_x(scores[i]), to_y(rewards[i]), 2.0, "pairdot") for i in order]
    logs = np.array(item["log_q"])
    finite = np.isfinite(logs)
    if finite.sum() > 1:
        log_domain = (float(min(logs[finite].min(), -0.1)), 0.0)
        to_q = scale(log_domain, (height - _BOTTOM, _TOP))
        at = np.array(item["at"])
        points = [(to_x(x), to_q(q)) for x, q in zip(at[finite], logs[finite], strict=True)]
        shapes.append(Line(points, "trend", _FITTED))
        for mark in (log_domain[0], 0.0):
            shapes.append(Label(width - _RIGHT - 30, to_q(mark) + (4 if mark else 8), number(mark, 1), "value"))
    return Drawing(width, height, shapes, f"Scores and final rewards at step {item['step']}")

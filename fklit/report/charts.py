"""The charts of one prompt (reward path, effective sample size) and of the whole run (methods compared)."""

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from fklit.report import svg
from fklit.report.lineages import trace
from fklit.report.reading import Floats, PromptRecord

_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 10.0, 8.0, 24.0


def _step_axis(record: PromptRecord, width: float, height: float) -> tuple[list[float], list[str]]:
    """Pixel of each column (scored steps, then the end), and the parts that label them."""
    columns = [*record.steps.tolist(), record.num_steps]
    first = min(columns[0], 0) if len(columns) > 1 else 0
    to_x = svg.scale((first, record.num_steps), (_LEFT + 6, width - _RIGHT - 8))
    xs = [to_x(column) for column in columns]
    parts = []
    taken = -math.inf
    end = f"end ({record.num_steps})"
    for x, column in zip(xs[:-1], columns[:-1], strict=True):
        if x - taken > 26 and xs[-1] - x > 46:  # labels that would touch are left out
            parts.append(svg.text(x, height - 8, str(column), anchor="middle"))
            taken = x
    parts.append(svg.text(width - 2, height - 8, end, anchor="end"))
    for x, resampled in zip(xs[:-1], record.resampled.tolist(), strict=True):
        if resampled:
            parts.append(svg.line(x, _TOP, x, height - _BOTTOM, "event"))
    return xs, parts


def reward_path(record: PromptRecord, *, width: float = 520, height: float = 210) -> str:
    """Score of every particle at every scored step, joined parent to child; colour = root, faded = died out.

    Args:
        record: the prompt's record.
        width: pixels.
        height: pixels.
    """
    values = np.vstack([record.reward_path, record.rewards[None]])
    domain = svg.padded(values)
    to_y = svg.scale(domain, (height - _BOTTOM, _TOP))
    xs, axis = _step_axis(record, width, height)
    family = trace(record.ancestors, record.best)
    parts = [*svg.y_axis(domain, _LEFT, width - _RIGHT, to_y), *axis]
    faint: list[str] = []
    strong: list[str] = []
    for s, row in enumerate(family.parents):
        for slot, parent in enumerate(row.tolist()):
            start, stop = values[s, parent], values[s + 1, slot]
            if not (math.isfinite(start) and math.isfinite(stop)):
                continue
            alive = bool(family.alive[s + 1, slot])
            css = "edge chosen" if family.chosen[s + 1, slot] else "edge" if alive else "edge dead"
            stroke = f"stroke:{svg.root_colour(int(family.roots[s + 1, slot]))}"
            joint = svg.line(xs[s], to_y(start), xs[s + 1], to_y(stop), css, stroke)
            (strong if alive else faint).append(joint)
    dots = []
    for s, slot in np.ndindex(values.shape):
        value = float(values[s, slot])
        if math.isfinite(value):
            css = "dot" if family.alive[s, slot] else "dot dead"
            fill = f"fill:{svg.root_colour(int(family.roots[s, slot]))}"
            dots.append(svg.circle(xs[s], to_y(value), 2.6, css, fill, f"sample {slot}: {svg.number(value, 4)}"))
    if math.isfinite(record.rewards[record.best]):
        dots.append(svg.circle(xs[-1], to_y(record.rewards[record.best]), 5.5, "ring"))
    return svg.svg(width, height, [*parts, *faint, *strong, *dots], label="Reward of each particle over the steps")


def ess(record: PromptRecord, *, threshold: float | None = None, width: float = 520, height: float = 110) -> str:
    """Effective sample size at each scored step and at the end, with the threshold below which a group resamples.

    Args:
        record: the prompt's record.
        threshold: fraction of K, or None when it is not known.
        width: pixels.
        height: pixels.
    """
    slots = record.num_particles
    to_y = svg.scale((0.0, slots * 1.05), (height - _BOTTOM, _TOP))
    xs, axis = _step_axis(record, width, height)
    parts = []
    for mark in (0, slots):
        parts += [svg.line(_LEFT, to_y(mark), width - _RIGHT, to_y(mark), "grid")]
        parts += [svg.text(_LEFT - 6, to_y(mark) + 3.5, str(mark), anchor="end")]
    parts += axis
    if threshold is not None and 0 < threshold <= 1:
        y = to_y(threshold * slots)
        parts += [svg.line(_LEFT, y, width - _RIGHT, y, "threshold")]
        parts += [svg.text(_LEFT - 6, y + 3.5, svg.number(threshold * slots, 1), anchor="end")]
    bar = max(3.0, min(16.0, 0.6 * min((b - a for a, b in pairwise(xs)), default=16.0)))
    for i, (x, value) in enumerate(zip(xs, record.ess.tolist(), strict=True)):
        if not math.isfinite(value):
            continue
        css = "bar hit" if i < len(record.resampled) and record.resampled[i] else "bar"
        top = to_y(value)
        parts.append(
            f'<rect x="{x - bar / 2:.1f}" y="{top:.1f}" width="{bar:.1f}" '
            f'height="{max(0.0, to_y(0) - top):.1f}" class="{css}">'
            f"<title>ESS {svg.number(value, 2)} of {slots}</title></rect>"
        )
    return svg.svg(width, height, parts, label="Effective sample size over the steps")


def bootstrap_interval(values: Floats, *, draws: int = 4000) -> tuple[float, float]:
    """95 % interval of the mean by resampling the values (prompts) with a fixed seed; (nan, nan) for fewer than two."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return math.nan, math.nan
    picks = np.random.default_rng(0).integers(len(finite), size=(draws, len(finite)))
    low, high = np.quantile(finite[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def compared(
    series: Mapping[str, Mapping[int, float]], labels: Mapping[str, str], *, width: float = 400, height: float = 250
) -> str:
    """Methods side by side: a thin line a prompt, a bold mean with its 95 % interval over prompts.

    Args:
        series: method -> prompt index -> value.
        labels: what each method is called.
        width: pixels.
        height: pixels.
    """
    methods = list(series)
    everything = np.array([v for values in series.values() for v in values.values()] or [math.nan])
    domain = svg.padded(everything)
    to_y = svg.scale(domain, (height - 34, 10.0))
    inner = (width - _LEFT - _RIGHT) / max(len(methods), 1)
    xs = {method: _LEFT + inner * (i + 0.5) for i, method in enumerate(methods)}
    parts = svg.y_axis(domain, _LEFT, width - _RIGHT, to_y, 5)
    for index in sorted(set().union(*series.values())):
        points = [(xs[m], to_y(series[m][index])) for m in methods if math.isfinite(series[m].get(index, math.nan))]
        if len(points) > 1:
            parts.append(svg.path(points, "pair"))
        parts += [svg.circle(x, y, 2.2, "pairdot") for x, y in points]
    for method in methods:
        values = np.array(list(series[method].values()))
        finite = values[np.isfinite(values)]
        if not len(finite):
            continue
        mean, (low, high) = float(finite.mean()), bootstrap_interval(values)
        x, css = xs[method], f"m-{method}"
        if math.isfinite(low):
            parts.append(svg.line(x, to_y(low), x, to_y(high), f"interval {css}"))
        parts.append(svg.circle(x, to_y(mean), 6, f"mean {css}", title=f"{labels[method]}: {svg.number(mean, 4)}"))
        parts.append(svg.text(x + 11, to_y(mean) + 4, svg.number(mean), "value"))
        parts.append(svg.text(x, height - 10, labels[method], "label", "middle"))
    return svg.svg(width, height, parts, label="Methods compared over prompts")

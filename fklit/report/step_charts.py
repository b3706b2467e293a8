"""Charts over scheduler steps: reward path, spread of the weights and effective sample size of a prompt or of a run."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fklit.report import svg
from fklit.report.lineages import join, trace
from fklit.report.record import Floats, PromptRecord

_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 10.0, 8.0, 24.0


def _step_axis(
    record: PromptRecord, width: float, height: float, *, events: bool = True
) -> tuple[list[float], list[str]]:
    """Pixel of each column (steps that weighed, then the end), and the parts that label them."""
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
        if resampled and events:
            parts.append(svg.line(x, _TOP, x, height - _BOTTOM, "event"))
    return xs, parts


def reward_path(record: PromptRecord, *, width: float = 520, height: float = 210) -> str:
    """Score of every particle at every scored step, joined parent to child; color = root, faded = died out.

    Args:
        record: the prompt's record.
        width: pixels.
        height: pixels.
    """
    kept = np.flatnonzero(np.isfinite(record.values[:-1]).any(axis=1))
    columns = np.append(kept, len(record.steps))
    values = record.values[columns]
    domain = svg.padded(values)
    to_y = svg.scale(domain, (height - _BOTTOM, _TOP))
    places, axis = _step_axis(record, width, height)
    xs = [places[column] for column in columns]
    family = trace(record.ancestors, record.chosen)
    alive, roots, chosen = family.alive[columns], family.roots[columns], family.chosen[columns]
    parts = [*svg.y_axis(domain, _LEFT, width - _RIGHT, to_y), *axis]
    faint: list[str] = []
    strong: list[str] = []
    for s, row in enumerate(join(record.ancestors, kept)):
        for slot, parent in enumerate(row.tolist()):
            start, stop = values[s, parent], values[s + 1, slot]
            if not (math.isfinite(start) and math.isfinite(stop)):
                continue
            css = "edge chosen" if chosen[s + 1, slot] else "edge" if alive[s + 1, slot] else "edge dead"
            stroke = f"stroke:{svg.root_color(int(roots[s + 1, slot]))}"
            joint = svg.line(xs[s], to_y(start), xs[s + 1], to_y(stop), css, stroke)
            (strong if alive[s + 1, slot] else faint).append(joint)
    dots = []
    for s, slot in np.ndindex(values.shape):
        value = float(values[s, slot])
        if math.isfinite(value):
            css = "dot" if alive[s, slot] else "dot dead"
            fill = f"fill:{svg.root_color(int(roots[s, slot]))}"
            dots.append(svg.circle(xs[s], to_y(value), 2.6, css, fill, f"sample {slot}: {svg.number(value, 4)}"))
    if math.isfinite(values[-1, record.chosen]):
        dots.append(svg.circle(xs[-1], to_y(values[-1, record.chosen]), 5.5, "ring"))
    return svg.svg(width, height, [*parts, *faint, *strong, *dots], label="Reward of each particle over the steps")


def ess(record: PromptRecord, *, threshold: float | None = None, width: float = 520, height: float = 110) -> str:
    """Effective sample size at each step that weighed and at the end, with the threshold below which a group resamples.

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
        if 11 < y - to_y(slots) and 11 < to_y(0) - y:  # labels that would touch are left out
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


def trends(
    records: Sequence[PromptRecord], rows: Sequence[Floats], *, label: str, width: float = 520, height: float = 130
) -> str:
    """A figure of each step from zero up: a thin line a prompt with a bold mean, or one line where there is one prompt.

    Steps whose weights did not count have hollow dots.

    Args:
        records: of prompts that took the same steps; their resamplings are marked where it is one.
        rows: for each the figure, ``(S,)`` or with one more for the end.
        label: what the figure is.
        width: pixels.
        height: pixels.
    """
    alone = len(records) == 1
    stacked = np.vstack(rows)
    finite = stacked[np.isfinite(stacked)]
    domain = (0.0, (float(finite.max()) if len(finite) else 0.0) * 1.07 or 1.0)
    to_y = svg.scale(domain, (height - _BOTTOM, _TOP))
    xs, axis = _step_axis(records[0], width, height, events=alone)
    parts = [*svg.y_axis(domain, _LEFT, width - _RIGHT, to_y), *axis]

    def line(row: Floats, css: str) -> str:
        places = [(x, to_y(v)) for x, v in zip(xs, row.tolist(), strict=False) if math.isfinite(v)]
        return svg.path(places, css) if len(places) > 1 else ""

    if not alone:
        parts += [line(row, "pair") for row in stacked]
    counts = np.isfinite(stacked).sum(axis=0)
    mean = np.where(counts > 0, np.nansum(np.where(np.isfinite(stacked), stacked, 0), axis=0) / counts.clip(1), np.nan)
    parts.append(line(mean, "trend"))
    counted = [*records[0].weighed.tolist(), True]
    for x, v, counts in zip(xs, mean.tolist(), counted, strict=False):
        if math.isfinite(v):
            css = "trenddot" if counts else "trenddot idle"
            parts.append(svg.circle(x, to_y(v), 2.6, css, title=f"{label} {svg.number(v)}"))
    return svg.svg(width, height, parts, label=f"{label} over the steps")

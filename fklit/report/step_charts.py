"""Charts over scheduler steps: reward path, log weights and effective sample size of a prompt or of a run."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fklit.report.formatting import number
from fklit.report.lineages import join, trace
from fklit.report.record import Floats, PromptRecord
from fklit.report.shapes import Box, Dot, Drawing, Label, Line, Shape, padded, scale, y_axis

_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 10.0, 8.0, 24.0


def _step_axis(
    record: PromptRecord, width: float, height: float, *, events: bool = True
) -> tuple[list[float], list[Shape]]:
    """Pixel of each column (weighted steps, then the end), and the shapes that label them."""
    columns = [*record.steps.tolist(), record.num_steps]
    first = min(columns[0], 0) if len(columns) > 1 else 0
    to_x = scale((first, record.num_steps), (_LEFT + 6, width - _RIGHT - 8))
    xs = [to_x(column) for column in columns]
    shapes: list[Shape] = []
    taken = -math.inf
    for x, column in zip(xs[:-1], columns[:-1], strict=True):
        if x - taken > 26 and xs[-1] - x > 46:  # labels that would touch are left out
            shapes.append(Label(x, height - 8, str(column), anchor="middle"))
            taken = x
    shapes.append(Label(width - 2, height - 8, f"end ({record.num_steps})", anchor="end"))
    for x, resampled in zip(xs[:-1], record.resampled.tolist(), strict=True):
        if resampled and events:
            shapes.append(Line([(x, _TOP), (x, height - _BOTTOM)], "event"))
    return xs, shapes


def reward_path(record: PromptRecord, *, width: float = 520, height: float = 210) -> Drawing:
    """Score of every particle at every scored step, joined parent to child; color = root, faded = died out.

    Args:
        record: the prompt's record.
        width: pixels.
        height: pixels.
    """
    kept = np.flatnonzero(np.isfinite(record.values[:-1]).any(axis=1))
    columns = np.append(kept, len(record.steps))
    values = record.values[columns]
    domain = padded(values)
    to_y = scale(domain, (height - _BOTTOM, _TOP))
    places, axis = _step_axis(record, width, height)
    xs = [places[column] for column in columns]
    family = trace(record.ancestors, record.chosen)
    shapes: list[Shape] = [*y_axis(domain, _LEFT, width - _RIGHT, to_y), *axis]
    faint: list[Shape] = []
    strong: list[Shape] = []
    for s, row in enumerate(join(record.ancestors, kept)):
        for slot, parent in enumerate(row.tolist()):
            start, stop = values[s, parent], values[s + 1, slot]
            if not (math.isfinite(start) and math.isfinite(stop)):
                continue
            column = int(columns[s + 1])
            state = family.state(column, slot)
            css = "edge" if state == "alive" else f"edge {state}"
            edge = Line([(xs[s], to_y(start)), (xs[s + 1], to_y(stop))], css, family.color(column, slot))
            (faint if state == "dead" else strong).append(edge)
    dots: list[Shape] = []
    for s, slot in np.ndindex(values.shape):
        value = float(values[s, slot])
        if math.isfinite(value):
            column = int(columns[s])
            css = "dot" if family.alive[column, slot] else "dot dead"
            title = f"sample {slot}: {number(value, 4)}"
            dots.append(Dot(xs[s], to_y(value), 2.6, css, family.color(column, slot), title))
    if math.isfinite(values[-1, record.chosen]):
        dots.append(Dot(xs[-1], to_y(values[-1, record.chosen]), 5.5, "ring"))
    return Drawing(width, height, [*shapes, *faint, *strong, *dots], "Reward of each particle over the steps")


def ess(record: PromptRecord, *, threshold: float | None = None, width: float = 520, height: float = 110) -> Drawing:
    """Effective sample size at each weighted step and at the end, with the threshold below which a group resamples.

    Args:
        record: the prompt's record.
        threshold: fraction of K, or None when it is not known.
        width: pixels.
        height: pixels.
    """
    slots = record.num_particles
    to_y = scale((0.0, slots * 1.05), (height - _BOTTOM, _TOP))
    xs, axis = _step_axis(record, width, height)
    shapes: list[Shape] = []
    for mark in (0, slots):
        shapes += [Line([(_LEFT, to_y(mark)), (width - _RIGHT, to_y(mark))], "grid")]
        shapes += [Label(_LEFT - 6, to_y(mark) + 3.5, str(mark), anchor="end")]
    shapes += axis
    if threshold is not None and 0 < threshold <= 1:
        y = to_y(threshold * slots)
        shapes += [Line([(_LEFT, y), (width - _RIGHT, y)], "threshold")]
        if 11 < y - to_y(slots) and 11 < to_y(0) - y:  # labels that would touch are left out
            shapes += [Label(_LEFT - 6, y + 3.5, number(threshold * slots, 1), anchor="end")]
    bar = max(3.0, min(16.0, 0.6 * min((b - a for a, b in pairwise(xs)), default=16.0)))
    for i, (x, value) in enumerate(zip(xs, record.ess.tolist(), strict=True)):
        if not math.isfinite(value):
            continue
        css = "bar hit" if i < len(record.resampled) and record.resampled[i] else "bar"
        top, title = to_y(value), f"ESS {number(value, 2)} of {slots}"
        shapes.append(Box(x - bar / 2, top, bar, max(0.0, to_y(0) - top), css, title=title))
    return Drawing(width, height, shapes, "Effective sample size over the steps")


def trends(
    records: Sequence[PromptRecord], rows: Sequence[Floats], *, label: str, width: float = 520, height: float = 130
) -> Drawing:
    """A quantity at each step, from zero up: a line of one prompt, or a thin line for each with a bold mean.

    Steps whose weights did not count have hollow dots.

    Args:
        records: of prompts that took the same steps; their resamplings are marked where it is one.
        rows: for each the quantity, `(S,)` or with one more for the end.
        label: what the quantity is.
        width: pixels.
        height: pixels.
    """
    alone = len(records) == 1
    stacked = np.vstack(rows)
    finite = stacked[np.isfinite(stacked)]
    domain = (0.0, (float(finite.max()) if len(finite) else 0.0) * 1.07 or 1.0)
    to_y = scale(domain, (height - _BOTTOM, _TOP))
    xs, axis = _step_axis(records[0], width, height, events=alone)
    shapes: list[Shape] = [*y_axis(domain, _LEFT, width - _RIGHT, to_y), *axis]

    def line(row: Floats, css: str) -> list[Line]:
        places = [(x, to_y(v)) for x, v in zip(xs, row.tolist(), strict=False) if math.isfinite(v)]
        return [Line(places, css)] if len(places) > 1 else []

    if not alone:
        shapes += [piece for row in stacked for piece in line(row, "pair")]
    counts = np.isfinite(stacked).sum(axis=0)
    mean = np.where(counts > 0, np.nansum(np.where(np.isfinite(stacked), stacked, 0), axis=0) / counts.clip(1), np.nan)
    shapes += line(mean, "trend")
    counted = [*records[0].weighted.tolist(), True]
    for x, v, counts in zip(xs, mean.tolist(), counted, strict=False):
        if math.isfinite(v):
            css = "trenddot" if counts else "trenddot idle"
            shapes.append(Dot(x, to_y(v), 2.6, css, title=f"{label} {number(v)}"))
    return Drawing(width, height, shapes, f"{label} over the steps")

"""The family tree of one prompt: a column a step that weighed, a row a slot, each node a denoised preview or a dot."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from fklit.report import svg
from fklit.report.lineages import thin, trace
from fklit.report.record import PromptRecord

_HEAD, _CAPTION = 40.0, 13.0
_HALF_LABEL = 26.0
_PREVIEW_COLUMNS, _DOT_COLUMNS, _DOT = 14, 20, 10.0


def _node_size(slots: int, columns: int) -> float:
    """Side of a thumbnail: as large as the page allows, smaller for many particles."""
    by_rows = 64.0 if slots <= 4 else 52.0 if slots <= 8 else 36.0 if slots <= 16 else 20.0
    return min(by_rows, 64.0 if columns <= 10 else 52.0)


def family_tree(
    record: PromptRecord,
    images: list[Image.Image],
    previews: npt.NDArray[np.uint8] | None,
    *,
    max_columns: int | None = None,
    width: float = 1240,
) -> str:
    """Draw who descends from whom.

    Color marks the root, faded pictures died out, the ringed one at the right was chosen; below each is its score.

    Args:
        record: the prompt's record.
        images: the K returned pictures.
        previews: ``(S, K, h, w, 3)`` denoised previews, or None (dots instead of thumbnails).
        max_columns: most steps to draw, the others are joined; None for as many as fit.
        width: pixels to fill when the tree is narrower.
    """
    fits = max_columns or (_DOT_COLUMNS if previews is None else _PREVIEW_COLUMNS)
    kept, ancestors = thin(record.ancestors, record.resampled, fits)
    family = trace(ancestors, record.chosen)
    slots, columns = record.num_particles, len(kept) + 1
    size = _node_size(slots, columns)
    side, last = (size, size * 1.25) if previews is not None else (_DOT, 0.85 * size)
    captioned = slots <= 16 and record.rewards is not None
    pitch = max(last + (_CAPTION + 11 if captioned else 11 if slots <= 16 else 4), 24.0)
    gap = max(side + 26.0, 44.0, min(230.0, (width - last - 40) / max(columns - 1, 1)))
    edge = max(10.0, _HALF_LABEL - side / 2)  # room for the words above the first column
    total = edge + 10 + gap * (columns - 1) + last
    height = _HEAD + pitch * slots + 6
    xs = [edge + side / 2 + gap * i for i in range(columns - 1)] + [edge + gap * (columns - 1) + last / 2]
    ys = [_HEAD + pitch * k + last / 2 for k in range(slots)]
    values = record.values[[*kept, -1]]

    parts: list[str] = []
    for i, step in enumerate([*record.steps[kept].tolist(), None]):
        end = step is None
        parts.append(svg.text(xs[i], 13, "returned" if end else f"step {step}", "label", "middle"))
        left = record.ess[-1] if end else record.ess[kept[i]]
        again = not end and bool(record.resampled[kept[i]])
        parts.append(
            svg.text(xs[i], 28, f"ESS {svg.number(float(left), 1)}", "tick hit" if again else "tick", "middle")
        )
        if again and i + 1 < columns:
            x = (xs[i] + xs[i + 1]) / 2
            parts.append(svg.line(x, 20, x, height - 4, "event"))
            if gap >= 100:  # else the words would touch; red figures and lines say it
                parts.append(svg.text(x, 13, "resampled", "tick hit", "middle"))
    edges: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for i, row in enumerate(family.parents):
        for slot, parent in enumerate(row.tolist()):
            rank = 2 if family.chosen[i + 1, slot] else 1 if family.alive[i + 1, slot] else 0
            half = (last if i + 1 == columns - 1 else side) / 2
            stroke = f"stroke:{svg.root_color(int(family.roots[i + 1, slot]))}"
            css = ("edge dead", "edge", "edge chosen")[rank]
            edges[rank].append(svg.curve(xs[i] + side / 2, ys[parent], xs[i + 1] - half, ys[slot], css, stroke))
    parts += edges[0] + edges[1] + edges[2]

    weights = record.weights
    for i in range(columns):
        end = i == columns - 1
        box = last if end else side
        for slot in range(slots):
            color = svg.root_color(int(family.roots[i, slot]))
            css = "node" if family.alive[i, slot] else "node dead"
            value = float(values[i, slot])
            hover = f"sample {slot}"
            hover += f", score {svg.number(value, 4)}" if math.isfinite(value) else ""
            hover += f", weight {svg.number(float(weights[slot]))}" if end else ""
            picture = images[slot] if end else None if previews is None else previews[kept[i], slot]
            if end and slot == record.chosen:
                parts.append(
                    f'<rect x="{xs[i] - box / 2 - 4:.1f}" y="{ys[slot] - box / 2 - 4:.1f}" width="{box + 8:.1f}" '
                    f'height="{box + 8:.1f}" rx="7" class="choice"/>'
                )
            if picture is None:
                parts.append(svg.circle(xs[i], ys[slot], 5, css, f"fill:{color}", hover))
            else:
                left, top = xs[i] - box / 2, ys[slot] - box / 2
                place = f'x="{left:.1f}" y="{top:.1f}" width="{box:.1f}" height="{box:.1f}"'
                parts.append(
                    f'<g class="{css}"><title>{hover}</title>'
                    f'<image href="{svg.data_uri(picture, 128)}" {place} preserveAspectRatio="xMidYMid slice"/>'
                    f'<rect {place} rx="4" class="frame" style="stroke:{color}"/></g>'
                )
            if captioned and math.isfinite(value):
                css = "tick" if family.alive[i, slot] else "tick dead"
                parts.append(
                    svg.text(xs[i], ys[slot] + box / 2 + _CAPTION + (2 if end else 0), svg.number(value), css, "middle")
                )
    return svg.svg(total, height, parts, label="Family tree of the particles with denoised previews", css="tree")

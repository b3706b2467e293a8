"""The family tree of one prompt: a column for each weighted step, a row for each slot, with previews or dots."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from fklit.report.formatting import number, short
from fklit.report.lineages import Lineages, thin, trace
from fklit.report.record import PromptRecord
from fklit.report.shapes import Box, Curve, Dot, Drawing, Label, Line, Shape, Thumbnail

_HEAD, _CAPTION = 40.0, 13.0
_HALF_LABEL = 26.0
_PREVIEW_COLUMNS, _DOT_COLUMNS, _DOT = 14, 20, 10.0
_LETTER = 6.1  # pixels that a letter takes on average


def family_tree(
    record: PromptRecord,
    images: Sequence[Image.Image] | None,
    previews: npt.NDArray[np.uint8] | None,
    *,
    texts: Sequence[str] | None = None,
    max_columns: int | None = None,
    width: float = 1240,
) -> Drawing:
    """Draw who descends from whom.

    Color marks the root, faded pictures died out, the ringed one at the right was chosen; below each is its score.

    Args:
        record: the prompt's record.
        images: the K returned pictures; None where the samples are no pictures.
        previews: `(S, K, h, w, 3)` denoised previews, or None (dots instead of thumbnails).
        texts: the K returned texts, which stand at the right; the predicted ones show on hovering.
        max_columns: most steps to draw, the others are joined; None for as many as fit.
        width: pixels to fill when the tree is narrower.
    """
    fits = max_columns or (_DOT_COLUMNS if previews is None else _PREVIEW_COLUMNS)
    kept, ancestors = thin(record.ancestors, record.resampled, fits)
    return _Tree(record, images, previews, texts, kept, trace(ancestors, record.chosen), width).draw()


class _Tree:
    """Positions of the columns and rows, and the shapes at them."""

    def __init__(
        self,
        record: PromptRecord,
        images: Sequence[Image.Image] | None,
        previews: npt.NDArray[np.uint8] | None,
        texts: Sequence[str] | None,
        kept: npt.NDArray[np.int64],
        family: Lineages,
        width: float,
    ) -> None:
        self.record, self.images, self.previews, self.kept, self.family = record, images, previews, kept, family
        self.texts = texts
        self.predictions = record.raw.get("predictions")
        slots, columns = record.num_particles, len(kept) + 1
        size = _node_size(slots, columns)
        self.side, self.last = (size, size * 1.25) if previews is not None else (_DOT, 0.85 * size)
        if images is None:
            self.side, self.last = _DOT, _DOT
        aside = 0.0 if texts is None else min(0.55 * width, 20 + _LETTER * max(map(len, texts)))
        self.captioned = slots <= 16 and record.rewards is not None
        pitch = max(self.last + (_CAPTION + 11 if self.captioned else 11 if slots <= 16 else 4), 24.0)
        self.gap = max(self.side + 26.0, 44.0, min(230.0, (width - aside - self.last - 40) / max(columns - 1, 1)))
        edge = max(10.0, _HALF_LABEL - self.side / 2)  # space for the words above the first column
        self.width = edge + 10 + self.gap * (columns - 1) + self.last + max(aside, _HALF_LABEL if texts else 0.0)
        self.letters = int((aside - 20) / _LETTER)
        self.height = _HEAD + pitch * slots + 6
        self.xs = [edge + self.side / 2 + self.gap * i for i in range(columns - 1)]
        self.xs.append(edge + self.gap * (columns - 1) + self.last / 2)
        self.ys = [_HEAD + pitch * k + self.last / 2 for k in range(slots)]
        self.values = record.values[[*kept, -1]]

    def draw(self) -> Drawing:
        shapes = [*self._heads(), *self._edges(), *self._nodes()]
        label = "Family tree of the particles with denoised previews"
        return Drawing(self.width, self.height, shapes, label, "tree")

    def _heads(self) -> list[Shape]:
        """Step and effective sample size above each column, and a line where the step resampled."""
        record, shapes = self.record, list[Shape]()
        for i, step in enumerate(record.steps[self.kept].tolist()):
            resampled = bool(record.resampled[self.kept[i]])
            shapes.append(Label(self.xs[i], 13, f"step {step}", "label", "middle"))
            words = f"ESS {number(float(record.ess[self.kept[i]]), 1)}"
            shapes.append(Label(self.xs[i], 28, words, "tick hit" if resampled else "tick", "middle"))
            if resampled:
                x = (self.xs[i] + self.xs[i + 1]) / 2
                shapes.append(Line([(x, 20), (x, self.height - 4)], "event"))
                if self.gap >= 100:  # else the words would touch; red figures and lines say it
                    shapes.append(Label(x, 13, "resampled", "tick hit", "middle"))
        shapes.append(Label(self.xs[-1], 13, "returned", "label", "middle"))
        shapes.append(Label(self.xs[-1], 28, f"ESS {number(float(record.ess[-1]), 1)}", "tick", "middle"))
        return shapes

    def _edges(self) -> list[Shape]:
        """Parent to child; those that died out first, so that the others are painted over them."""
        edges: dict[str, list[Shape]] = {"dead": [], "alive": [], "chosen": []}
        for i, row in enumerate(self.family.parents):
            for slot, parent in enumerate(row.tolist()):
                state = self.family.state(i + 1, slot)
                half = (self.last if i + 1 == len(self.kept) else self.side) / 2
                start = (self.xs[i] + self.side / 2, self.ys[parent])
                end = (self.xs[i + 1] - half, self.ys[slot])
                css = "edge" if state == "alive" else f"edge {state}"
                edges[state].append(Curve(start, end, css, self.family.color(i + 1, slot)))
        return [*edges["dead"], *edges["alive"], *edges["chosen"]]

    def _nodes(self) -> list[Shape]:
        return [
            shape
            for i in range(len(self.xs))
            for slot in range(self.record.num_particles)
            for shape in self._node(i, slot)
        ]

    def _node(self, i: int, slot: int) -> list[Shape]:
        """A picture or a dot, with a ring around the chosen one and the score below."""
        end, shapes = i == len(self.kept), list[Shape]()
        x, y, box = self.xs[i], self.ys[slot], self.last if end else self.side
        dead = "" if self.family.alive[i, slot] else " dead"
        color, value = self.family.color(i, slot), float(self.values[i, slot])
        title = f"sample {slot}"
        title += f", score {number(value, 4)}" if math.isfinite(value) else ""
        title += f", weight {number(float(self.record.weights[slot]))}" if end else ""
        if end and slot == self.record.chosen:
            shapes.append(Box(x - box / 2 - 4, y - box / 2 - 4, box + 8, box + 8, "choice", rounding=7))
        if end:
            picture = None if self.images is None else self.images[slot]
        else:
            picture = None if self.previews is None else self.previews[self.kept[i], slot]
            if self.predictions is not None:
                title += f": {self.predictions[self.kept[i]][slot]}"
        if end and self.texts is not None:
            shapes.append(Label(x + box / 2 + 9, y + 4, short(self.texts[slot], self.letters), f"label{dead}"))
        if picture is None:
            shapes.append(Dot(x, y, 5, f"node{dead}", color, title))
        else:
            shapes.append(Thumbnail(x - box / 2, y - box / 2, box, picture, f"node{dead}", color, title))
        if self.captioned and math.isfinite(value):
            below = y + box / 2 + _CAPTION + (2 if end else 0)
            shapes.append(Label(x, below, number(value), f"tick{dead}", "middle"))
        return shapes


def _node_size(slots: int, columns: int) -> float:
    """Side of a thumbnail: as large as the page allows, smaller for many particles."""
    by_rows = 64.0 if slots <= 4 else 52.0 if slots <= 8 else 36.0 if slots <= 16 else 20.0
    return min(by_rows, 64.0 if columns <= 10 else 52.0)

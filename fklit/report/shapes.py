"""Drawings as data: lines, dots, labels and pictures at pixel positions, to be written as SVG or painted on an image.

The looks are named by CSS classes: `templates/style.css` has them for the page, `raster.py` for images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline through two or more points; `color` overrides the stroke of its class."""

    kind: ClassVar = "line"
    points: Points
    css: str
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A line that leaves its start and arrives at its end horizontally, for edges of a tree."""

    kind: ClassVar = "curve"
    start: tuple[float, float]
    end: tuple[float, float]
    css: str
    color: str | None = None

    @property
    def controls(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The two inner control points of the cubic Bézier curve."""
        middle = (self.start[0] + self.end[0]) / 2
        return (middle, self.start[1]), (middle, self.end[1])


@dataclass(frozen=True, slots=True)
class Dot:
    """A circle; `title` shows on hovering."""

    kind: ClassVar = "dot"
    x: float
    y: float
    radius: float
    css: str
    color: str | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its upper left corner; `rounding` is the radius of its corners."""

    kind: ClassVar = "box"
    x: float
    y: float
    width: float
    height: float
    css: str
    rounding: float = 0.0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """Text; `anchor` says which part of it is at `x`, `y` is the base line."""

    kind: ClassVar = "label"
    x: float
    y: float
    words: str
    css: str = "tick"
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A square picture in a frame of the given color, by its upper left corner."""

    kind: ClassVar = "thumbnail"
    x: float
    y: float
    side: float
    picture: Image.Image | npt.NDArray[np.uint8]
    css: str
    color: str
    title: str = ""


Shape = Line | Curve | Dot | Box | Label | Thumbnail


@dataclass(frozen=True)
class Drawing:
    """Shapes in the order in which they are painted.

    Attributes:
        width: Pixels.
        height: Pixels.
        shapes: What is drawn.
        label: What a screen reader says of it.
        css: Class of the whole.
    """

    width: float
    height: float
    shapes: Sequence[Shape]
    label: str
    css: str = "chart"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(values: npt.NDArray[np.float64], margin: float = 0.07) -> tuple[float, float]:
    """Range of the finite values with a margin; (0, 1) when there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    air = (high - low) * margin or abs(high) * 0.1 or 0.5
    return low - air, high + air


def scale(domain: tuple[float, float], span: tuple[float, float]) -> Callable[[float], float]:
    """Linear map from data to pixels."""
    (d0, d1), (s0, s1) = domain, span
    return lambda value: s0 + (value - d0) / ((d1 - d0) or 1.0) * (s1 - s0)


def y_axis(
    domain: tuple[float, float], left: float, right: float, y: Callable[[float], float], count: int = 4
) -> list[Shape]:
    """Grid lines with numbers at their left."""
    marks = ticks(*domain, count)
    step = min((b - a for a, b in pairwise(marks)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    digits += not math.isclose(round(step, digits), step, rel_tol=1e-6)
    shapes: list[Shape] = []
    for mark in marks:
        words = f"{mark:.{digits}f}".replace("-", "\N{MINUS SIGN}")
        shapes += [Line([(left, y(mark)), (right, y(mark))], "grid")]
        shapes += [Label(left - 6, y(mark) + 3.5, words, anchor="end")]
    return shapes

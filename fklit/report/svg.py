"""Small pieces of SVG that follow the page's light or dark colors through CSS classes."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

# Ten hues of like lightness that stay apart on white and on near-black; further roots start again.
ROOT_COLORS = (
    "#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#06b6d4", "#ec4899", "#84cc16", "#f97316", "#8b5cf6",
)  # fmt: skip


def root_color(root: int) -> str:
    """Color of everything that descends from one root."""
    return ROOT_COLORS[root % len(ROOT_COLORS)]


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: fixed digits near 1, scientific far from it, a dash where there is none."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{value:.{digits}f}" if value == 0 or 10.0**-digits <= abs(value) < 1e4 else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def data_uri(image: Image.Image | npt.NDArray[np.uint8], max_side: int) -> str:
    """The picture as a WebP data address, shrunk to ``max_side`` pixels; lossless while it is small."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if max(picture.size) > max_side:
        picture = picture.copy()
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small = max(picture.size) <= 96
    picture.convert("RGB").save(buffer, "WEBP", lossless=small, quality=80 if small else 88, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def svg(width: float, height: float, body: Sequence[str], *, label: str, css: str = "chart") -> str:
    """An SVG element that scales with its box; ``label`` is read out by screen readers."""
    return (
        f'<svg class="{css}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(label)}">' + "".join(body) + "</svg>"
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str, style: str = "") -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"{_style(style)}/>'


def path(points: Sequence[tuple[float, float]], css: str, style: str = "") -> str:
    """A broken line."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{steps}" class="{css}"{_style(style)}/>'


def curve(x1: float, y1: float, x2: float, y2: float, css: str, style: str = "") -> str:
    """A line that leaves and arrives level, for edges of a tree."""
    middle = (x1 + x2) / 2
    d = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return f'<path d="{d}" class="{css}"{_style(style)}/>'


def circle(x: float, y: float, radius: float, css: str, style: str = "", title: str = "") -> str:
    """A dot; ``title`` shows on hovering."""
    hover = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{css}"{_style(style)}>{hover}</circle>'


def text(x: float, y: float, words: str, css: str = "tick", anchor: str = "start") -> str:
    """A label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'


def _style(style: str) -> str:
    return f' style="{style}"' if style else ""


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(values: npt.NDArray[np.float64], margin: float = 0.07) -> tuple[float, float]:
    """Range of the finite values with some air; (0, 1) when there are none."""
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
) -> list[str]:
    """Grid lines with numbers at their left."""
    marks = ticks(*domain, count)
    step = min((b - a for a, b in pairwise(marks)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    digits += not math.isclose(round(step, digits), step, rel_tol=1e-6)
    parts = []
    for mark in marks:
        parts += [line(left, y(mark), right, y(mark), "grid")]
        parts += [text(left - 6, y(mark) + 3.5, f"{mark:.{digits}f}".replace("-", "\N{MINUS SIGN}"), anchor="end")]
    return parts

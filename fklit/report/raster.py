"""Paints a drawing on an image, for viewers that cannot show SVG (TensorBoard); in the page's light colors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

from fklit.report.shapes import Box, Curve, Dot, Drawing, Label, Line, Thumbnail

Array = npt.NDArray[np.float64]
Color = tuple[int, int, int]
_PAPER: Color = (255, 255, 255)
_SCALE = 3  # painted larger and shrunk, for smooth edges


@dataclass(frozen=True)
class _Look:
    """What a CSS class looks like: `opacity` 0 is the paper's color, `dash` pixels of a dash, 0 for a solid line."""

    color: str = "#5d6470"
    width: float = 1.0
    opacity: float = 1.0
    dash: float = 0.0
    size: float = 11.0


# The classes of the family tree, as in templates/style.css.
_LOOKS = {
    "edge": _Look(width=2.2),
    "edge chosen": _Look(width=4.0),
    "edge dead": _Look(width=1.4, opacity=0.32),
    "event": _Look("#e11d48", width=1.2, opacity=0.65, dash=3.0),
    "choice": _Look("#4f46e5", width=3.0),
    "node": _Look(width=2.5),
    "node dead": _Look(width=2.5, opacity=0.28),
    "label": _Look("#16181d", size=12.0),
    "label dead": _Look("#16181d", opacity=0.5, size=12.0),
    "tick": _Look(),
    "tick hit": _Look("#e11d48"),
    "tick dead": _Look(opacity=0.5),
}


def rasterize(drawing: Drawing) -> Image.Image:
    """Paint a family tree on white.

    Args:
        drawing: What `fklit.report.family_tree.family_tree` returned.

    Returns:
        An RGB image of the drawing's size in pixels, rounded up.
    """
    width, height = int(np.ceil(drawing.width)), int(np.ceil(drawing.height))
    image = Image.new("RGB", (width * _SCALE, height * _SCALE), _PAPER)
    canvas = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        look = _LOOKS[shape.css]
        color = _faded(shape.color if isinstance(shape, Line | Curve | Dot | Thumbnail) else None, look)
        match shape:
            case Line():
                _line(canvas, np.array(shape.points) * _SCALE, color, look)
            case Curve():
                _line(canvas, _bezier(shape) * _SCALE, color, look)
            case Dot():
                canvas.circle((shape.x * _SCALE, shape.y * _SCALE), shape.radius * _SCALE, fill=color)
            case Box():
                corners = _corners(shape.x, shape.y, shape.width, shape.height)
                canvas.rounded_rectangle(corners, shape.rounding * _SCALE, outline=color, width=_pixels(look.width))
            case Label():
                anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
                font = ImageFont.load_default(look.size * _SCALE)
                canvas.text((shape.x * _SCALE, shape.y * _SCALE), _plain(shape.words), color, font, anchor=anchor)
            case Thumbnail():
                _thumbnail(image, canvas, shape, color, look)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _thumbnail(image: Image.Image, canvas: ImageDraw.ImageDraw, shape: Thumbnail, color: Color, look: _Look) -> None:
    side = _pixels(shape.side)
    picture = shape.picture if isinstance(shape.picture, Image.Image) else Image.fromarray(shape.picture)
    picture = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    picture = Image.blend(Image.new("RGB", picture.size, _PAPER), picture, look.opacity)
    corners = _corners(shape.x, shape.y, shape.side, shape.side)
    image.paste(picture, (round(corners[0]), round(corners[1])))
    canvas.rounded_rectangle(corners, 4 * _SCALE, outline=color, width=_pixels(look.width))


def _line(canvas: ImageDraw.ImageDraw, points: Array, color: Color, look: _Look) -> None:
    if not look.dash:
        canvas.line([(x, y) for x, y in points.tolist()], color, _pixels(look.width), joint="curve")
        return
    start, end = points
    ends = np.arange(0.0, 1.0, look.dash * _SCALE / max(float(np.linalg.norm(end - start)), 1.0))
    for a, b in zip(ends[::2], ends[1::2], strict=False):
        canvas.line([tuple(start + a * (end - start)), tuple(start + b * (end - start))], color, _pixels(look.width))


def _bezier(curve: Curve) -> Array:
    """Points along the cubic Bézier curve."""
    t = np.linspace(0.0, 1.0, 25)[:, None]
    p0, p1, p2, p3 = (np.array(p) for p in (curve.start, *curve.controls, curve.end))
    points: Array = (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t**2 * p2 + t**3 * p3
    return points


def _corners(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x * _SCALE, y * _SCALE, (x + width) * _SCALE, (y + height) * _SCALE


def _pixels(length: float) -> int:
    return max(1, round(length * _SCALE))


def _faded(color: str | None, look: _Look) -> Color:
    ink = ImageColor.getrgb(color or look.color)
    r, g, b = (round(look.opacity * i + (1 - look.opacity) * p) for i, p in zip(ink, _PAPER, strict=False))
    return r, g, b


def _plain(words: str) -> str:
    """Text in the characters that Pillow's own font has."""
    return words.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-").replace("\N{INFINITY}", "inf")

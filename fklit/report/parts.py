"""Pieces of HTML and wording that several sections share."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from fklit.report.record import PromptRecord
from fklit.report.svg import data_uri, number


def img(image: Image.Image, max_side: int, alt: str) -> str:
    """An inlined picture; small ones are enlarged without blur."""
    css = ' class="pixel"' if max(image.size) <= 128 else ""
    return f'<img{css} src="{data_uri(image, max_side)}" alt="{escape(alt)}">'


def caption(record: PromptRecord, slot: int | None, digits: int = 3) -> str:
    """What is said of a chosen sample: its reward, or without one its weight. None is the mean over all samples."""
    if record.rewards is None:
        return "" if slot is None else f"weight {100 * record.weights[slot]:.0f}\N{NO-BREAK SPACE}%"
    if slot is None:
        finite = record.rewards[np.isfinite(record.rewards)]
        return f"mean {number(float(finite.mean()) if len(finite) else None, digits)}"
    return f"reward {number(float(record.rewards[slot]), digits)}"


def cell(key: str, value: float | None) -> str:
    """A figure of the tables, in its own unit."""
    if value is None or math.isnan(value):
        return number(None)
    if key == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    if key in ("denoiser_calls", "decodes", "reward_calls"):
        return f"{value:,.0f}"
    return number(value, {"seconds": 1, "unique_roots": 1}.get(key, 3))


def signed(value: float) -> str:
    """A number with its sign and three digits."""
    return number(None) if math.isnan(value) else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def short(value: Any, limit: int = 60) -> str:
    """Text of at most ``limit`` characters."""
    words = f"{value:.6g}" if isinstance(value, float) else str(value)
    return words if len(words) <= limit else words[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def find_number(settings: Mapping[str, Any], name: str) -> float | None:
    """The number that nested settings hold under a name, at any depth."""
    for key, value in flatten(settings).items():
        if key.rsplit(".", 1)[-1] == name and isinstance(value, int | float):
            return float(value)
    return None


def as_float(value: Any) -> float:
    """A float, NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan

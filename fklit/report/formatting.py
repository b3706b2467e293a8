"""Numbers and words as a reader sees them."""

import math
from typing import Any

import numpy as np

from fklit.report.record import PromptRecord


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: fixed digits near 1, one significant digit below, scientific far from 1, a dash for none."""
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    if value == 0 or 10.0**-digits <= abs(value) < 1e4:
        text = f"{value:.{digits}f}"
    else:
        text = f"{value:.1g}" if 1e-4 <= abs(value) < 1 else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """A number with its sign and three digits."""
    return number(None) if math.isnan(value) else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def cell(value: float | None, key: str) -> str:
    """A figure of the tables, in the unit of its key."""
    if value is None or math.isnan(value):
        return number(None)
    if key == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    if key in ("denoiser_calls", "decodes", "reward_calls"):
        return f"{value:,.0f}"
    return number(value, {"seconds": 1, "unique_roots": 1}.get(key, 3))


def short(value: Any, limit: int = 60) -> str:
    """Text of at most `limit` characters."""
    words = f"{value:.6g}" if isinstance(value, float) else str(value)
    return words if len(words) <= limit else words[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def caption(record: PromptRecord, slot: int | None, digits: int = 3) -> str:
    """What is said of a chosen sample: its reward, or without one its weight. None is the mean over all samples."""
    if record.rewards is None:
        return "" if slot is None else f"weight {100 * record.weights[slot]:.0f}\N{NO-BREAK SPACE}%"
    if slot is None:
        finite = record.rewards[np.isfinite(record.rewards)]
        return f"mean {number(float(finite.mean()) if len(finite) else None, digits)}"
    return f"reward {number(float(record.rewards[slot]), digits)}"

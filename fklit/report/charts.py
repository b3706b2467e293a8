"""The chart that compares methods over prompts, with intervals."""

import math
from collections.abc import Mapping

import numpy as np

from fklit.report import svg
from fklit.report.record import Floats

_LEFT, _RIGHT = 50.0, 10.0


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

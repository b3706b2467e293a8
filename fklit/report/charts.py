"""The chart that compares methods over prompts, with intervals."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import bootstrap

from fklit.report.formatting import number
from fklit.report.record import Floats
from fklit.report.shapes import Dot, Drawing, Label, Line, Shape, padded, scale, y_axis

_LEFT, _RIGHT = 50.0, 24.0  # room for the figure beside the last method


def bootstrap_interval(values: Floats, *, draws: int = 4000) -> tuple[float, float]:
    """95 % percentile interval of the mean over values (prompts), with a fixed seed; (nan, nan) for fewer than two."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return math.nan, math.nan
    found = bootstrap((finite,), np.mean, n_resamples=draws, method="percentile", rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return float(low), float(high)


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float, float]:
    """Mean over the prompts that both have of ours less theirs, and its 95 % interval (low, high)."""
    gaps = np.array([ours[index] - theirs[index] for index in ours if index in theirs])
    finite = gaps[np.isfinite(gaps)]
    low, high = bootstrap_interval(finite)
    return (float(finite.mean()) if len(finite) else math.nan), low, high


def comparison(
    series: Mapping[str, Mapping[int, float]], labels: Mapping[str, str], *, width: float = 400, height: float = 250
) -> Drawing:
    """Methods side by side: a thin line for each prompt, a bold mean with its 95 % interval over prompts.

    Args:
        series: method -> prompt index -> value.
        labels: what each method is called.
        width: pixels.
        height: pixels.
    """
    methods = list(series)
    everything = np.array([v for values in series.values() for v in values.values()] or [math.nan])
    domain = padded(everything)
    to_y = scale(domain, (height - 34, 10.0))
    inner = (width - _LEFT - _RIGHT) / max(len(methods), 1)
    xs = {method: _LEFT + inner * (i + 0.5) for i, method in enumerate(methods)}
    shapes: list[Shape] = y_axis(domain, _LEFT, width - _RIGHT, to_y, 5)
    for index in sorted(set().union(*series.values())):
        points = [(xs[m], to_y(series[m][index])) for m in methods if math.isfinite(series[m].get(index, math.nan))]
        if len(points) > 1:
            shapes.append(Line(points, "pair"))
        shapes += [Dot(x, y, 2.2, "pairdot") for x, y in points]
    for method in methods:
        values = np.array(list(series[method].values()))
        finite = values[np.isfinite(values)]
        if not len(finite):
            continue
        mean, (low, high) = float(finite.mean()), bootstrap_interval(values)
        x, css = xs[method], f"m-{method}"
        if math.isfinite(low):
            shapes.append(Line([(x, to_y(low)), (x, to_y(high))], f"interval {css}"))
        shapes.append(Dot(x, to_y(mean), 6, f"mean {css}", title=f"{labels[method]}: {number(mean, 4)}"))
        shapes.append(Label(x + 11, to_y(mean) + 4, number(mean), "value"))
        shapes.append(Label(x, height - 10, labels[method], "label", "middle"))
    return Drawing(width, height, shapes, "Methods compared over prompts")

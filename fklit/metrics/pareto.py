"""Hypervolume: how much of the objectives' space a set of points dominates."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


def hypervolume(points: Float[Tensor, "n d"], reference: Sequence[float]) -> float:
    """Volume of what at least one point dominates above a reference (Zitzler and Thiele 1999); higher is better.

    Args:
        points: Objectives, higher is better; points that do not exceed the reference in each dominate nothing.
        reference: The corner, d numbers.

    Raises:
        ValueError: The shapes do not fit, or a point is NaN.
    """
    if points.ndim != 2 or points.shape[1] != len(reference) or not len(reference):
        raise ValueError(
            f"expected points (n, {len(reference)}) for {len(reference)} coordinates of the reference, got "
            f"{tuple(points.shape)}; give one coordinate for each objective."
        )
    if bool(points.isnan().any()):
        raise ValueError("expected numbers, got a point with NaN; leave what has no objectives out.")
    above = points.double() - points.new_tensor(list(reference)).double()
    return _volume([tuple(row) for row in above[(above > 0).all(dim=1)].tolist()])


def _volume(points: list[tuple[float, ...]]) -> float:
    """Of points above 0, by slices along the last axis."""
    if not points:
        return 0.0
    if len(points[0]) == 1:
        return max(point[0] for point in points)
    ranked = sorted(set(points), key=lambda point: -point[-1])
    total, front = 0.0, list[tuple[float, ...]]()
    for number, point in enumerate(ranked):
        lower = ranked[number + 1][-1] if number + 1 < len(ranked) else 0.0
        # Only what no other point of the slice dominates counts, which keeps slices small.
        if not any(all(a >= b for a, b in zip(other, point[:-1], strict=True)) for other in front):
            front = [other for other in front if not all(b >= a for a, b in zip(other, point[:-1], strict=True))]
            front.append(point[:-1])
        if point[-1] > lower:
            total += (point[-1] - lower) * _volume(front)
    return total

"""Distances between samples of a low-dimensional law and its truth, each defined here to the last constant.

Points are float tensors (n, d). Weighted samples are first drawn by weight, so that every distance is one of plain
point sets; a truth compared with itself gives the sampling floor, below which no method can be told from another.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def wasserstein(x: Tensor, y: Tensor, *, num: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return W1 and W2 by exact assignment between `num` points of each set, drawn without replacement.

    W1 is the mean Euclidean distance of the assignment that minimizes it; W2 the root of the mean square distance of
    the assignment that minimizes that.

    Args:
        x: (n, d).
        y: (m, d).
        num: Points of each set; the cost is cubic. At most n and m.
        seed: Of the choice of points.
    """
    from scipy.optimize import linear_sum_assignment

    generator = torch.Generator().manual_seed(seed)
    num = min(num, len(x), len(y))
    left, right = (points[torch.randperm(len(points), generator=generator)[:num]].double() for points in (x, y))
    distances = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    rows, columns = linear_sum_assignment(distances)
    first = float(distances[rows, columns].mean())
    squares = distances**2
    rows, columns = linear_sum_assignment(squares)
    return first, float(squares[rows, columns].mean() ** 0.5)


def total_variation(x: Tensor, y: Tensor, *, bins: int = 200, low: float, high: float) -> float:
    """Return half the L1 distance of the 2-D histograms on a square of `bins` x `bins` cells.

    Args:
        x: (n, 2).
        y: (m, 2).
        bins: Cells of a side.
        low: Lower edge of the square; points outside count as one more cell.
        high: Upper edge.
    """

    def histogram(points: Tensor) -> Tensor:
        cells = ((points.double() - low) / (high - low) * bins).floor().long()
        inside = ((cells >= 0) & (cells < bins)).all(dim=1)
        flat = torch.where(inside, cells[:, 0] * bins + cells[:, 1], bins * bins)
        return torch.bincount(flat, minlength=bins * bins + 1).double() / len(points)

    return 0.5 * float((histogram(x) - histogram(y)).abs().sum())


def mmd(x: Tensor, y: Tensor, *, bandwidths: tuple[float, ...], num: int = 2000, seed: int = 0) -> float:
    """Return the squared maximum mean discrepancy, unbiased, of the mean of Gaussian kernels; it can be below 0.

    Args:
        x: (n, d).
        y: (m, d).
        bandwidths: Standard deviations h of the kernels `exp(-|x - y|^2 / (2 h^2))`.
        num: Points of each set.
        seed: Of the choice of points.
    """
    generator = torch.Generator().manual_seed(seed)
    left, right = (points[torch.randperm(len(points), generator=generator)[:num]].double() for points in (x, y))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squares = torch.cdist(a, b).square()
        return torch.stack([(-squares / (2 * h * h)).exp() for h in bandwidths]).mean(dim=0)

    n, m = len(left), len(right)
    own = (kernel(left, left).sum() - n) / (n * (n - 1)) + (kernel(right, right).sum() - m) / (m * (m - 1))
    return float(own - 2 * kernel(left, right).mean())


def energy_wasserstein(x: Tensor, y: Tensor, energy: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Return W1 and W2 (a root) between the laws of the energies of two point sets.

    Args:
        x: (n, d).
        y: (m, d).
        energy: From (n, d) to (n,), minus the log of the density.
    """
    return wasserstein_line(energy(x.double()), energy(y.double()))


def wasserstein_line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return W1 and W2 (a root) between two sets of numbers, by 4,096 quantiles of each.

    Args:
        x: (n,).
        y: (m,).
    """
    levels = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    left, right = (_quantiles(values.double(), levels) for values in (x, y))
    gap = (left - right).abs()
    return float(gap.mean()), float(gap.square().mean().sqrt())


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    if values.numel() <= 2**24:  # the most that torch.quantile takes
        return torch.quantile(values, levels)
    places = levels * (values.numel() - 1)
    ordered, low = values.sort().values, places.floor().long()
    high = (low + 1).clamp(max=values.numel() - 1)
    return torch.lerp(ordered[low], ordered[high], places - low)


def mode_masses(x: Tensor, modes: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the share of points nearest to each mode, (M,) float64.

    Args:
        x: Points (n, d).
        modes: (M, d).
        weights: Of the points, (n,), summing to 1; equal if None. Weights that a run carried to its end give less noise
            than a draw by them.
    """
    nearest = torch.cdist(x.double(), modes.double()).argmin(dim=1)
    if weights is None:
        return torch.bincount(nearest, minlength=len(modes)).double() / len(x)
    return torch.bincount(nearest, weights=weights.double(), minlength=len(modes))


def sliced_wasserstein(x: Tensor, y: Tensor, *, slices: int = 128, seed: int = 0) -> float:
    """Return the mean over random directions of W1 between the projections of *all* points of two sets of one size.

    W1 in the plane by assignment takes 2,000 of 10,000 points, and its sampling floor hides what this can decide.

    Args:
        x: (n, d).
        y: (n, d).
        slices: Number of directions.
        seed: Of the directions.

    Raises:
        ValueError: If the sets differ in size.
    """
    if len(x) != len(y):
        raise ValueError(f"expected two sets of one size, got {len(x)} and {len(y)} points; draw as many of each.")
    directions = torch.randn(x.shape[1], slices, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    left, right = ((points.double() @ directions).sort(dim=0).values for points in (x, y))
    return float((left - right).abs().mean())


def w1_to_density(x: Tensor, weights: Tensor, grid: Tensor, mass: Tensor) -> float:
    """Return W1 between weighted points on the line and a law on a fine grid: the L1 distance of their CDFs.

    Args:
        x: (n,).
        weights: (n,), summing to 1.
        grid: (g,), equally spaced, rising, wide enough to hold the points.
        mass: (g,), summing to 1.
    """
    order = x.argsort()
    steps = torch.cat([torch.zeros(1, dtype=torch.float64), weights.double()[order].cumsum(0)])
    ours = steps[torch.searchsorted(x[order].double().contiguous(), grid.double(), right=True)]
    return float((ours - mass.double().cumsum(0)).abs().sum() * (grid[1] - grid[0]))

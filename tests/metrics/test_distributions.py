"""Distances between laws: against closed forms, sums written out by hand, brute force, and scipy."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from fklit.metrics.distributions import (
    energy_wasserstein,
    mmd,
    mode_masses,
    total_variation,
    w1_to_density,
    wasserstein,
)


def draw(number, dim, *, seed=0, dtype=torch.float64):
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Wasserstein distances


def test_wasserstein_on_the_line_is_scipys():
    x, y = draw(60, 1), 1.5 * draw(60, 1, seed=1) + 0.3
    first, second = wasserstein(x, y)
    assert first == pytest.approx(scipy.stats.wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)
    gaps = np.sort(x[:, 0].numpy()) - np.sort(y[:, 0].numpy())  # the optimal coupling on the line, for every power
    assert second == pytest.approx(np.sqrt(np.mean(gaps**2)), rel=1e-12)


def test_wasserstein_is_the_least_of_all_assignments():
    """In the plane, and W1 and W2 each with the assignment that is best for it: here they differ."""
    differ = 0
    for seed in range(20):
        x, y = draw(5, 2, seed=seed), 2 * draw(5, 2, seed=100 + seed)
        costs = []
        for order in itertools.permutations(range(5)):
            lengths = [math.dist(x[i].tolist(), y[j].tolist()) for i, j in enumerate(order)]
            costs.append((sum(lengths) / 5, math.sqrt(sum(length**2 for length in lengths) / 5)))
        best = min(c[0] for c in costs), min(c[1] for c in costs)
        assert wasserstein(x, y) == pytest.approx(best, rel=1e-12)
        differ += min(costs)[1] > best[1] + 1e-9
    assert differ


def test_wasserstein_of_a_shift_is_its_length_also_far_from_zero():
    """Distances are differences of coordinates: a matrix product would lose the last digits out there."""
    x = 1e6 + draw(40, 3)
    shift = torch.tensor([3e-4, 0.0, 4e-4], dtype=torch.float64)
    assert wasserstein(x, x + shift) == pytest.approx((5e-4, 5e-4), rel=1e-4)
    assert wasserstein(x, x) == (0, 0)


def test_wasserstein_bounds_the_sliced_one():
    x, y = draw(50, 2), draw(50, 2, seed=1) * torch.tensor([2.0, 0.5])
    angles = torch.linspace(0, math.pi, 33)[:-1].double()
    sliced = []
    for direction in torch.stack([angles.cos(), angles.sin()], 1):
        sliced.append(scipy.stats.wasserstein_distance(x @ direction, y @ direction))
    first, second = wasserstein(x, y)
    assert first / 2 < max(sliced) <= first <= second


def test_wasserstein_of_a_gradient_map_is_its_length():
    """The gradient of a convex function is the optimal map for W2 (Brenier 1991), here of a positive definite form."""
    x = draw(100, 2)
    y = x @ torch.tensor([[2.0, 0.6], [0.6, 0.9]], dtype=torch.float64) + torch.tensor([1.0, -1.0])
    expected = (y - x).square().sum(1).mean().sqrt()
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    assert wasserstein(x, y[order])[1] == pytest.approx(float(expected), rel=1e-12)


def test_subsets_are_drawn_without_replacement_from_each_set():
    x, y = draw(40, 2), draw(30, 2, seed=1)
    pairs = torch.cdist(x, y)
    for seed in range(5):
        first, second = wasserstein(x, y, num=1, seed=seed)
        assert (pairs - first).abs().min() < 1e-12 and first == pytest.approx(second)
    values = [wasserstein(x, y, num=10, seed=seed)[0] for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert wasserstein(x, x, num=10)[0] > 0  # the two subsets are drawn apart
    assert wasserstein(x, x, num=40, seed=5) == pytest.approx((0, 0), abs=1e-12)  # none is drawn twice
    assert wasserstein(x[:3], x[:3].repeat(1, 1), num=100)[0] == 0


# Total variation of histograms


def test_total_variation_is_that_of_numpys_histograms():
    x, y = draw(500, 2), 1.3 * draw(400, 2, seed=1) + 0.2
    edges = np.linspace(-2, 3, 8)
    counts = [np.histogram2d(p[:, 0], p[:, 1], bins=(edges, edges))[0] / len(p) for p in (x.numpy(), y.numpy())]
    outside = [1 - c.sum() for c in counts]
    expected = (np.abs(counts[0] - counts[1]).sum() + abs(outside[0] - outside[1])) / 2
    assert 0.1 < expected < 0.9 and min(outside) > 0
    assert total_variation(x, y, bins=7, low=-2, high=3) == pytest.approx(expected, abs=1e-12)


def test_total_variation_by_hand():
    """Cells are half open, the two axes differ, and everything outside is one more cell."""

    def distance(x, y):
        return total_variation(torch.tensor(x), torch.tensor(y), bins=2, low=0.0, high=2.0)

    assert distance([[0.5, 0.5]], [[0.0, 0.99]]) == 0  # one cell
    assert distance([[0.5, 1.5]], [[1.5, 0.5]]) == 1
    assert distance([[1.5, 0.5]], [[1.5, 1.5]]) == 1
    assert distance([[0.5, 0.5]], [[1.0, 0.5]]) == 1  # an edge belongs to the cell above it
    assert distance([[2.0, 0.5]], [[-1.0, 7.0]]) == 0  # both are outside
    assert distance([[0.5, -0.1]], [[0.5, 0.1]]) == 1
    assert distance([[0.5, 2.1]], [[1.5, 0.5]]) == 1  # outside in one axis is outside
    assert distance([[0.5, 0.5], [1.5, 1.5]], [[0.5, 0.5], [0.5, 0.5], [1.5, 1.5], [9.0, 9.0]]) == pytest.approx(0.25)


# Maximum mean discrepancy


def gauss(a, b, h):
    return math.exp(-(math.dist(a, b) ** 2) / (2 * h * h))


def test_mmd_by_hand():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]])
    e = math.exp
    own = e(-1 / 2) + e(-9 / 2)  # one pair in each set, and no point with itself
    cross = (1 + e(-9 / 2) + e(-1 / 2) + e(-4 / 2)) / 4
    assert mmd(x, y, bandwidths=(1.0,)) == pytest.approx(own - 2 * cross, abs=1e-12)


def test_mmd_is_the_sum_over_different_points():
    """The unbiased estimator of Gretton et al. 2012, equation 3, written as loops: i = j is excluded within a set."""
    x, y, widths = draw(6, 2).tolist(), (1 + draw(4, 2, seed=1)).tolist(), (0.5, 2.0)

    def mean(pairs):
        pairs = list(pairs)
        return sum(gauss(a, b, h) for a, b in pairs for h in widths) / len(widths) / len(pairs)

    expected = (
        mean((x[i], x[j]) for i in range(6) for j in range(6) if i != j)
        + mean((y[i], y[j]) for i in range(4) for j in range(4) if i != j)
        - 2 * mean(itertools.product(x, y))
    )
    assert mmd(torch.tensor(x), torch.tensor(y), bandwidths=widths) == pytest.approx(expected, abs=1e-6)


def test_mmd_is_unbiased():
    """Over all ways to split a set in two, its mean is exactly zero; with the diagonal it would be above."""
    points = draw(6, 2)
    values = []
    for chosen in itertools.combinations(range(6), 3):
        rest = [i for i in range(6) if i not in chosen]
        values.append(mmd(points[list(chosen)], points[rest], bandwidths=(1.0, 0.3)))
    assert np.mean(values) == pytest.approx(0, abs=1e-12) and min(values) < -0.05 < 0.05 < max(values)
    far = 100 * torch.arange(5.0)[:, None]
    assert mmd(far, far, bandwidths=(1.0,)) == pytest.approx(-2 / 5)  # only the pairs across are alike


def test_mmd_of_gaussians_is_near_the_closed_form():
    """E k(a, b) = h / sqrt(h^2 + 2) exp(-d^2 / (2 (h^2 + 2))) for a, b of variance 1 whose means are d apart."""

    def kernel(d, h):
        return h / math.sqrt(h * h + 2) * math.exp(-(d**2) / (2 * (h * h + 2)))

    expected = np.mean([2 * kernel(0, h) - 2 * kernel(1, h) for h in (0.5, 1.0)])
    x, y = draw(1500, 1), 1 + draw(1000, 1, seed=1)
    assert mmd(x, y, bandwidths=(0.5, 1.0)) == pytest.approx(expected, rel=0.1)
    assert mmd(x, y, bandwidths=(0.5, 1.0), num=200) == pytest.approx(expected, rel=0.4)
    assert mmd(x, y, bandwidths=(1.0,), num=200) != mmd(x, y, bandwidths=(1.0,), num=200, seed=1)


# Laws on the line


def test_energy_wasserstein_of_a_shift_and_of_a_scale():
    x = torch.linspace(0, 1, 4097)[:, None].repeat(1, 3)
    shifted = energy_wasserstein(x, x + 0.25, lambda points: 2 * points[:, 1])
    assert shifted == pytest.approx((0.5, 0.5), abs=1e-6)
    scaled = energy_wasserstein(x, 2 * x, lambda points: points[:, 0])  # the quantiles differ by u in [0, 1]
    assert scaled == pytest.approx((1 / 2, math.sqrt(1 / 3)), abs=1e-4)
    assert energy_wasserstein(2 * x, x, lambda points: points[:, 0]) == scaled


def test_energy_wasserstein_is_near_scipys_and_takes_sets_of_any_size():
    x, y = draw(3000, 2, dtype=torch.float32), 0.2 + draw(2000, 2, seed=1, dtype=torch.float32)
    first, second = energy_wasserstein(x, y, lambda points: points.square().sum(1) / 2)
    energies = [(p.double().square().sum(1) / 2).numpy() for p in (x, y)]
    assert first == pytest.approx(scipy.stats.wasserstein_distance(*energies), rel=0.01) and second > first
    assert energy_wasserstein(x, y, lambda points: points[:, 0].to(points.dtype))[0] > 0
    levels = (np.arange(4096) + 0.5) / 4096
    gaps = np.quantile(energies[0], levels) - np.quantile(energies[1], levels)
    assert (first, second) == pytest.approx((np.abs(gaps).mean(), np.sqrt((gaps**2).mean())), rel=1e-9)


def test_mode_masses_by_hand():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [50.0, 50.0]])
    points = torch.tensor(
        [[1.0, 0.0], [9.0, 1.0], [4.9, 0.0], [5.1, 0.0], [0.0, 7.0], [2.0, 2.0], [-9.0, -9.0], [1.0, 9.0]]
    )
    masses = mode_masses(points, modes)
    assert masses.dtype == torch.float64
    assert masses.tolist() == [4 / 8, 2 / 8, 2 / 8, 0]  # a mode without points keeps its place


def test_w1_to_a_density_is_scipys_for_points_on_the_grid():
    grid = torch.linspace(-3, 3, 121, dtype=torch.float64)
    mass = torch.softmax(-(grid**2) / 2 + torch.sin(3 * grid), 0)
    generator = torch.Generator().manual_seed(0)
    x = grid[torch.randint(0, 121, (40,), generator=generator)]  # in no order, and some twice
    weights = torch.rand(40, generator=generator, dtype=torch.float64)
    weights /= weights.sum()
    expected = scipy.stats.wasserstein_distance(x, grid, weights, mass)
    assert w1_to_density(x, weights, grid, mass) == pytest.approx(expected, rel=1e-9)
    between = x + 0.3 * (grid[1] - grid[0])  # between the nodes, the error is at most their distance
    expected = scipy.stats.wasserstein_distance(between, grid, weights, mass)
    assert w1_to_density(between, weights, grid, mass) == pytest.approx(expected, abs=0.05)


def test_w1_to_a_density_by_hand():
    grid = torch.linspace(0, 1, 1001)
    uniform = torch.full((1001,), 1 / 1001)
    assert w1_to_density(torch.tensor([0.0]), torch.tensor([1.0]), grid, uniform) == pytest.approx(1 / 2, abs=2e-3)
    both = w1_to_density(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), grid, uniform)
    assert both == pytest.approx(1 / 4, abs=2e-3)
    uneven = w1_to_density(torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.75]), grid, uniform)
    assert uneven == pytest.approx((0.75**2 + 0.25**2) / 2, abs=2e-3)


def test_sliced_wasserstein_is_w1_on_a_line_and_that_of_a_shift() -> None:
    from fklit.metrics.distributions import sliced_wasserstein

    x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = 2 * x + 1
    assert sliced_wasserstein(x, y) == pytest.approx(float((x.sort(0).values - y.sort(0).values).abs().mean()))
    plane = torch.randn(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shifted = plane + torch.tensor([3.0, 4.0])
    # The mean of |cos| over directions is 2 / pi, times the length of the shift.
    assert sliced_wasserstein(plane, shifted, slices=4000) == pytest.approx(5 * 2 / math.pi, rel=0.03)
    with pytest.raises(ValueError, match="expected two sets of one size, got 400 and 500"):
        sliced_wasserstein(plane, x)


def test_mode_masses_take_the_weights_of_a_run() -> None:
    from fklit.metrics.distributions import mode_masses

    x, modes = torch.tensor([[0.1], [0.9], [1.2], [-0.2]]), torch.tensor([[0.0], [1.0]])
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    assert mode_masses(x, modes, weights).tolist() == pytest.approx([0.5, 0.5])
    assert torch.equal(mode_masses(x, modes, torch.full((4,), 0.25)), mode_masses(x, modes))

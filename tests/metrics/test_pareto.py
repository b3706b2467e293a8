"""Hypervolumes against closed forms and against counted points."""

import pytest
import torch

from fklit.metrics import hypervolume


def test_unions_of_boxes():
    points = torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [1.0, 1.0], [-1.0, 9.0]])
    assert hypervolume(points, [0.0, 0.0]) == 6.0
    assert hypervolume(points, [1.0, 1.0]) == 1.0
    assert hypervolume(points[:, :1], [0.5]) == 2.5
    assert hypervolume(points[:0], [0.0, 0.0]) == 0.0
    assert hypervolume(torch.tensor([[1.0, 1.0, 2.0], [2.0, 1.0, 1.0]]), [0.0] * 3) == 3.0


@pytest.mark.parametrize("axes", [2, 3, 4])
def test_it_is_the_share_of_random_points_that_are_dominated(axes):
    generator = torch.Generator().manual_seed(axes)
    points = torch.rand(12, axes, generator=generator, dtype=torch.float64)
    probes = torch.rand(40_000, axes, generator=generator, dtype=torch.float64)
    dominated = (probes[:, None] < points).all(dim=2).any(dim=1).double().mean()
    assert hypervolume(points, [0.0] * axes) == pytest.approx(float(dominated), abs=0.012)


def test_mistakes_are_said_in_one_line():
    with pytest.raises(ValueError, match=r"expected points \(n, 3\) for 3 coordinates of the reference"):
        hypervolume(torch.zeros(2, 2), [0.0] * 3)
    with pytest.raises(ValueError, match="got a point with NaN"):
        hypervolume(torch.tensor([[torch.nan, 1.0]]), [0.0, 0.0])

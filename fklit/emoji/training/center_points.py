"""Objects as center points (Zhou et al. 2019, arXiv:1904.07850): training targets, loss, and when boxes agree."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fklit.metrics.detector import STRIDE


def center_targets(
    classes: Int[Tensor, "n k"], boxes: Float[Tensor, "n k 4"], *, num_classes: int, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Heat maps with a Gaussian at each object's center, and the geometry that is wanted there.

    Args:
        classes: Class of each object, -1 for none.
        boxes: Left, top, right, bottom in pixels.
        num_classes: Number of classes.
        side: Side of the heat map, in cells of `STRIDE` pixels.

    Returns:
        Heat maps (n, classes, side, side), 1 at the cell of a center, deviation an eighth of the box; the geometry
        (m, 4) of the m objects; their places (m, 3) as image, row, column.
    """
    count = len(classes)
    heat = torch.zeros(count, num_classes, side, side)
    picture, slot = (classes >= 0).nonzero(as_tuple=True)
    chosen = boxes[picture, slot] / STRIDE
    center = (chosen[:, :2] + chosen[:, 2:]) / 2
    size = chosen[:, 2:] - chosen[:, :2]
    cell = center.long().clamp(0, side - 1)
    axis = torch.arange(side)
    deviation = (size / 8).clamp(min=0.5)
    along = torch.exp(-0.5 * ((axis - cell[:, :, None]) / deviation[:, :, None]) ** 2)
    bumps = along[:, 1, :, None] * along[:, 0, None, :]
    for index, (where, kind) in enumerate(zip(picture.tolist(), classes[picture, slot].tolist(), strict=True)):
        heat[where, kind] = torch.maximum(heat[where, kind], bumps[index])
    return heat, torch.cat([center - cell, size], 1), torch.stack([picture, cell[:, 1], cell[:, 0]], 1)


def focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Zhou et al. 2019 (arXiv:1904.07850), equation 1, with alpha = 2 and beta = 4; a sum over all entries."""
    chance = logits.sigmoid()
    hit = (1 - chance).square() * F.logsigmoid(logits)
    miss = (1 - heat) ** 4 * chance.square() * F.logsigmoid(-logits)
    return -torch.where(heat == 1, hit, miss).sum()


def same_objects(found: list[Any], truth: list[Any], reach: float = 6.0) -> bool:
    """Whether both hold the same classes with centers within `reach` pixels, one to one.

    Args:
        found: Pairs of a class and a box (left, top, right, bottom).
        truth: The same.
        reach: Largest distance along each axis.
    """
    left = list(truth)
    for kind, box in found:
        near = [item for item in left if item[0] == kind and _center_distance(item[1], box) <= reach]
        if not near:
            return False
        left.remove(min(near, key=lambda item: _center_distance(item[1], box)))
    return not left


def _center_distance(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(a[0] + a[2] - b[0] - b[2]), abs(a[1] + a[3] - b[1] - b[3])) / 2

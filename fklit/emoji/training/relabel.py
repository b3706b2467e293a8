"""What is still known about a picture that has been drawn again."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

SAME, OTHER = 0.12, 0.25
"""Root mean square changes of a window: below the first it shows what it showed, above the second it does not."""


def relabel(
    truth: Bool[Tensor, "g p c"],
    known: Bool[Tensor, "g p c"],
    labels: Int[Tensor, "n h w"],
    *,
    which: Int[Tensor, " m"],
    change: Float[Tensor, "m r c2"],
    shown: Int[Tensor, " g"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels after `Regenerate`.

    A picture whose largest change is at most `SAME` keeps its labels. Above, whether it shows the caption it was drawn
    under is unknown, and what else it did not show it still does not. What else it showed is unknown up to `OTHER`, and
    above it shows it no longer. Patches that changed by more than `SAME` have no label.

    Args:
        truth: Whether each picture matches each caption; picture `i` of group `j` is number `j * p + i`.
        known: Whether `truth` is known.
        labels: What each patch shows, n = g * p.
        which: Numbers of the pictures that were drawn again.
        change: Their changes in windows of two by two patches.
        shown: Number of the caption under which each group was drawn.

    Returns:
        New `truth`, `known` and `labels`.
    """
    captions = truth.shape[-1]
    flat_truth, flat_known, labels = truth.flatten(0, 1).clone(), known.flatten(0, 1).clone(), labels.clone()
    largest = change.flatten(1).amax(1)
    was = flat_truth[which]
    under = F.one_hot(shown.to(which.device)[which // truth.shape[1]], captions).bool()
    moved, gone = (largest > SAME)[:, None], (largest > OTHER)[:, None]
    # What matched: unknown once it moved, wrong when it is gone, unless the caption may have brought it back.
    flat_known[which] = torch.where(was & moved, gone & ~under, ~(under & moved) & flat_known[which])
    flat_truth[which] = was & ~gone
    # A patch is inside up to four windows: the largest change counts.
    spread = F.max_pool2d(F.pad(change[:, None], (1, 1, 1, 1)), 2, stride=1)[:, 0]
    labels[which] = torch.where(spread > SAME, -100, labels[which])
    return flat_truth.view_as(truth), flat_known.view_as(known), labels


def forget_centers(
    centers: Float[Tensor, "g p c 2 2"], *, which: Int[Tensor, " m"], change: Float[Tensor, "m r c2"]
) -> Tensor:
    """Centers after `Regenerate`: NaN in the pictures whose largest change is above `SAME`.

    Args:
        centers: Where the things of each caption are in each picture; NaN for unknown.
        which: Numbers of the pictures that were drawn again; picture `i` of group `j` is number `j * p + i`.
        change: Their changes in windows of two by two patches.
    """
    flat = centers.flatten(0, 1).clone()
    flat[which[change.flatten(1).amax(1) > SAME]] = torch.nan
    return flat.view_as(centers)

"""Every case of what is still known about a picture that has been drawn again."""

import pytest
import torch

from fklit.emoji.training.relabel import OTHER, SAME, forget_centers, relabel

LITTLE, SOME, MUCH = SAME - 0.01, (SAME + OTHER) / 2, OTHER + 0.01
SHOWS, NOT, UNKNOWN = "shows", "shows not", "unknown"


def relabel_one(change, *, showed, under):
    """What a picture that showed the first caption, or not, says about it when drawn again under one of the two."""
    truth = torch.zeros(2, 4, 2, dtype=torch.bool)
    truth[1, 2, 0] = showed
    changes = torch.zeros(1, 7, 7)
    changes[0, 3, 5] = change
    truth, known, _ = relabel(
        truth, torch.ones_like(truth), torch.zeros(8, 8, 8, dtype=torch.int64),
        which=torch.tensor([6]), change=changes, shown=torch.tensor([1 - under, under]),
    )  # fmt: skip
    if not known[1, 2, 0]:
        return UNKNOWN
    return SHOWS if truth[1, 2, 0] else NOT


@pytest.mark.parametrize(
    ("change", "showed", "under", "now"),
    [
        # under its own caption
        (LITTLE, True, 0, SHOWS), (SOME, True, 0, UNKNOWN), (MUCH, True, 0, UNKNOWN),
        # what it showed, under another caption
        (LITTLE, True, 1, SHOWS), (SOME, True, 1, UNKNOWN), (MUCH, True, 1, NOT),
        # what it did not show, under that caption
        (LITTLE, False, 0, NOT), (SOME, False, 0, UNKNOWN), (MUCH, False, 0, UNKNOWN),
        # what it did not show, under another one
        (LITTLE, False, 1, NOT), (SOME, False, 1, NOT), (MUCH, False, 1, NOT),
        # the limits themselves
        (SAME, True, 1, SHOWS), (OTHER, True, 1, UNKNOWN),
    ],
)  # fmt: skip
def test_every_case(change, showed, under, now):
    assert relabel_one(change, showed=showed, under=under) == now


def test_other_pictures_and_the_inputs_stay_as_they_are():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 4, 2, generator=generator) > 0.5
    known = torch.rand(3, 4, 2, generator=generator) > 0.2
    labels = torch.randint(0, 42, (12, 8, 8), generator=generator)
    before = [tensor.clone() for tensor in (truth, known, labels)]
    which = torch.tensor([9, 0, 5])
    result = relabel(
        truth, known, labels, which=which, change=torch.full((3, 7, 7), MUCH), shown=torch.tensor([0, 1, 0])
    )
    others = [index for index in range(12) if index not in which.tolist()]
    for old, now, was in zip(before, result, (truth, known, labels), strict=True):
        assert torch.equal(old, was) and now.shape == old.shape
        flat = [tensor.reshape(12, -1)[others] for tensor in (old, now)]
        assert torch.equal(*flat)
    assert (result[2][which] == -100).all()


def test_what_was_unknown_is_never_known_to_be_shown():
    truth = torch.ones(1, 4, 2, dtype=torch.bool)
    for change in (LITTLE, SOME, MUCH):
        now, known, _ = relabel(
            truth, ~truth, torch.zeros(4, 8, 8, dtype=torch.int64),
            which=torch.arange(4), change=torch.full((4, 7, 7), change), shown=torch.tensor([0]),
        )  # fmt: skip
        assert not (now & known).any()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (6, 6), (0, 6)])
def test_patches_in_a_window_that_changed_have_no_label(row, column):
    labels = torch.arange(64).view(1, 8, 8).repeat(4, 1, 1) % 42
    change = torch.full((1, 7, 7), LITTLE)
    change[0, row, column] = SOME
    _, _, now = relabel(
        torch.zeros(1, 4, 2, dtype=torch.bool), torch.ones(1, 4, 2, dtype=torch.bool), labels,
        which=torch.tensor([1]), change=change, shown=torch.tensor([0]),
    )  # fmt: skip
    expected = labels.clone()
    # window (row, column) is 16 pixels from 8 row and 8 column on: two by two patches
    expected[1, row : row + 2, column : column + 2] = -100
    assert torch.equal(now, expected)


def test_centers_of_pictures_that_changed_are_forgotten():
    centers = torch.rand(2, 4, 2, 2, 2)
    before = centers.clone()
    change = torch.zeros(2, 7, 7)
    change[0, 2, 2], change[1, 6, 0] = LITTLE, SOME
    result = forget_centers(centers, which=torch.tensor([1, 6]), change=change)
    assert torch.equal(centers, before)
    assert result[1, 2].isnan().all()  # picture 6 is the third of the second group
    result[1, 2] = before[1, 2]
    assert torch.equal(result, before)

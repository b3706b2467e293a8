"""Copies among the rows of a batch: evaluated once where they are copies, all rows where they are not."""

import pytest
import torch
from diffusers.utils import BaseOutput

from fklit.pipelines.shared_rows import SharedRows


class _Output(BaseOutput):
    sample: torch.Tensor
    parts: tuple


def _network(seen):
    def call(args, kwargs, rows):
        seen.append(rows)
        x = args[0] + kwargs["text"].sum(1, keepdim=True) + kwargs["img_ids"][0]
        return _Output(sample=x, parts=(2 * x, [3 * x], 7))

    return call


@pytest.fixture
def shared():
    return SharedRows(torch.tensor([True, False, True]), 2, 2)


def _batch(blocks):
    rows = torch.arange(6 * blocks).float()
    rows = torch.where(rows % 6 == 1, rows - 1, rows)
    rows = torch.where(rows % 6 == 5, rows - 1, rows)
    return rows.unsqueeze(1)


def test_copies_take_the_first_row(shared):
    assert shared.copied(torch.arange(6)).tolist() == [0, 0, 2, 3, 4, 4]
    two = SharedRows(torch.tensor([False, True]), 4, 2)
    assert two.copied(torch.arange(8)).tolist() == [0, 1, 2, 3, 4, 4, 6, 6]


@pytest.mark.parametrize("blocks", [1, 2])
def test_copies_are_evaluated_once(shared, blocks):
    x, seen = _batch(blocks), []
    # Position ids have no axis of rows, whatever their length.
    kwargs = {"text": 10 * x, "img_ids": torch.full((4 * blocks,), 0.5), "scale": 2}
    output, rows = shared.evaluate(_network(seen), (x, None), kwargs, 6 * blocks)
    wanted = 11 * x + 0.5
    assert seen == [4 * blocks] == [rows]
    assert torch.equal(output.sample, wanted) and torch.equal(output.parts[0], 2 * wanted)
    assert torch.equal(output.parts[1][0], 3 * wanted) and output.parts[2] == 7


def test_rows_that_differ_are_all_evaluated(shared):
    x, seen = _batch(1), []
    text = 10 * x
    text[1] += 1  # a copy with another condition is none
    output, rows = shared.evaluate(_network(seen), (x,), {"text": text, "img_ids": torch.zeros(6)}, 6)
    assert seen == [6] == [rows] and torch.equal(output.sample, x + text)


@pytest.mark.parametrize("rows", [3, 7])
def test_other_numbers_of_rows_are_all_evaluated(shared, rows):
    x, seen = torch.zeros(rows, 1), []
    _, found = shared.evaluate(_network(seen), (x,), {"text": x, "img_ids": torch.zeros(1)}, rows)
    assert seen == [rows] == [found]


def test_lists_of_one_tensor_a_row_are_left_alone(shared):
    seen = []

    def call(args, kwargs, rows):
        seen.append(rows)
        return args[0]

    rows = [torch.zeros(2) for _ in range(6)]
    assert shared.evaluate(call, (rows,), {}, 6) == (rows, 6) and seen == [6]

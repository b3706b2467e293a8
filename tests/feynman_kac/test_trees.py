"""States as trees: everything per particle follows its ancestor."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fklit.feynman_kac import Difference, RewardPath, select, tree_map
from fklit.feynman_kac.trees import check_leaves

Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class Solver:
    history: list[Tensor]
    order: int


def test_every_leaf_is_re_indexed_and_constants_stay() -> None:
    ancestors = torch.tensor([[2, 2, 0], [1, 0, 0]])
    ids = torch.arange(6).reshape(2, 3)
    path = RewardPath(Difference(), 2, 3)
    path.update(ids.float(), 1.0)
    state = {
        "x": ids[..., None, None].expand(2, 3, 4, 5),
        "solver": Solver(history=[ids, ids + 10], order=2),
        "pair": Pair(ids, None),
        "tuple": (ids, "ddim", 3.5),
        "path": path,
    }
    chosen = select(state, ancestors)
    expected = torch.tensor([[2, 2, 0], [4, 3, 3]])
    assert torch.equal(chosen["x"][..., 3, 2], expected)
    assert torch.equal(chosen["solver"].history[1], expected + 10)
    assert chosen["solver"].order == 2
    assert torch.equal(chosen["pair"].left, expected)
    assert chosen["pair"].right is None
    assert chosen["tuple"][1:] == ("ddim", 3.5)
    assert torch.equal(chosen["path"].total, expected.double())
    assert torch.equal(path.total, ids.double())
    assert torch.equal(state["solver"].history[0], ids)
    assert select(state, None) is state


def test_integer_and_bool_leaves_work() -> None:
    assert select(torch.tensor([[True, False]]), torch.tensor([[1, 1]])).tolist() == [[False, False]]


def test_wrong_leaves_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); give leading axes \(groups, particles\)"):
        select({"shared": torch.zeros(3)}, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"must be \(groups, particles\) = \(2, 4\)"):
        check_leaves([torch.zeros(2, 3)], 2, 4)
    with pytest.raises(TypeError, match=r"holds a Generator; .*method selected\(ancestors\)"):
        tree_map(lambda leaf: leaf, {"rng": torch.Generator()})


def test_leaves_with_the_right_axes_pass() -> None:
    check_leaves({"x": torch.zeros(2, 4), "y": [torch.zeros(2, 4, 1), 3, None]}, 2, 4)
    for shape in ((2, 3), (3, 4), (2,), (4, 2)):
        with pytest.raises(ValueError, match=r"must be \(groups, particles\) = \(2, 4\)"):
            check_leaves({"x": torch.zeros(shape)}, 2, 4)
    with pytest.raises(ValueError, match=r"shape \(3, 3\); give leading axes"):
        select(torch.zeros(3, 3), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"ancestors has shape \(3,\)"):
        select(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))


def test_trees_keep_their_types() -> None:
    doubled = tree_map(lambda leaf: 2 * leaf, {"a": (torch.ones(1), [torch.ones(1)]), "b": Pair(torch.ones(1), 1.5)})
    assert type(doubled["a"]) is tuple and type(doubled["a"][1]) is list and type(doubled["b"]) is Pair
    assert doubled["a"][1][0].item() == doubled["b"].left.item() == 2.0 and doubled["b"].right == 1.5
    with pytest.raises(TypeError, match=r"holds a type"):
        tree_map(lambda leaf: leaf, Solver)
    with pytest.raises(TypeError, match=r"holds a set"):
        tree_map(lambda leaf: leaf, {torch.ones(1)})

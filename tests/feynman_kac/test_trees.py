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

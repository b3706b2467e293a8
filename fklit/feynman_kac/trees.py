"""States as trees: dicts, lists, tuples and dataclasses whose tensors have leading axes (B, K)."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from fklit.feynman_kac.checks import check_matrix

Tree = TypeVar("Tree")
_CONSTANTS = (type(None), bool, int, float, str, torch.dtype, torch.device)


@runtime_checkable
class Selectable(Protocol):
    """An object with per-particle state of its own, such as a `RewardPath`."""

    def selected(self, ancestors: Tensor) -> Any:
        """Return a copy re-indexed by ancestors (B, K'), for any K'; the object itself must not change."""
        ...


@runtime_checkable
class Joinable(Protocol):
    """An object with per-particle state that can stand beside another of its kind, for `join`."""

    def joined(self, other: Any) -> Any:
        """Return this one's particles followed by the other's, group by group; both stay as they are."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """An object with caches, which need not be kept to go on from it later."""

    def remembered(self) -> Any:
        """Return a copy without caches."""
        ...


def tree_map(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """Apply `function` to every tensor and every `Selectable` of a tree; numbers, strings and None stay as they are.

    Args:
        function: called with each leaf.
        tree: nested dicts, lists, tuples, named tuples and dataclasses.

    Raises:
        TypeError: for a leaf of another type, which might hold per-particle state that would be missed.
    """
    return cast(Tree, _map(function, tree))


def select(tree: Tree, ancestors: Tensor | None) -> Tree:
    """Return `tree` with slot k of group b replaced by slot `ancestors[b, k]`, in every leaf; None changes nothing.

    Args:
        tree: see `tree_map`; tensors of shape (B, K, ...), on any device.
        ancestors: int64, shape (B, K') with values in [0, K).

    Raises:
        ValueError: if a tensor's leading axes do not match.
    """
    if ancestors is None:
        return tree
    check_matrix("ancestors", ancestors)

    def pick(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf.selected(ancestors)
        if leaf.ndim < 2 or leaf.shape[0] != ancestors.shape[0]:
            raise ValueError(
                f"A state tensor has shape {tuple(leaf.shape)}; give leading axes (groups, particles) with "
                f"{ancestors.shape[0]} "
                f"groups, also to what is shared by all particles."
            )
        index = ancestors.to(leaf.device)
        return leaf[torch.arange(index.shape[0], device=leaf.device).unsqueeze(1), index]

    return tree_map(pick, tree)


def join(first: Tree, second: Tree) -> Tree:
    """Return a tree with the particles of `first` (B, K, ...) followed by those of `second` (B, K', ...).

    Args:
        first: A tree; objects in it have a method `joined(other)`.
        second: A tree of the same structure.

    Raises:
        TypeError: An object cannot be joined, or the structures differ.
    """
    return cast(Tree, _join(first, second))


def remembered(tree: Tree) -> Tree:
    """Return a tree without the caches of its objects, see `Remembers`."""
    if isinstance(tree, Remembers):
        return cast(Tree, tree.remembered())
    if isinstance(tree, dict):
        return cast(Tree, {key: remembered(value) for key, value in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return cast(Tree, type(tree)(*(remembered(value) for value in tree)))
    if isinstance(tree, list | tuple):
        return cast(Tree, type(tree)(remembered(value) for value in tree))
    return tree


def _join(one: Any, other: Any) -> Any:
    if type(one) is not type(other):
        raise TypeError(
            f"expected states of one structure to join, got a {type(one).__name__} and a {type(other).__name__}; keep "
            "the structure of the model's states."
        )
    if isinstance(one, Tensor):
        return torch.cat([one, other.to(one.device)], dim=1)
    if isinstance(one, Joinable):
        return one.joined(other)
    if isinstance(one, dict):
        return {key: _join(value, other[key]) for key, value in one.items()}
    if isinstance(one, tuple) and hasattr(one, "_fields"):
        return type(one)(*(_join(a, b) for a, b in zip(one, other, strict=True)))
    if isinstance(one, list | tuple):
        return type(one)(_join(a, b) for a, b in zip(one, other, strict=True))
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        names = [field.name for field in dataclasses.fields(one) if field.init]
        return dataclasses.replace(one, **{name: _join(getattr(one, name), getattr(other, name)) for name in names})
    if isinstance(one, _CONSTANTS):
        return one
    raise TypeError(
        f"expected a state that can be joined, got a {type(one).__name__}; give its class a method joined(other)."
    )


def check_leaves(tree: object, num_groups: int, num_particles: int) -> None:
    """Raise ValueError unless every tensor of `tree` has leading axes (num_groups, num_particles)."""

    def check(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and tuple(leaf.shape[:2]) != (num_groups, num_particles):
            raise ValueError(
                f"A state tensor has shape {tuple(leaf.shape)}; its leading axes must be (groups, particles) = "
                f"({num_groups}, {num_particles})."
            )
        return leaf

    tree_map(check, tree)


def _map(function: Callable[[Any], Any], node: Any) -> Any:
    if isinstance(node, Tensor | Selectable):
        return function(node)
    if isinstance(node, dict):
        return {key: _map(function, value) for key, value in node.items()}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return type(node)(*(_map(function, value) for value in node))
    if isinstance(node, list | tuple):
        return type(node)(_map(function, value) for value in node)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {
            field.name: _map(function, getattr(node, field.name)) for field in dataclasses.fields(node) if field.init
        }
        return dataclasses.replace(node, **fields)
    if isinstance(node, _CONSTANTS):
        return node
    raise TypeError(
        f"The state holds a {type(node).__name__}; use tensors, numbers, strings, None, dicts, lists, tuples or "
        "dataclasses, or give the class a method selected(ancestors)."
    )

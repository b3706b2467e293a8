"""What belongs to the particles of each prompt: states of groups whose shapes need not agree."""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The particles of one group: a subclass's tensors (K, ...), caches of keys and values, or None.

    Fields that `forgets` names can be asked for again; they are dropped where particles that have them stand beside
    others that have not.
    """

    @classmethod
    def forgets(cls) -> frozenset[str]:
        """Names of the fields that can be computed again."""
        return frozenset()

    def selected(self, index: Tensor) -> Self:
        """The particles of slots `index` (K',), with all that belongs to them."""
        return self._mapped(lambda value: at_rows(value, index))

    def joined(self, other: Self) -> Self:
        """These particles followed by the other's."""
        found = {}
        for item in dataclasses.fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            lacks = mine is None or theirs is None
            found[item.name] = None if item.name in self.forgets() and lacks else joined(mine, theirs)
        return type(self)(**found)

    def _mapped(self, function: Any) -> Self:
        return type(self)(**{item.name: function(getattr(self, item.name)) for item in dataclasses.fields(self)})

    def forgotten(self) -> Self:
        """Without what can be computed again."""
        return dataclasses.replace(self, **dict.fromkeys(self.forgets(), None))


@dataclass(frozen=True)
class GroupState:
    """The particles of all groups after `steps` steps; a tree may hold it, see `fklit.feynman_kac.trees`.

    Attributes:
        groups: One `Rows` a group.
        steps: Steps taken.
    """

    groups: tuple[Any, ...]
    steps: int

    def selected(self, ancestors: Tensor) -> Self:
        """The particles that descend from `ancestors` (B, K')."""
        pairs = zip(self.groups, ancestors, strict=True)
        return dataclasses.replace(self, groups=tuple(rows.selected(index) for rows, index in pairs))

    def joined(self, other: Self) -> Self:
        """These particles followed by the other's, group by group."""
        pairs = zip(self.groups, other.groups, strict=True)
        return dataclasses.replace(self, groups=tuple(mine.joined(theirs) for mine, theirs in pairs))

    def remembered(self) -> Self:
        """Without predictions, which can be asked for again."""
        return dataclasses.replace(self, groups=tuple(rows.forgotten() for rows in self.groups))


def at_rows(value: Any, index: Tensor | None) -> Any:
    """Return the rows `index` of a tensor, of a dict of them, or of a cache of transformers; the value stays.

    Args:
        value: With K rows, or None.
        index: Of rows; None for all (a cache is copied, since a network lets it grow).
    """
    if value is None:
        return None
    if index is None:
        return value if isinstance(value, Tensor | dict) else _copied_cache(value)
    if isinstance(value, Tensor):
        return value[index.to(value.device)]
    if isinstance(value, dict):
        return {name: at_rows(item, index) for name, item in value.items()}
    # A cache of transformers: the layers of a shallow copy get new tensors, those of the original stay.
    copied = _copied_cache(value)
    for layer in copied.layers:
        layer.batch_select_indices(index.to(layer.keys.device))
    return copied


def joined(mine: Any, theirs: Any) -> Any:
    """Return the rows of the one followed by those of the other."""
    if mine is None and theirs is None:
        return None
    if isinstance(mine, Tensor):
        return torch.cat([mine, theirs])
    if isinstance(mine, dict):
        return {name: joined(mine[name], theirs[name]) for name in mine}
    copied = _copied_cache(mine)
    for layer, other in zip(copied.layers, theirs.layers, strict=True):
        layer.keys, layer.values = torch.cat([layer.keys, other.keys]), torch.cat([layer.values, other.values])
    return copied


def _copied_cache(cache: Any) -> Any:
    """A cache whose layers may be replaced or grow without a change of the original."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied

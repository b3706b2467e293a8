"""Conditions on properties: terciles as tokens in front of a molecule, and how prompts name them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fklit.rewards.molecule_properties import check_properties

LEVELS = ("low", "mid", "high")
ANY = "any"


@dataclass(frozen=True)
class Conditions:
    """Which properties condition a model, and where their terciles end.

    A prompt such as "qed=high sa=low" names levels; properties that it does not name are "any". The prompt "any", or an
    empty one, names none.

    Attributes:
        edges: By property, in the order of their tokens: the largest value of "low" and that of "mid".

    Raises:
        ValueError: A property is unknown, or its edges do not rise.
    """

    edges: Mapping[str, tuple[float, float]]

    def __post_init__(self) -> None:
        check_properties(list(self.edges))
        for name, values in self.edges.items():
            if len(values) != len(LEVELS) - 1 or not values[0] < values[1]:
                raise ValueError(f"expected two rising edges of {name}, got {list(values)}; condition on another one.")
        object.__setattr__(self, "edges", {name: (float(low), float(mid)) for name, (low, mid) in self.edges.items()})

    @classmethod
    def fitted(cls, names: Sequence[str], values: Float[Tensor, "n p"]) -> Self:
        """Terciles of the properties of training molecules.

        Args:
            names: The p properties.
            values: Of n molecules.
        """
        cuts = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
        # "lower" gives values that occur, so that whole numbers stay together.
        found = torch.quantile(values.double(), cuts, dim=0, interpolation="lower").T.tolist()
        return cls({name: (low, mid) for name, (low, mid) in zip(names, found, strict=True)})

    @property
    def names(self) -> tuple[str, ...]:
        """The P properties."""
        return tuple(self.edges)

    @property
    def tokens(self) -> list[str]:
        """All tokens: of each property its levels, then "any"."""
        return [token(name, level) for name in self.names for level in (*LEVELS, ANY)]

    def levels(self, values: Float[Tensor, "n p"]) -> Int64[Tensor, "n p"]:
        """Number of the level of each value: 0 low, 1 mid, 2 high.

        Args:
            values: Properties of n molecules in the order of `names`.
        """
        edges = torch.tensor([list(pair) for pair in self.edges.values()], dtype=torch.float64)
        return (values.double()[..., None] > edges.to(values.device)).sum(dim=-1)

    def parse(self, prompt: str) -> list[str]:
        """Level of each property that a prompt asks for, "any" where it does not.

        Args:
            prompt: Such as "qed=high sa=low", or "any".

        Raises:
            ValueError: It names a property or a level that does not exist, or one property twice.
        """
        found: dict[str, str] = {}
        parts = prompt.replace(",", " ").split()
        for part in [] if parts == [ANY] else parts:
            name, sign, level = part.partition("=")
            if not sign or name not in self.edges or level not in (*LEVELS, ANY):
                raise ValueError(
                    f"expected conditions such as {self.names[0]}=high with properties among {', '.join(self.names)} "
                    f"and levels among {', '.join((*LEVELS, ANY))}, got {part!r} in {prompt!r}; fix the prompt."
                )
            if name in found:
                raise ValueError(f"expected one level of {name}, got two in {prompt!r}; leave one out.")
            found[name] = level
        return [found.get(name, ANY) for name in self.names]

    def met(self, prompt: str, values: Float[Tensor, "n p"]) -> Tensor:
        """Which molecules meet all that a prompt asks for, (n,) bool.

        Args:
            prompt: As in `parse`.
            values: Properties in the order of `names`.
        """
        wanted = self.parse(prompt)
        levels = self.levels(values)
        meets = torch.ones(len(values), dtype=torch.bool, device=values.device)
        for place, level in enumerate(wanted):
            if level != ANY:
                meets &= levels[:, place] == LEVELS.index(level)
        return meets & ~values.isnan().any(dim=1)


def token(name: str, level: str) -> str:
    """The token of a condition, such as `<qed=high>`."""
    return f"<{name}={level}>"

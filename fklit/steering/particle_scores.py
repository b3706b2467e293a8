"""What a model's particles scored last, moved with the particles as they are resampled and kept."""

from typing import Any, Self

import torch
from jaxtyping import Float64
from torch import Tensor


class ParticleScores:
    """Per-particle state beside the model's own, for trees of states.

    Args:
        rewards: (B, K), the last scores.
        terms: Parts of them by name, each (B, K).
        texts: Of predictions that are texts, B lists of one for each particle; None for others.
    """

    def __init__(
        self,
        rewards: Float64[Tensor, "B K"],
        terms: dict[str, Tensor] | None = None,
        texts: list[list[str]] | None = None,
    ) -> None:
        self.rewards, self.terms, self.texts = rewards, terms or {}, texts

    def take(self, rewards: Tensor, *, terms: dict[str, Tensor] | None = None, texts: Any = None) -> None:
        """Replace the scores by new ones, in place; copies that were selected or joined stay as they are."""
        self.rewards, self.terms, self.texts = rewards, terms or {}, texts

    def selected(self, ancestors: Tensor) -> Self:
        """The scores of the particles that descend from `ancestors` (B, K')."""
        index = ancestors.to(self.rewards.device)
        texts = self.texts
        if texts is not None:
            texts = [[row[slot] for slot in slots] for row, slots in zip(texts, ancestors.tolist(), strict=True)]
        terms = {name: values.gather(1, index) for name, values in self.terms.items()}
        return type(self)(self.rewards.gather(1, index), terms, texts)

    def joined(self, other: Self) -> Self:
        """The scores of these particles followed by the other's; parts that one side lacks are left out."""
        texts = None
        if self.texts is not None and other.texts is not None:
            texts = [[*mine, *theirs] for mine, theirs in zip(self.texts, other.texts, strict=True)]
        names = [name for name in self.terms if name in other.terms]
        terms = {name: torch.cat([self.terms[name], other.terms[name]], dim=1) for name in names}
        return type(self)(torch.cat([self.rewards, other.rewards], dim=1), terms, texts)

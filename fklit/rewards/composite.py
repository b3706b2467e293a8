"""What rewards made of rewards share: parts are called, kept apart, and told by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fklit.rewards.base import Accepts, Metadata, Reward


class Composite(Reward):
    """Common part: hands samples, prompts and metadata on, so that every part checks and batches them by itself.

    Args:
        rewards: The parts.

    Raises:
        ValueError: There is none, or something else among them.
    """

    accepts = "any"
    needs_prompts = False  # each part refuses missing prompts by itself
    uses_metadata = True  # and reads what it wants

    def __init__(self, rewards: Sequence[Reward]) -> None:
        super().__init__()
        if not rewards or not all(isinstance(reward, Reward) for reward in rewards):
            kinds = [type(reward).__name__ for reward in rewards]
            raise ValueError(f"expected at least one Reward and nothing else, got {kinds}; wrap functions in Function.")
        self.rewards = nn.ModuleList(rewards)
        self._last: list[dict[str, Tensor]] = []

    def build(self) -> None:
        """Loads the parts."""
        for reward in self.rewards:
            assert isinstance(reward, Reward)
            reward.load()

    def refused(self, modality: Accepts) -> Reward | None:
        """Return the first part that cannot score samples of a modality; None if all can."""
        parts = (reward.refused(modality) for reward in self.rewards if isinstance(reward, Reward))
        return next((part for part in parts if part is not None), None)

    def terms(self) -> dict[str, Tensor]:
        """Scores of the parts in the last call, (n,) each and in the part's own units, and of their parts."""
        return merged(self._last)

    def _parts(self, samples: Any, prompts: Sequence[str], metadata: Metadata | None) -> list[Tensor]:
        scores, self._last = [], []
        for reward in self.rewards:
            assert isinstance(reward, Reward)
            scores.append(reward(samples, prompts, metadata).to(self.device))
            self._last += [{reward.display_name: scores[-1].detach()}, reward.terms()]
        return scores

    def _ranges(self) -> list[tuple[float, float]] | None:
        ranges = [reward.typical_range for reward in self.rewards]
        return None if None in ranges else ranges  # type: ignore[return-value]


def merged(terms: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """All terms under one name each: the second of a name becomes "NAME (2)"."""
    found: dict[str, Tensor] = {}
    for name, values in (item for part in terms for item in part.items()):
        count, free = 1, name
        while free in found:
            count += 1
            free = f"{name} ({count})"
        found[free] = values
    return found

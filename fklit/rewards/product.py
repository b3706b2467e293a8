"""The product of rewards that are at least 0, such as probabilities."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.rewards.base import Metadata, Reward, RewardError
from fklit.rewards.composite import Composite


class Product(Composite):
    """`prod_i rewards[i](x)` of parts that are at least 0: good only if every part is, and zero if one of them is.

    Of probabilities it is that of all being met at once, if they are independent of each other. A product with a
    negative part means nothing as a reward (it falls as the other parts rise, and two bad parts make a good one), so a
    negative score is refused; shift or clip the part that gives it. `-inf`, which kills a particle, stays `-inf`, and
    NaN stays NaN.

    Args:
        rewards: The parts.

    Raises:
        ValueError: There is no part, or one whose typical range begins below 0.
    """

    def __init__(self, rewards: Sequence[Reward]) -> None:
        super().__init__(rewards)
        for reward in rewards:
            if reward.typical_range is not None and reward.typical_range[0] < 0:
                raise ValueError(
                    f"Product expected parts of at least 0, got {reward.display_name} with a typical range from "
                    f"{reward.typical_range[0]:g}; use Clipped(reward, low=0), or WeightedSum."
                )
        ranges = self._ranges()
        if ranges is not None:
            self.typical_range = (math.prod(low for low, _ in ranges), math.prod(high for _, high in ranges))

    def score(self, samples: Any, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """The product (n,).

        Raises:
            RewardError: A part is negative.
        """
        parts = torch.stack(self._parts(samples, prompts, metadata))
        dies = parts == -torch.inf
        negative = (parts < 0) & ~dies
        if bool(negative.any()):
            place, row = (int(i) for i in negative.nonzero()[0])
            part = self.rewards[place]
            assert isinstance(part, Reward)
            raise RewardError(
                f"Product expected parts of at least 0, got {float(parts[place, row]):g} from {part.display_name} for "
                f"sample {row}; use Clipped(reward, low=0), or WeightedSum."
            )
        return parts.masked_fill(dies, 1.0).prod(0).masked_fill(dies.any(0) & ~parts.isnan().any(0), -torch.inf)

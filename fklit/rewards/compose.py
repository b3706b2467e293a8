"""Rewards made of rewards: weighted sums, minima, fixed standardization, clipping."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from fklit.rewards.base import Metadata, Reward, Samples
from fklit.rewards.composite import Composite


class WeightedSum(Composite):
    """`sum_i weights[i] * rewards[i](x)`.

    Args:
        rewards: The parts.
        weights: One finite weight a part, in the part's own units; negative weights turn a reward into a penalty.

    Raises:
        ValueError: The numbers of rewards and weights differ, or a weight is not finite.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        super().__init__(rewards)
        if len(weights) != len(rewards) or not all(math.isfinite(weight) for weight in weights):
            raise ValueError(
                f"expected a finite weight for each of {len(rewards)} reward(s), got {list(weights)}; give one each."
            )
        self.weights = tuple(float(weight) for weight in weights)
        ranges = self._ranges()
        if ranges is not None:
            ends = [
                sorted((weight * low, weight * high)) for weight, (low, high) in zip(self.weights, ranges, strict=True)
            ]
            self.typical_range = (sum(low for low, _ in ends), sum(high for _, high in ends))

    def score(self, samples: Any, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """The weighted sum (n,)."""
        parts = self._parts(samples, prompts, metadata)
        # Zero weights are skipped, not multiplied: 0 * inf would be NaN.
        terms = [weight * part for weight, part in zip(self.weights, parts, strict=True) if weight != 0]
        return torch.stack(terms).sum(0) if terms else torch.zeros_like(parts[0])


class Min(Composite):
    """`min_i rewards[i](x)`: good only if every part is; bring the parts to one unit first (`Standardized`).

    Args:
        rewards: The parts.
    """

    def __init__(self, rewards: Sequence[Reward]) -> None:
        super().__init__(rewards)
        ranges = self._ranges()
        if ranges is not None:
            self.typical_range = (min(low for low, _ in ranges), min(high for _, high in ranges))

    def score(self, samples: Any, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """The smallest part (n,); NaN if any part is NaN."""
        return torch.stack(self._parts(samples, prompts, metadata)).amin(0)


class Standardized(Composite):
    """`(reward(x) - mean) / std` with fixed numbers, so that rewards of different units can be added.

    The numbers are arguments and are not estimated from the batch: a score must not depend on its neighbors.
    `from_samples` estimates them once, from samples of your choice.

    Args:
        reward: The reward.
        mean: Its mean in ordinary use, in its own unit.
        std: Its standard deviation in ordinary use, above 0.

    Raises:
        ValueError: `mean` is not finite or `std` is not above 0.
    """

    suggested_scale = 2.0

    def __init__(self, reward: Reward, *, mean: float, std: float) -> None:
        super().__init__([reward])
        if not math.isfinite(mean) or not (math.isfinite(std) and std > 0):
            raise ValueError(
                f"expected a finite mean and a finite std above 0, got {mean} and {std}; change the one that is not."
            )
        self.mean, self.std = float(mean), float(std)
        if reward.typical_range is not None:
            low, high = reward.typical_range
            self.typical_range = ((low - mean) / std, (high - mean) / std)

    @classmethod
    def from_samples(
        cls, reward: Reward, samples: Samples, *, prompts: Sequence[str] | None = None, metadata: Metadata | None = None
    ) -> Self:
        """Standardize by the mean and the standard deviation over reference samples, which are fixed from then on.

        Take samples as the base model makes them, of prompts as yours: a few dozen. The numbers are in `mean` and
        `std`, to write into a configuration.

        Args:
            reward: The reward.
            samples: At least two samples, as the reward takes them.
            prompts: One a sample; None if the reward does not read them.
            metadata: What is known about each of the prompts.

        Raises:
            ValueError: There are fewer than two samples, a score is not finite, or all scores are equal.
        """
        with torch.no_grad():
            scores = reward(samples, prompts, metadata).double()
        if scores.numel() < 2:
            raise ValueError(f"expected at least 2 samples, got {scores.numel()}; give a few dozen.")
        broken = ~torch.isfinite(scores)
        if bool(broken.any()):
            raise ValueError(
                f"expected finite scores of {reward.display_name}, got {float(scores[broken][0])} "
                f"({int(broken.sum())} of {scores.numel()} are not finite); leave such samples out."
            )
        if float(scores.std()) <= 1e-12 * float(scores.abs().max()):
            raise ValueError(
                f"expected scores of {reward.display_name} that differ, got {float(scores[0]):g} for all "
                f"{scores.numel()} samples; give other samples."
            )
        return cls(reward, mean=float(scores.mean()), std=float(scores.std()))

    @property
    def display_name(self) -> str:
        """With the name of what is standardized."""
        return f"Standardized({self.rewards[0].display_name})"

    def score(self, samples: Any, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """The standardized reward (n,)."""
        return (self._parts(samples, prompts, metadata)[0] - self.mean) / self.std


class Clipped(Composite):
    """`min(max(reward(x), low), high)`: bounds what one reward may contribute, against over-optimization.

    Args:
        reward: The reward.
        low: Smallest value passed on; None for no bound.
        high: Largest value passed on; None for no bound.

    Raises:
        ValueError: Neither bound is given, or `low` is not below `high`.
    """

    def __init__(self, reward: Reward, *, low: float | None = None, high: float | None = None) -> None:
        super().__init__([reward])
        if low is None and high is None:
            raise ValueError("expected low or high, got None for both; give at least one bound.")
        if low is not None and high is not None and not low < high:
            raise ValueError(f"expected low below high, got low={low} and high={high}; swap them.")
        self.low, self.high = low, high
        self.suggested_scale = reward.suggested_scale
        bottom, top = (-math.inf if low is None else low), (math.inf if high is None else high)
        if reward.typical_range is not None:
            bottom, top = (min(max(end, bottom), top) for end in reward.typical_range)
        self.typical_range = (bottom, top) if math.isfinite(top - bottom) else None

    @property
    def display_name(self) -> str:
        """With the name of what is clipped."""
        return f"Clipped({self.rewards[0].display_name})"

    def score(self, samples: Any, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """The clipped reward (n,); NaN stays NaN."""
        return self._parts(samples, prompts, metadata)[0].clamp(self.low, self.high)

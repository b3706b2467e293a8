"""The reward of a model that owns its steps: samples of all particles and draws in one batch, equal ones once."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.weights import OnNan
from fklit.rewards.base import Reward, RewardError


class SampleScorer:
    """Scores samples of B groups and counts those that were scored.

    Args:
        reward: The reward.
        prompts: B prompts.
        metadata: What is known of each.
        max_batch: Samples scored at once, in chunks filled up to exactly this size; None leaves it to the reward.
        on_nan: "error" refuses NaN and +inf; "drop" leaves them to the particle system.

    Attributes:
        reward_calls: Samples scored so far: of equal texts of one prompt only the first is.
        terms: Parts of the last scores by name, of all samples.
    """

    def __init__(
        self,
        reward: Reward,
        prompts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]],
        *,
        max_batch: int | None,
        on_nan: OnNan,
    ) -> None:
        self.reward, self.prompts, self.metadata = reward, list(prompts), list(metadata)
        self.max_batch, self.on_nan = max_batch, on_nan
        self.reward_calls = 0
        self.terms: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, samples: Any, *, where: str) -> Float64[Tensor, "B n"]:
        """Rewards of B * n samples in group order, float64.

        Args:
            samples: A tensor or a list of texts.
            where: Names the moment in messages.

        Raises:
            RewardError: The reward fails, or gives NaN or +inf with `on_nan="error"`.
        """
        each = len(samples) // len(self.prompts)
        owner = [group for group in range(len(self.prompts)) for _ in range(each)]
        first: dict[Hashable, int] = {}
        rows: list[int] = []
        places: list[int] = []
        for number, group in enumerate(owner):
            key: Hashable = (group, samples[number]) if isinstance(samples[number], str) else number
            if key not in first:
                first[key] = len(rows)
                rows.append(number)
            places.append(first[key])
        scores, terms = self._score(samples, rows, owner, where)
        self.reward_calls += len(rows)
        shape = (len(self.prompts), each)
        self.terms = {name: values[places].reshape(shape) for name, values in terms.items()}
        rewards = scores[places].reshape(shape)
        self._check(rewards, samples, where)
        return rewards

    def _score(self, samples: Any, rows: list[int], owner: list[int], where: str) -> tuple[Tensor, dict[str, Tensor]]:
        size = self.max_batch or len(rows)
        scores, terms = [], []
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            filled = chunk + [chunk[-1]] * (size - len(chunk))
            some = samples[filled] if isinstance(samples, Tensor) else [samples[row] for row in filled]
            groups = [owner[row] for row in filled]
            try:
                found = self.reward(some, [self.prompts[g] for g in groups], [self.metadata[g] for g in groups])
            except RewardError as error:
                raise RewardError(f"{where}: {error}") from error
            scores.append(found[: len(chunk)].double().cpu())
            terms.append({name: part[: len(chunk)].double().cpu() for name, part in self.reward.terms().items()})
        names = [name for name in terms[0] if all(name in part for part in terms)]
        return torch.cat(scores), {name: torch.cat([part[name] for part in terms]) for name in names}

    def _check(self, rewards: Tensor, samples: Any, where: str) -> None:
        bad = torch.isnan(rewards) | (rewards == math.inf)
        if self.on_nan == "drop" or not bool(bad.any()):
            return
        group, number = (int(i) for i in bad.nonzero()[0])
        sample = samples[group * rewards.shape[1] + number]
        shown = f"for {sample!r} " if isinstance(sample, str) else ""
        raise RewardError(
            f"{where}: expected finite scores of {self.reward.display_name}, got {float(rewards[group, number])} "
            f"{shown}of prompt {self.prompts[group]!r} ({int(bad.sum())} of {bad.numel()} scores are NaN or +inf); "
            "return finite numbers, or -inf for a particle that must die, or on_nan='drop' to drop such particles."
        )

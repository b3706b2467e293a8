"""Scoring the particles of all prompts with one reward, counted and checked."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.checks import as_number
from fklit.feynman_kac.weights import OnNan
from fklit.rewards.base import Metadata, Reward, RewardError
from fklit.rewards.consistency import ConsistencyCheck, InconsistentRewardWarning
from fklit.rewards.function import Function


def as_reward(reward: Reward | Callable[..., Any]) -> Reward:
    """A reward as it is; any other callable wrapped as `rewards.Function`, which tells what it may be."""
    if isinstance(reward, Reward):
        return reward
    if callable(reward) and not isinstance(reward, type):
        return Function(reward)
    raise TypeError(
        f"expected a fklit reward or a function of (images, prompts), got a {type(reward).__name__}; "
        "give a function that returns one number an image."
    )


def chosen_scale(reward: Reward, reward_scale: float | None) -> float:
    """The scale that was given, or the one that the reward suggests, for which it is loaded if need be.

    Raises:
        ValueError: The reward suggests none, or the scale is negative or not finite.
    """
    if reward_scale is None and reward.suggested_scale is None:
        reward.load()  # the weights of a model may come with a scale
    scale = reward.suggested_scale if reward_scale is None else reward_scale
    if scale is None:
        raise ValueError(
            f"expected reward_scale, as {reward.display_name} suggests none, got None; give a number of at least 0 "
            "(1 to 5 divided by the standard deviation of the reward among samples of a prompt is a start)."
        )
    number = as_number(scale)
    if number is None or not 0 <= number < math.inf:
        raise ValueError(
            f"expected a finite reward_scale of at least 0, got {scale!r}; negate the reward to steer away."
        )
    return float(number)


class Scorer:
    """Scores flat batches in group order and returns them as (B, K).

    Args:
        reward: The reward.
        prompts: B prompts.
        num_particles: K.
        max_batch: Images scored at once, in chunks of exactly this size (the last one padded, as in the denoiser);
            None leaves it to the reward.
        on_nan: "error" raises an error that names the reward, the step and the prompt; "drop" leaves NaN and +inf to
            the particle system, which drops the particle.
        metadata: What is known about each of the B prompts, for rewards that use it; None for nothing.

    Attributes:
        reward_calls: Images scored so far (without padding).
        terms: Parts of the last scores by name, (B, K) float64 each; empty for rewards without parts.
        reward_checks: Images scored once more, alone: the first of a run of several, see `ConsistencyCheck`.
    """

    def __init__(
        self,
        reward: Reward,
        prompts: Sequence[str],
        num_particles: int,
        *,
        max_batch: int | None,
        on_nan: OnNan,
        metadata: Metadata | None = None,
    ) -> None:
        self.reward = reward
        self.reward_calls = 0
        self.reward_checks = 0
        self.terms: dict[str, Tensor] = {}
        self._prompts = list(prompts)
        self._flat = [prompt for prompt in prompts for _ in range(num_particles)]
        known = [{"prompt": prompt} for prompt in prompts] if metadata is None else metadata
        self._metadata = [item for item in known for _ in range(num_particles)]
        self._consistency = ConsistencyCheck(reward.display_name)
        self._num_particles = num_particles
        self._max_batch = max_batch
        self._on_nan = on_nan

    @torch.no_grad()
    def __call__(self, images: Tensor, *, where: str, groups: Sequence[int] | None = None) -> Tensor:
        """Rewards of a flat batch.

        Args:
            images: (B * K, C, H, W) in [0, 1], in group order; or (G * K, C, H, W), of some prompts only.
            where: Names the moment in error messages ("at step 12").
            groups: The G prompts whose samples these are; None for all B.

        Returns:
            Rewards (B, K), or (G, K), float64.

        Raises:
            RewardError: If the reward fails, or gives NaN or +inf while `on_nan="error"`.

        Warns:
            InconsistentRewardWarning: If the first score of the first call depends on the rest of the batch.
        """
        rows = images.shape[0]
        size = self._max_batch or rows
        chosen = range(len(self._prompts)) if groups is None else groups
        shape = (len(chosen), self._num_particles)
        owners = [group * self._num_particles + k for group in chosen for k in range(self._num_particles)]
        scores, parts = [], []
        for start in range(0, rows, size):
            index = torch.arange(start, start + size).clamp(max=rows - 1)
            try:
                scored = self._score(images, index, owners)
            except RewardError as error:
                raise RewardError(f"{where}: {error}") from error
            scores.append(_double(scored[: rows - start]))
            parts.append({name: _double(values[: rows - start]) for name, values in self.reward.terms().items()})
        whole = [name for name in parts[0] if all(name in part for part in parts)]
        self.terms = {name: torch.cat([part[name] for part in parts]).reshape(shape) for name in whole}
        first, self.reward_calls = self.reward_calls == 0, self.reward_calls + rows
        rewards = torch.cat(scores)
        self._check(rewards.reshape(shape), chosen, where)
        self._consistency.watch(images, rewards)
        if first and min(rows, size, self.reward.max_batch or size) > 1 and bool(torch.isfinite(rewards[0])):
            self.reward_checks += 1
            _warn(
                self._consistency.alone(rewards, lambda: self._score(images, torch.zeros(1, dtype=torch.long), owners))
            )
        return rewards.reshape(shape)

    def score_rows(self, images: Tensor, rows: Tensor) -> Tensor:
        """Scores (n,) of images (n, ...) that belong to some rows of the flat batch, with whatever gradient they have.

        Args:
            images: In [0, 1], the images themselves.
            rows: (n,), which rows of the flat batch they are.
        """
        places = rows.tolist()
        self.reward_calls += len(places)
        scores: Tensor = self.reward(images, [self._flat[i] for i in places], [self._metadata[i] for i in places])
        return scores

    def finish(self) -> None:
        """Warn if all samples of the run had one score.

        Warns:
            InconsistentRewardWarning: If so.
        """
        _warn(self._consistency.constant())

    def _score(self, images: Tensor, index: Tensor, owners: Sequence[int]) -> Tensor:
        places = [owners[i] for i in index.tolist()]
        prompts, metadata = [self._flat[i] for i in places], [self._metadata[i] for i in places]
        scores: Tensor = self.reward(images[index.to(images.device)], prompts, metadata)
        return scores

    def _check(self, rewards: Tensor, groups: Sequence[int], where: str) -> None:
        bad = torch.isnan(rewards) | (rewards == math.inf)
        if self._on_nan == "drop" or not bool(bad.any()):
            return
        b, k = (int(i) for i in bad.nonzero()[0])
        prompt = self._prompts[groups[b]]
        raise RewardError(
            f"{where}: expected finite scores of {self.reward.display_name}, got {float(rewards[b, k])} for particle "
            f"{k} of prompt {prompt!r} ({int(bad.sum())} of {bad.numel()} scores are NaN or +inf); return "
            "finite numbers, or -inf for a particle that must die, or set on_nan='drop' to drop such particles."
        )


def _double(values: Tensor) -> Tensor:
    return values.double() if values.device.type != "mps" else values.cpu().double()


def _warn(message: str | None) -> None:
    if message is not None:
        warnings.warn(message, InconsistentRewardWarning, stacklevel=2)

"""Scoring the particles of all prompts with one reward, counted and checked."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.weights import OnNan
from fklit.rewards.base import Reward, RewardError
from fklit.rewards.function import Function


def as_reward(reward: Reward | Callable[..., Any]) -> Reward:
    """A reward as it is; any other callable `f(images, prompts)` or `f(images)` wrapped as `rewards.Function`."""
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
            f"expected reward_scale, as {type(reward).__name__} suggests none, got None; give a number of at least 0 "
            "(1 to 5 divided by the standard deviation of the reward among samples of a prompt is a start)."
        )
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale < math.inf:
        raise ValueError(
            f"expected a finite reward_scale of at least 0, got {scale!r}; negate the reward to steer away."
        )
    return float(scale)


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

    Attributes:
        reward_calls: Images scored so far (without padding).
    """

    def __init__(
        self, reward: Reward, prompts: Sequence[str], num_particles: int, *, max_batch: int | None, on_nan: OnNan
    ) -> None:
        self.reward = reward
        self.reward_calls = 0
        self._prompts = list(prompts)
        self._flat = [prompt for prompt in prompts for _ in range(num_particles)]
        self._num_particles = num_particles
        self._max_batch = max_batch
        self._on_nan = on_nan

    @torch.no_grad()
    def __call__(self, images: Tensor, *, where: str) -> Tensor:
        """Rewards of a flat batch.

        Args:
            images: (B * K, C, H, W) in [0, 1], in group order.
            where: Names the moment in error messages ("at step 12").

        Returns:
            Rewards (B, K), float64.

        Raises:
            RewardError: If the reward fails, or gives NaN or +inf while `on_nan="error"`.
        """
        rows = images.shape[0]
        size = self._max_batch or rows
        scores = []
        for start in range(0, rows, size):
            index = torch.arange(start, start + size).clamp(max=rows - 1)
            prompts = [self._flat[int(i)] for i in index]
            try:
                scored = self.reward(images[index.to(images.device)], prompts)
            except RewardError as error:
                raise RewardError(f"{where}: {error}") from error
            scores.append(scored[: rows - start].double() if scored.device.type != "mps" else scored.cpu().double())
        self.reward_calls += rows
        rewards = torch.cat(scores).reshape(len(self._prompts), self._num_particles)
        self._check(rewards, where)
        return rewards

    def _check(self, rewards: Tensor, where: str) -> None:
        bad = torch.isnan(rewards) | (rewards == math.inf)
        if self._on_nan == "drop" or not bool(bad.any()):
            return
        b, k = (int(i) for i in bad.nonzero()[0])
        raise RewardError(
            f"{where}: expected finite scores of {type(self.reward).__name__}, got {float(rewards[b, k])} for particle "
            f"{k} of prompt {self._prompts[b]!r} ({int(bad.sum())} of {bad.numel()} scores are NaN or +inf); return "
            "finite numbers, or -inf for a particle that must die, or set on_nan='drop' to drop such particles."
        )

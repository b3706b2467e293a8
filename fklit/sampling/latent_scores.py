"""Scores of denoised latents by a latent reward, counted and checked."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.pipelines.finite import finite_rows
from fklit.pipelines.step_call import StepCall
from fklit.rewards.base import RewardError
from fklit.rewards.latent_reward import LatentReward


class LatentScores:
    """Scores the latents of B prompts, or of some of them.

    Args:
        reward: the latent reward.
        prompts: B prompts.
        num_particles: K.

    Attributes:
        steps: the steps scored so far.
        calls: samples scored so far.
    """

    def __init__(self, reward: LatentReward, prompts: Sequence[str], num_particles: int) -> None:
        self.reward = reward
        self.steps: list[int] = []
        self.calls = 0
        self._prompts = list(prompts)
        self._num_particles = num_particles

    def takes(self, call: StepCall) -> bool:
        """Return whether this step is the latent reward's."""
        return self.reward.scores_at(call.index, call.num_steps)

    def __call__(
        self, latents: Tensor, groups: Sequence[int] | None, call: StepCall, *, where: str
    ) -> Float64[Tensor, "G K"]:
        """Return rewards, NaN where latents are not finite (which only `on_nan="drop"` lets come here).

        Args:
            latents: of these prompts, (G * K, ...).
            groups: which of the prompts; None for all.
            call: the step.
            where: names the moment in messages.

        Raises:
            RewardError: the reward fails.
        """
        chosen = range(len(self._prompts)) if groups is None else groups
        texts = [self._prompts[b] for b in chosen for _ in range(self._num_particles)]
        broken = ~finite_rows(latents)
        shown = latents.masked_fill(broken.reshape(-1, *[1] * (latents.ndim - 1)), 0.0)
        timestep = float(torch.as_tensor(call.timestep).flatten()[0])
        time = timestep / float(call.scheduler.config.get("num_train_timesteps", 1000))
        try:
            rewards = self.reward(shown, texts, time=time)
        except RewardError as error:
            raise RewardError(f"{where}: {error}") from error
        self.calls += len(texts)
        found: Tensor = rewards.masked_fill(broken.to(rewards.device), math.nan)
        return found.reshape(len(chosen), self._num_particles)

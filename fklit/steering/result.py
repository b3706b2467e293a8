"""What a steered call returns: all particles with their weights, rewards, lineages and cost."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.sampling.result import PipelineResult


@dataclass(frozen=True, kw_only=True)
class SteeringResult(PipelineResult):
    """All K particles of each of B prompts, with weights; nothing is thrown away.

    `log_z` estimates `log E_base[exp(reward_scale * reward)]`. The rows of `ancestors` and `resampled` are those of the
    scored steps; `ess` has one more for the terminal weights.

    Attributes:
        rewards: terminal rewards (B, K) of the samples, float64.
        reward_path: rewards (S, B, K) of the denoised predictions, in the slots before the step's resampling.
        draws: samples drawn of each prompt (B,), where a search decides how many; None where it is `num_particles`.
    """

    rewards: Float64[Tensor, "B K"]
    reward_path: Float64[Tensor, "S B K"]
    draws: Int64[Tensor, " B"] | None = None

    @property
    def reward_mean(self) -> Float64[Tensor, " B"]:
        """Mean terminal reward under the weights, (B,)."""
        weights = self.log_weights.exp()
        return torch.where(weights > 0, weights * self.rewards, 0.0).sum(dim=1)

    def budget_share(self, b: int) -> float:
        """Return prompt b's share of the cost: by the samples drawn where these differ between prompts."""
        if self.draws is None:
            return super().budget_share(b)
        return float(self.draws[b] / self.draws.sum())

    def record(self, b: int) -> dict[str, Any]:
        """Return everything about prompt b except for pictures, JSON-able."""
        return {**super().record(b), "draws": None if self.draws is None else int(self.draws[b])}

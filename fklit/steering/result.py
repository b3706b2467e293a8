"""What a steered call returns: all particles with their weights, rewards, lineages and cost."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.sampling.result import PipelineResult, part_of


@dataclass(frozen=True, kw_only=True)
class SteeringResult(PipelineResult):
    """All K particles of each of B prompts, with weights; nothing is thrown away.

    `log_z` estimates `log E_base[exp(reward_scale * reward)]`. The rows of `ancestors` and `resampled` are those of the
    scored steps; `ess` has one more for the terminal weights.

    Attributes:
        rewards: terminal rewards (B, K) of the samples, float64.
        reward_path: rewards (S, B, K) of the denoised predictions, in the slots before the step's resampling.
        draws: samples drawn of each prompt (B,), where a search decides how many; None where it is `num_particles`.
        fewer_particles_from: step after which each prompt went on with `num_kept` particles, (B,), -1 where it did not;
            None where none did. See `FewerParticles`.
        num_kept: particles of these prompts, each in num_particles / num_kept slots side by side.
    """

    rewards: Float64[Tensor, "B K"]
    reward_path: Float64[Tensor, "S B K"]
    draws: Int64[Tensor, " B"] | None = None
    fewer_particles_from: Int64[Tensor, " B"] | None = None
    num_kept: int = 1

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
        found = {**super().record(b), "draws": None if self.draws is None else int(self.draws[b])}
        step = self.fewer_particles_from
        return {**found, "fewer_particles_from": None if step is None or step[b] < 0 else int(step[b])}

    def _share(self, b: int) -> dict[str, Any]:
        """The budget of prompt b, of the denoiser's calls what its particles took."""
        found = super()._share(b)
        if self.fewer_particles_from is None:
            return found
        # The step at which a prompt went on with fewer had been evaluated for all.
        whole = torch.where(self.fewer_particles_from < 0, self.num_steps, self.fewer_particles_from + 1)
        calls = self.log_weights.shape[1] * whole + self.num_kept * (self.num_steps - whole)
        own = self.budget.denoiser_calls - sum(self.look_ahead_calls)
        return found | {"denoiser_calls": part_of(own, calls, b) + self._looked(b)}

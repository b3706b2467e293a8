"""Particles of a search: some replace others, and no weight is carried."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.weights import as_float64
from fklit.steering.search.search import Selection


class SelectionSystem(ParticleSystem):
    """A particle system whose groups select by a search: weights stay equal, and nothing estimates Z."""

    def select(
        self, rewards: Float64[Tensor, "B K"], search: Selection | None, *, reward_scale: float, may_select: bool
    ) -> Tensor | None:
        """Let a search choose who goes on.

        Args:
            rewards: of the particles; one that is NaN or `+inf` is never chosen (with `on_nan="drop"`).
            search: the search; None selects nothing.
            reward_scale: at least 0; 0 selects nothing.
            may_select: False keeps all, as where a step draws no noise by which copies could part.

        Returns:
            Ancestors (B, K), or None if all particles stay.
        """
        values = as_float64(rewards)
        values = values.masked_fill(torch.isnan(values) | (values == math.inf), -math.inf)
        if self.num_updates == 0:
            self._move(values.device)
        identity = torch.arange(self.num_particles, device=values.device).expand(values.shape)
        ancestors: Tensor | None = None
        if search is not None and may_select and reward_scale > 0:
            chosen = search.ancestors(values, reward_scale=reward_scale, generator=self.generator)
            ancestors = None if torch.equal(chosen, identity) else chosen
        moved = torch.zeros_like(self.degenerate) if ancestors is None else (ancestors != identity).any(dim=1)
        self.resampled = moved
        self.ancestors.append(ancestors)
        self.ess_trace.append(self.ess)
        self.resampled_trace.append(moved)
        return None if ancestors is None else ancestors.to(rewards.device)

    def close(self, rewards: Float64[Tensor, "B K"]) -> None:
        """Give the finished particles equal weights, and none to those without a reward.

        Raises:
            InvalidWeightError, DegenerateGroupError: by policy.
        """
        flat = as_float64(rewards)
        self.update(torch.where(torch.isfinite(flat), torch.zeros_like(flat), flat), may_resample=False)
        self.log_z = torch.full_like(self.log_z, math.nan)

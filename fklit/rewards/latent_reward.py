"""The contract of learned intermediate rewards that read denoised latents, so that nothing is decoded on the way."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fklit.checks import as_number
from fklit.rewards.base import RewardError


class LatentReward(nn.Module, ABC):
    """Scores denoised latents `E[x_0 | x_t]` on the way: `latent_reward(latents, prompts, time=)` gives (N,).

    It stands in for the reward at scheduled steps before `until`; later ones decode and score as usual. Finished
    samples are always scored by the reward itself, whose scale and units it shares, so the target is the same. Learned
    so that `exp(scale * r)` is the mean of `exp(scale * reward(x_0))` given `x_t`, it is the best intermediate reward
    that sees `x_t` alone (Singhal et al. 2025, arXiv:2501.06848, section 3.2). Subclasses write `score`, and `build` if
    they own weights.

    Args:
        until: share of the run, in (0, 1], before which it scores; 1 for the whole run.

    Raises:
        ValueError: `until` is outside (0, 1].
    """

    _place: Tensor

    def __init__(self, *, until: float = 1.0) -> None:
        super().__init__()
        share = as_number(until)
        if share is None or not 0 < share <= 1:
            raise ValueError(f"until expected a share of the run in (0, 1], got {until!r}; give such a number.")
        self.until = float(share)
        self._loaded = False
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._place.device

    def build(self) -> None:  # noqa: B027  (optional hook: what has no weights builds nothing)
        """Creates weights on the CPU; called once by `load`."""

    def load(self) -> Self:
        """Builds the weights, frozen and in evaluation mode; calling it again does nothing."""
        if not self._loaded:
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                self.build()
                self.to(self.device)
            self._loaded = True
            self.eval().requires_grad_(False)
        return self

    def scores_at(self, step: int, num_steps: int) -> bool:
        """Whether it scores step `step` of a run of `num_steps`."""
        return step < self.until * num_steps

    @abstractmethod
    def score(self, latents: Float[Tensor, "n c h w"], prompts: Sequence[str], *, time: float) -> Float[Tensor, " n"]:
        """Scores.

        Args:
            latents: denoised predictions as the scheduler holds latents.
            prompts: one a row.
            time: of `x_t`, as a share of the training timesteps: 1 is pure noise.
        """

    @torch.no_grad()
    def forward(self, latents: Tensor, prompts: Sequence[str], *, time: float) -> Tensor:
        """Scores (N,), float64, on the device of the latents.

        Raises:
            RewardError: `score` returned something else than one finite number a row.
        """
        self.load()
        found = self.score(latents.to(self.device), prompts, time=time)
        if not isinstance(found, Tensor) or found.shape != (latents.shape[0],):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise RewardError(
                f"expected {latents.shape[0]} score(s) from {type(self).__name__}, got {shape}; return one a row."
            )
        if bool((torch.isnan(found) | (found == math.inf)).any()) and bool(torch.isfinite(latents).all()):
            raise RewardError(f"expected finite scores from {type(self).__name__}, got NaN or +inf; fix its weights.")
        return found.to(latents.device).double() if latents.device.type != "mps" else found.cpu().double()

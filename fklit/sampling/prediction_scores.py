"""Rewards of denoised predictions: all of a run or some of them, and their gradients."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fklit.feynman_kac.weights import as_float64
from fklit.pipelines.finite import check_finite, finite_rows
from fklit.rewards.base import RewardError
from fklit.rewards.scoring import Scorer
from fklit.sampling.prediction_decoder import PredictionDecoder
from fklit.sampling.reward_gradient import reward_gradient
from fklit.sampling.settings import ParticleSettings


class PredictionScores:
    """Decodes and scores the predictions of B prompts with K particles each.

    Args:
        decoder: decodes.
        scorer: scores.
        prompts: B prompts, for messages.
        particles: how the particles are carried.
    """

    def __init__(
        self, decoder: PredictionDecoder, scorer: Scorer, prompts: Sequence[str], particles: ParticleSettings
    ) -> None:
        self.decoder = decoder
        self._scorer = scorer
        self._prompts = list(prompts)
        self._num_particles = particles.num_particles
        self._on_nan, self._max_batch = particles.on_nan, particles.max_batch

    def __call__(self, latents: Tensor, groups: Sequence[int] | None, *, where: str) -> tuple[Tensor, Tensor]:
        """Decode and score: rewards (G, K) and samples (G * K, ...).

        Args:
            latents: of all prompts (B * K, ...).
            groups: the G prompts that are scored; None for all.
            where: names the moment in messages.
        """
        if groups is None:
            rows = torch.arange(latents.shape[0])
            samples = self.decoder(latents)
        else:
            rows = self.rows(groups)
            here = rows.to(latents.device)
            samples = self.decoder(latents[here]) if self.decoder.takes_some(latents) else self.decoder(latents)[here]
        if self._on_nan == "error":
            name = lambda row: self.name_of_row(int(rows[row]))  # noqa: E731
            check_finite(samples, "decoder", self.decoder.kind, where=where, name=name)
        return self.rewards_of(samples, ~finite_rows(samples), groups, where=where), samples

    def rows(self, groups: Sequence[int]) -> Tensor:
        """The rows of some prompts, (G * K,)."""
        each = self._num_particles
        return (torch.tensor(groups)[:, None] * each + torch.arange(each)).flatten()

    def gradient(self, latents: Tensor, *, where: str) -> tuple[Float64[Tensor, " N"], Tensor]:
        """Return rewards of denoised latents (B * K, ...) and their gradients in the latents, through the decoder.

        Raises:
            RewardError: the reward, or the decoder, is not differentiable.
        """
        return reward_gradient(
            latents,
            lambda chunk: self.decoder(chunk, gradient=True),
            self._scorer.score_rows,
            max_batch=self._max_batch if self.decoder.takes_some(latents) else None,
            name=self._scorer.reward.display_name,
            where=where,
        )

    def score_rows(self, latents: Tensor, rows: Tensor, *, where: str) -> tuple[Float64[Tensor, " n"], Tensor]:
        """Return rewards of some rows (n,) of denoised latents (B * K, ...), and the samples that were scored.

        The reward of a sample that is not finite is NaN.
        """
        if self.decoder.takes_some(latents):
            samples = self.decoder(latents[rows.to(latents.device)])
        else:
            samples = self.decoder(latents)[rows.cpu()]
        broken = ~finite_rows(samples)
        shown = samples.masked_fill(broken.reshape(-1, *[1] * (samples.ndim - 1)), 0.0)
        try:
            with torch.no_grad():
                scores = as_float64(self._scorer.score_rows(shown, rows))
        except RewardError as error:
            raise RewardError(f"{where}: {error}") from error
        return scores.masked_fill(broken.to(scores.device), math.nan), samples

    def rewards_of(
        self, samples: Tensor, broken: Bool[Tensor, " N"], groups: Sequence[int] | None = None, *, where: str
    ) -> Float64[Tensor, "G K"]:
        """Score samples; those that are not finite are shown to the reward as zeros and get NaN."""
        if not bool(broken.any()):
            return self._scorer(samples, where=where, groups=groups)
        rows = broken.to(samples.device)
        shown = samples.masked_fill(rows.reshape(-1, *[1] * (samples.ndim - 1)), 0.0)
        rewards = self._scorer(shown, where=where, groups=groups)
        return rewards.masked_fill(rows.reshape(rewards.shape).to(rewards.device), math.nan)

    def name_of_row(self, row: int) -> str:
        """Name a row of the run, for messages."""
        b, particle = divmod(row, self._num_particles)
        return f"particle {particle} of prompt {self._prompts[b]!r}"

"""What a steered call returns: all particles with their weights, rewards, lineages and cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.sampling.result import draw_slots, json_numbers, pil_images, shared_record


@dataclass(frozen=True)
class SteeringResult:
    """All K particles of each of B prompts, with weights; nothing is thrown away.

    Axes: B prompts, K particles in slot order, S scored steps before the end, C H W image.

    Attributes:
        prompts: B prompts.
        prompt_indices: B indices from which, with the seed, the noise follows.
        samples: images (B, K, C, H, W), float32, in [0, 1], on the CPU.
        rewards: terminal rewards (B, K) of the samples, float64.
        log_weights: normalized log weights (B, K), float64; ``exp`` sums to one over K. Use them for means:
            ``(log_weights.exp() * f).sum(1)`` estimates the mean of f under the target.
        log_z: log of the unbiased estimate of ``Z = E_base[exp(reward_scale * reward)]``, (B,), float64.
        steps: the S scored steps, 0 is the noisiest.
        num_steps: scheduler steps of the run.
        ess: effective sample size (S + 1, B) after each scored step's potential and after the terminal one.
        reward_path: rewards (S, B, K) of the denoised predictions, in the slots before the step's resampling.
        ancestors: slots (S, B, K) whose parents each slot continued after the step's resampling.
        resampled: which prompts were resampled, (S, B), bool.
        degenerate: prompts whose particles all died (``on_degenerate="keep"``), (B,), bool.
        unique_roots: number of initial particles with a living descendant, (B,).
        previews: thumbnails (S, B, K, 3, h, w), uint8, of the denoised predictions; None if not kept.
        flagged: what the pipeline's safety checker said of each image, B lists of K; None without a checker.
        settings: what the run was made with, JSON-able.
        budget: cost of the whole call.
    """

    prompts: Sequence[str]
    prompt_indices: Sequence[int]
    samples: Tensor
    rewards: Tensor
    log_weights: Tensor
    log_z: Tensor
    steps: Sequence[int]
    num_steps: int
    ess: Tensor
    reward_path: Tensor
    ancestors: Tensor
    resampled: Tensor
    degenerate: Tensor
    unique_roots: Tensor
    previews: Tensor | None
    flagged: list[list[bool]] | None
    settings: dict[str, Any]
    budget: Budget

    @property
    def sampler(self) -> str:
        """The sampler that ran, with the options that were forced."""
        return str(self.settings["sampler"])

    @cached_property
    def images(self) -> list[list[Any]]:
        """PIL images, B lists of K in particle order (the order of log_weights and ancestors)."""
        return pil_images(self.samples)

    @property
    def best_index(self) -> Tensor:
        """Slot of the highest terminal reward among living particles, (B,)."""
        alive = self.rewards.masked_fill(self.log_weights == -math.inf, -math.inf)
        return alive.argmax(dim=1)

    @property
    def best(self) -> list[Any]:
        """The image with the highest terminal reward of each prompt, B PIL images."""
        return [row[int(slot)] for row, slot in zip(self.images, self.best_index, strict=True)]

    @property
    def reward_mean(self) -> Tensor:
        """Mean terminal reward under the weights, (B,)."""
        weights = self.log_weights.exp()
        return torch.where(weights > 0, weights * self.rewards, 0.0).sum(dim=1)

    def to(self, device: torch.device | str) -> "SteeringResult":
        """The result with its tensors on ``device``. Lightning calls it on what ``predict_step`` returns."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def sample(self, n: int, *, seed: int = 0) -> list[list[Any]]:
        """Draws images by weight, with replacement: equally weighted samples of the target (as K grows).

        Args:
            n: images of each prompt, at least 1.
            seed: seed of the draw.

        Returns:
            B lists of n PIL images.
        """
        drawn = draw_slots(self.log_weights, self.prompt_indices, n, seed=seed)
        return [[row[slot] for slot in slots] for row, slots in zip(self.images, drawn, strict=True)]

    def record(self, b: int) -> dict[str, Any]:
        """Everything about prompt ``b`` except for pictures, JSON-able.

        The budget is the prompt's share of the call: an equal part, since every prompt costs the same.
        """
        return {
            **shared_record(self, b),
            "rewards": json_numbers(self.rewards[b]),
            "reward_path": json_numbers(self.reward_path[:, b]),
        }

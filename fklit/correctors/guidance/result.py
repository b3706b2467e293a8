"""What a corrected pipeline call returns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.sampling.result import draw_slots, json_numbers, pil_images, shared_record


@dataclass(frozen=True)
class GuidanceResult:
    """All K particles of each of B prompts, with weights; nothing is thrown away.

    Axes: B prompts, K particles in slot order, T scheduler steps.

    Attributes:
        prompts: B texts.
        prompt_indices: B indices from which, with the seed, the noise follows.
        samples: (B, K, *shape), float32, on the CPU; images (B, K, C, H, W) are in [0, 1].
        log_weights: normalized log weights (B, K), float64; use them for means and for draws.
        log_z: (B,) float64, log of the estimate of the target's normalizing constant over the base's.
        ess: effective sample size (T, B) before each step, and one more row after the terminal reward, if any.
        spread: (T, B) standard deviation within each group of the *exact* log weights of each step, whatever the
            correction: its size tells how much of a correction K particles can carry.
        information: (T, B) nats that the prompt tells about the sample at each step, see
            :func:`~fklit.correctors.guidance.weight.prompt_information`; NaN where the pipeline evaluates no
            unconditional prediction. The sum over steps estimates the divergence of the conditional law from the
            unconditional one, and on a learned model the error of both.
        ancestors: (T, B, K), slots whose parents each slot continued.
        resampled: (T, B).
        degenerate: (B,), prompts whose particles all died (``on_degenerate="keep"``).
        unique_roots: (B,), initial particles with a living descendant.
        weighed: the steps whose weights counted.
        num_steps: T.
        rewards: terminal rewards (B, K), float64; None without a reward.
        reward_path: rewards (S, B, K) at the scored steps; None without a reward.
        steps: the S scored steps.
        flagged: what a safety checker said, B lists of K; None without one.
        settings: what the run was made with, JSON-able.
        budget: cost of the whole call.
    """

    prompts: Sequence[str]
    prompt_indices: Sequence[int]
    samples: Float[Tensor, "B K ..."]
    log_weights: Float64[Tensor, "B K"]
    log_z: Float64[Tensor, " B"]
    ess: Float64[Tensor, "S B"]
    spread: Float64[Tensor, "T B"]
    information: Float64[Tensor, "T B"]
    ancestors: Int64[Tensor, "T B K"]
    resampled: Bool[Tensor, "T B"]
    degenerate: Bool[Tensor, " B"]
    unique_roots: Int64[Tensor, " B"]
    weighed: Sequence[int]
    num_steps: int
    rewards: Float64[Tensor, "B K"] | None
    reward_path: Float64[Tensor, "S B K"] | None
    steps: Sequence[int]
    flagged: list[list[bool]] | None
    settings: dict[str, Any]
    budget: Budget

    previews = None  # the writer of predictions asks for them

    @cached_property
    def images(self) -> list[list[Any]]:
        """PIL images, B lists of K in slot order; of samples that are images."""
        return pil_images(self.samples)

    @property
    def best_index(self) -> Int64[Tensor, " B"]:
        """Slot of the highest reward among living particles, or without a reward of the highest weight, (B,)."""
        if self.rewards is None:
            return self.log_weights.argmax(dim=1)
        return self.rewards.masked_fill(self.log_weights == -torch.inf, -torch.inf).argmax(dim=1)

    @property
    def best(self) -> list[Any]:
        """The image at `best_index` of each prompt."""
        return [row[int(slot)] for row, slot in zip(self.images, self.best_index, strict=True)]

    def sample_slots(self, n: int = 1, *, seed: int = 0) -> list[list[int]]:
        """Draw n slots of each prompt by weight, with replacement."""
        return draw_slots(self.log_weights, self.prompt_indices, n, seed=seed)

    def sample(self, n: int = 1, *, seed: int = 0) -> list[list[Any]]:
        """Draw n images of each prompt by weight, with replacement: samples of the target (as K grows).

        Draws of one group are not independent; for independent ones take one draw from each of many groups.
        """
        drawn = self.sample_slots(n, seed=seed)
        return [[row[slot] for slot in slots] for row, slots in zip(self.images, drawn, strict=True)]

    def to(self, device: torch.device | str) -> "GuidanceResult":
        """Return the result with its tensors on `device`; Lightning calls it."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def record(self, b: int) -> dict[str, Any]:
        """Return everything about prompt `b` except for the samples, JSON-able; the budget is the prompt's share."""
        return {
            **shared_record(self, b),
            "rewards": None if self.rewards is None else json_numbers(self.rewards[b]),
            "reward_path": None if self.reward_path is None else json_numbers(self.reward_path[:, b]),
            "drawn": self.sample_slots(1)[b][0],
            "weighed": list(self.weighed),
            "spread": json_numbers(self.spread[:, b]),
            "information": json_numbers(self.information[:, b]),
        }

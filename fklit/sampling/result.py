"""What a call of a pipeline with weighted particles returns, whatever the method."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Bool
from torch import Tensor

from fklit.feynman_kac.result import ParticleResult, json_numbers
from fklit.pipelines.modality import Modality


@dataclass(frozen=True, kw_only=True)
class PipelineResult(ParticleResult[Tensor]):
    """All K particles of each of B prompts, with weights; nothing is thrown away.

    `samples` are images (B, K, C, H, W) or videos (B, K, F, C, H, W), float32, in [0, 1], or waveforms (B, K, C, T), on
    the CPU. `best()` and `sample(n)` give PIL images, lists of F of them, or arrays (C, T).

    Attributes:
        prompts: B prompts.
        prompt_indices: B indices from which, with the seed, the noise follows.
        num_steps: T, scheduler steps of the run.
        scored_steps: the S steps before the end at which a reward scored, 0 is the noisiest; empty without a reward.
        reward_path: rewards (S, B, K) float64 of the denoised predictions, in the slots before the step's resampling,
            NaN where a prompt was scored no more; None without a reward.
        previews: thumbnails (S, B, K, 3, h, w), uint8, of the denoised predictions, black where nothing was decoded;
            None if not kept, or if nothing was decoded at all.
        latent_steps: those of `scored_steps` at which a latent reward scored.
        score_draws: clean samples that were scored of each particle at each of `scored_steps`, with a look-ahead; empty
            without one, where it is one, the denoised prediction.
        look_ahead_calls: denoiser evaluations of the look-ahead at each of `scored_steps`; empty without one.
        scored: which prompts each step has scored, (S, B) bool, see `stop_scoring_above`; None where nothing was.
        sampling_rate: samples a second of waveforms; None for images and videos.
        terms: parts of `rewards` by name, (B, K) float64 each in their own units, of a reward that is made of others.
        flagged: what the pipeline's safety checker said of each image, B lists of K; None without a checker.
        settings: what the run was made with, JSON-able.
    """

    prompts: Sequence[str]
    prompt_indices: Sequence[int]
    num_steps: int
    scored_steps: tuple[int, ...]
    reward_path: Tensor | None = None
    previews: Tensor | None = None
    latent_steps: tuple[int, ...] = ()
    score_draws: tuple[int, ...] = ()
    look_ahead_calls: tuple[int, ...] = ()
    scored: Bool[Tensor, "S B"] | None = None
    sampling_rate: int | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)
    flagged: list[list[bool]] | None = None
    settings: dict[str, Any]

    @property
    def group_indices(self) -> Sequence[int]:
        """The indices of the prompts."""
        return self.prompt_indices

    @property
    def sampler(self) -> str:
        """The sampler that ran, with the options that were forced."""
        return str(self.settings["sampler"])

    @property
    def modality(self) -> Modality:
        """What the samples are."""
        if self.sampling_rate is not None:
            return "audio"
        return "video" if self.samples.ndim == 6 else "image"

    @cached_property
    def items(self) -> list[list[Any]]:
        """B lists of K samples in slot order (the order of `log_weights` and `ancestors`), as `best()` gives them."""
        if self.modality == "audio":
            return [list(row.numpy()) for row in self.samples]
        if self.modality == "video":
            return [pil_images(row) for row in self.samples]
        return pil_images(self.samples)

    @property
    def images(self) -> list[list[Any]]:
        """PIL images, B lists of K in slot order.

        Raises:
            ValueError: the samples are videos or audio.
        """
        if self.modality != "image":
            raise ValueError(f"expected images, got samples that are {self.modality}; read result.items.")
        return self.items

    def _eligible(self) -> Tensor:
        """What the safety checker flagged is never the best, unless all of a prompt's images are flagged."""
        if self.flagged is None:
            return self.log_weights
        flagged = torch.tensor(self.flagged, device=self.log_weights.device)
        return self.log_weights.masked_fill(flagged & ~flagged.all(dim=1, keepdim=True), -torch.inf)

    def best(self, scores: Tensor | None = None) -> list[Any]:
        """Return the best sample of each prompt: PIL images, lists of F of them, or arrays (C, T); see `best_index`."""
        return [row[slot] for row, slot in zip(self.items, self.best_index(scores).tolist(), strict=True)]

    def sample(self, n: int = 1, *, seed: int = 0) -> list[list[Any]]:
        """Return n draws of each prompt by weight, with replacement, B lists of n samples as `best()` gives them.

        They are samples of the target as K grows. Draws of one prompt's particles are not independent; for independent
        ones take one draw from each of many runs.

        Args:
            n: at least 1.
            seed: of the draw.
        """
        drawn = self.sample_index(n, seed=seed).tolist()
        return [[row[slot] for slot in slots] for row, slots in zip(self.items, drawn, strict=True)]

    def to(self, device: torch.device | str) -> Self:
        """Return the result with all its tensors on `device`."""
        return replace(super().to(device), terms={name: values.to(device) for name, values in self.terms.items()})

    def record(self, b: int) -> dict[str, Any]:
        """Return everything about prompt b except for pictures, JSON-able."""
        return {
            "prompt": self.prompts[b],
            "prompt_index": self.prompt_indices[b],
            **self.settings,
            **super().record(b),
            "budget": self._share(b),
            "modality": self.modality,
            "sampling_rate": self.sampling_rate,
            "num_steps": self.num_steps,
            "scored_steps": list(self.scored_steps),
            "ancestors": self.ancestors[:, b].tolist() if isinstance(self.ancestors, Tensor) else None,
            "reward_path": None if self.reward_path is None else json_numbers(self.reward_path[:, b]),
            "terms": {name: json_numbers(values[b]) for name, values in self.terms.items()},
            "flagged": None if self.flagged is None else self.flagged[b],
        }

    def _share(self, b: int) -> dict[str, Any]:
        """The budget of prompt b: of scores what it took itself, of all else an equal part."""
        found: dict[str, Any] = super().record(b)["budget"]
        if self.scored is None or bool(self.scored.all()):
            return found
        latent = torch.tensor([step in self.latent_steps for step in self.scored_steps])
        draws = torch.tensor(self.score_draws or [1] * len(self.scored_steps)).unsqueeze(1)
        seen, on_the_way = (draws * self.scored)[~latent].sum(dim=0), self.scored[latent].sum(dim=0)
        spent = self.budget
        own = {
            "reward_calls": part_of(spent.reward_calls, seen + 1, b),  # and the finished samples
            "latent_reward_calls": part_of(spent.latent_reward_calls, on_the_way, b),
        }
        if spent.preview_decodes:
            own["preview_decodes"] = part_of(spent.preview_decodes, seen, b)
        else:
            own["decodes"] = part_of(spent.decodes, seen + 1, b)
        if self.look_ahead_calls:
            calls = (spent.denoiser_calls - sum(self.look_ahead_calls)) * self.budget_share(b)
            own["denoiser_calls"] = round(calls) + self._looked(b)
        return {**found, **own}

    def _looked(self, b: int) -> int:
        """Denoiser evaluations of the look-ahead of prompt b."""
        if self.scored is None or not self.look_ahead_calls:
            return 0
        return sum(part_of(calls, row.long(), b) for calls, row in zip(self.look_ahead_calls, self.scored, strict=True))


def part_of(total: int, shares: Tensor, b: int) -> int:
    """What of a total falls on b, in proportion to its share."""
    whole = int(shares.sum())
    return round(total * int(shares[b]) / whole) if whole else 0


def pil_images(samples: Tensor) -> list[list[Any]]:
    """PIL images of samples (B, K, C, H, W) in [0, 1], B lists of K."""
    from PIL import Image

    arrays = (samples * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    return [[Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in row] for row in arrays]

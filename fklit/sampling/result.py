"""What results of every method do with the samples of a population: show them, draw them by weight, write them down."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.randomness import group_generators


def pil_images(samples: Tensor) -> list[list[Any]]:
    """PIL images of samples (B, K, C, H, W) in [0, 1], B lists of K."""
    from PIL import Image

    arrays = (samples * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    return [[Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in row] for row in arrays]


def draw_slots(log_weights: Tensor, prompt_indices: Sequence[int], n: int, *, seed: int) -> list[list[int]]:
    """Draw n slots of each of B prompts by weight, with replacement.

    Args:
        log_weights: normalized, (B, K).
        prompt_indices: B indices; with the seed, a prompt's draw follows from its index alone.
        n: at least 1.
        seed: of the draw.

    Raises:
        ValueError: if n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n={n} was given; give an integer of at least 1.")
    drawn = []
    for weights, index in zip(log_weights.exp(), prompt_indices, strict=True):
        generator = group_generators(seed, [index], stream="selection")[0]
        drawn.append(torch.multinomial(weights, n, replacement=True, generator=generator).tolist())
    return drawn


def shared_record(result: Any, b: int) -> dict[str, Any]:
    """Return what the records of all methods hold about prompt b, JSON-able.

    Args:
        result: a ``SteeringResult`` or ``GuidanceResult``.
        b: the prompt. The budget is its share: all prompts of a call cost the same.
    """
    share, budget = 1 / len(result.prompts), result.budget
    return {
        "prompt": result.prompts[b],
        "prompt_index": result.prompt_indices[b],
        **result.settings,
        "num_steps": result.num_steps,
        "steps": list(result.steps),
        "log_weights": json_numbers(result.log_weights[b]),
        "log_z": json_numbers(result.log_z[b]),
        "ess": json_numbers(result.ess[:, b]),
        "ancestors": result.ancestors[:, b].tolist(),
        "resampled": result.resampled[:, b].tolist(),
        "unique_roots": int(result.unique_roots[b]),
        "degenerate": bool(result.degenerate[b]),
        "best": int(result.best_index[b]),
        "flagged": None if result.flagged is None else result.flagged[b],
        "budget": {
            "denoiser_calls": round(budget.denoiser_calls * share),
            "decodes": round(budget.decodes * share),
            "reward_calls": round(budget.reward_calls * share),
            "seconds": budget.seconds * share,
            "peak_memory_bytes": budget.peak_memory_bytes,
        },
    }


def json_numbers(values: Tensor) -> Any:
    """Nested lists of floats; infinities and NaN, which JSON lacks, become None."""

    def plain(item: Any) -> Any:
        if isinstance(item, list):
            return [plain(part) for part in item]
        return item if math.isfinite(item) else None

    return plain(values.tolist())

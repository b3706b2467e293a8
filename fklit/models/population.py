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
        log_weights: normalised, (B, K).
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


def json_numbers(values: Tensor) -> Any:
    """Nested lists of floats; infinities and NaN, which JSON lacks, become None."""

    def plain(item: Any) -> Any:
        if isinstance(item, list):
            return [plain(part) for part in item]
        return item if math.isfinite(item) else None

    return plain(values.tolist())

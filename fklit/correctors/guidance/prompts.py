"""Prompts with exponents: one, or several at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ComposedPrompt:
    """Several prompts for one sample: the target is `q_empty^(1 - sum w_j) prod_j q(x | prompt_j)^w_j`.

    The exponents sum to 1, so that it is one guided model (Liu et al. 2022, arXiv 2206.01714); a negative scale is a
    negative prompt. The pipeline evaluates its unconditional prediction once for each of the prompts.

    Attributes:
        prompts: at least one.
        scales: one number for each, in the convention of diffusers; not all zero.
    """

    prompts: tuple[str, ...]
    scales: tuple[float, ...]

    def __init__(self, prompts: Sequence[str], scales: Sequence[float]) -> None:
        if isinstance(prompts, str) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"prompts expected a list of at least one string, got {prompts!r}; give a list.")
        if len(scales) != len(prompts) or not all(math.isfinite(scale) for scale in scales):
            raise ValueError(
                f"scales expected a finite number for each of {len(prompts)} prompts, got {scales!r}; give one each."
            )
        if all(scale == 0 for scale in scales):
            raise ValueError(
                "scales expected a number other than 0, got zeros alone, which leaves no prompt; give one."
            )
        object.__setattr__(self, "prompts", tuple(prompts))
        object.__setattr__(self, "scales", tuple(float(scale) for scale in scales))

    def __str__(self) -> str:
        """Return the prompts with their scales, for records."""
        return " | ".join(f"{prompt} ^ {scale:g}" for prompt, scale in zip(self.prompts, self.scales, strict=True))

"""The law that a discrete scheduler draws the tokens of a step from."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True)
class DrawnLaw:
    """The law of the tokens that a step draws at each position, independently.

    Attributes:
        probs: (n, L, V) float64, normalized.
        confidence: (n, L, V), what the scheduler compares with its thresholds if it draws a token.
    """

    probs: Float64[Tensor, "n L V"]
    confidence: Float[Tensor, "n L V"]


def step_arguments(scheduler: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that a scheduler's step takes, as pipelines pass them."""
    known = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in given.items() if name in known}


def drawn_law(scheduler: Any, logits: Tensor, sample: Tensor, timestep: int, arguments: Mapping[str, Any]) -> DrawnLaw:
    """Return the law that `scheduler.step` draws tokens from.

    A step that takes the temperature hands the denoiser's logits through as its `pred_logits`, and shapes them itself;
    of all others `pred_logits` is the law (as `EntropyBoundScheduler` has it, and as diffusers #14741 proposes for
    every discrete scheduler). They are asked on a copy, with a generator of its own.

    Args:
        scheduler: At the step; it is not changed.
        logits: (n, L, V) of the denoiser.
        sample: (n, L) tokens before the step.
        timestep: Of the step.
        arguments: Of the step, besides these.
    """
    given = step_arguments(scheduler, arguments)
    if "temperature" not in inspect.signature(scheduler.step).parameters:
        shaped = probed(scheduler, logits, sample, timestep, arguments).pred_logits
        confidence = torch.softmax(shaped.float(), dim=-1)
        return DrawnLaw(_normalized(confidence), confidence)
    temperature = given.get("temperature", 0.0)
    plain = torch.softmax(logits.float(), dim=-1)
    if temperature == 0 or given.get("sampling_method", "auto") == "greedy":
        certain = torch.zeros_like(plain, dtype=torch.float64).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
        return DrawnLaw(certain, plain)
    if "top_k" not in inspect.signature(scheduler.step).parameters:
        # `DiscreteDDIMScheduler`: scaled in float32; it reports the probability at temperature 1.
        return DrawnLaw(_normalized(torch.softmax(logits.float() / temperature, dim=-1)), plain)
    # `BlockRefinementScheduler`: scaled, then cut to the top k, then to the nucleus.
    scaled = logits if temperature == 1 else logits / temperature
    scaled = scheduler._top_k_filtering(scaled, top_k=given.get("top_k"))
    shaped = scheduler._top_p_filtering(scaled, top_p=given.get("top_p"))
    confidence = torch.softmax(shaped.float(), dim=-1)
    return DrawnLaw(_normalized(confidence), confidence)


def probed(scheduler: Any, logits: Tensor, sample: Tensor, timestep: int, arguments: Mapping[str, Any]) -> Any:
    """Return the output of a step of a copy of the scheduler, with a generator of its own."""
    given = step_arguments(scheduler, arguments)
    given["generator"] = torch.Generator(logits.device).manual_seed(0)
    return copy.deepcopy(scheduler).step(model_output=logits, timestep=timestep, sample=sample, **given)


def _normalized(probs: Tensor) -> Tensor:
    """Float64 probabilities that sum to 1: those that are drawn from, without the rounding of their sum."""
    exact = probs.double()
    return exact / exact.sum(dim=-1, keepdim=True)

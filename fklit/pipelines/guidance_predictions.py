"""The conditional and the unconditional prediction behind a guided model output."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fklit.pipelines.step_call import StepCall

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest entry; 2e-2 in half precision


@dataclass(frozen=True)
class GuidancePredictions:
    """Two predictions of one step, each of the shape of the model output.

    Attributes:
        conditional: given the prompt.
        unconditional: given nothing, or the negative prompt.
        rescaled: whether the model output has the norm of the conditional prediction (Qwen-Image, Lumina 2), not that
            of the plain combination.
    """

    conditional: Tensor
    unconditional: Tensor
    rescaled: bool = False


def guidance_predictions(call: StepCall, scale: float) -> GuidancePredictions | None:
    """Find the two predictions that the pipeline combined, and make sure that it combined them as guidance does.

    Pipelines evaluate them in one call of twice the rows, or in two calls, in either order, and some negate them before
    the step (Lumina 2). All of these are tried; one counts only if `unconditional + scale * (conditional -
    unconditional)` is the model output, or that brought to the norm of the conditional prediction. A pipeline that
    rescales otherwise, projects or skips guidance, or evaluates a third prediction, therefore gives None.

    Args:
        call: the step.
        scale: the guidance scale in the convention of diffusers, 1 is no guidance.

    Returns:
        Both predictions, or None.
    """
    wanted, found = call.model_output, call.predictions
    rows = wanted.shape[0]
    if len(found) == 1 and found[0].shape[0] == 2 * rows:
        first, second = found[0].chunk(2)
    elif len(found) == 2 and all(prediction.shape[0] == rows for prediction in found):
        first, second = found
    else:
        return None
    first, second = (_own_tokens(prediction, wanted) for prediction in (first, second))
    if first.shape != wanted.shape or second.shape != wanted.shape:
        return None
    best: GuidancePredictions | None = None
    least = _TOLERANCE.get(wanted.dtype, 2e-2)
    for sign in (1, -1):
        for conditional, unconditional in ((second, first), (first, second)):
            pair = GuidancePredictions(sign * conditional, sign * unconditional)
            combined = pair.unconditional + scale * (pair.conditional - pair.unconditional)
            if torch.equal(combined.to(wanted.dtype), wanted):
                return pair
            # Qwen-Image: each token of the combination gets the norm of its conditional prediction.
            norms = (x.norm(dim=-1, keepdim=True) for x in (pair.conditional, combined))
            rescaled = combined * (next(norms) / next(norms))
            for result, is_rescaled in ((combined, False), (rescaled, True)):
                error = _relative_error(result, wanted)
                if error < least:
                    best, least = replace(pair, rescaled=is_rescaled), error
    return best


def _own_tokens(prediction: Tensor, wanted: Tensor) -> Tensor:
    """Predictions for reference pictures, which lie behind those of the sample, are cut off by the pipeline."""
    if prediction.ndim == wanted.ndim + 1 and prediction.shape[2] == 1:  # Z-Image: pictures as videos of one frame
        prediction = prediction.squeeze(2)
    return prediction[:, : wanted.shape[1]] if prediction.ndim == wanted.ndim == 3 else prediction


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    scale = wanted.double().abs().max().clamp(min=1e-30)
    return float((found.double() - wanted.double()).abs().max() / scale)

"""The conditional and the unconditional prediction behind a guided model output."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fklit.pipelines.interception import StepCall

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest entry; 2e-2 in half precision


@dataclass(frozen=True)
class GuidancePredictions:
    """Two predictions of one step, each of the shape of the model output.

    Attributes:
        conditional: given the prompt.
        unconditional: given nothing, or the negative prompt.
    """

    conditional: Tensor
    unconditional: Tensor


def guidance_predictions(call: StepCall, scale: float) -> GuidancePredictions | None:
    """Find the two predictions that the pipeline combined, and make sure that it combined them as guidance does.

    Pipelines evaluate them in one call of twice the rows, or in two calls, in either order. Both orders are tried; one
    counts only if `unconditional + scale * (conditional - unconditional)` is the model output. A pipeline that
    rescales, projects or skips guidance, or evaluates a third prediction, therefore gives None.

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
    if first.shape != wanted.shape or second.shape != wanted.shape:
        return None
    best: GuidancePredictions | None = None
    least = _TOLERANCE.get(wanted.dtype, 2e-2)
    for conditional, unconditional in ((second, first), (first, second)):
        combined = unconditional + scale * (conditional - unconditional)
        if torch.equal(combined.to(wanted.dtype), wanted):
            return GuidancePredictions(conditional, unconditional)
        error = (combined.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-30)
        if float(error) < least:
            best, least = GuidancePredictions(conditional, unconditional), float(error)
    return best

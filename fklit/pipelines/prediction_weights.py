"""How a model output follows from the denoiser's predictions: as a linear combination, whose factors are found."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.microbatch import take_rows
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.transition import as_double

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative; 2e-2 in half precision


def find_weights(call: StepCall, otherwise: str) -> list[float]:
    """Return the factors by which the model output is a combination of the blocks of predictions, in their order.

    Args:
        call: the step, with its calls of the denoiser.
        otherwise: what the user can do where this cannot be done, for messages.

    Raises:
        UnsupportedPipelineError: it is no such combination.
    """
    output, count = call.model_output, call.model_output.shape[0]
    blocks = [block for item in call.network_calls for block in torch.split(item.prediction, count)]
    parts = [block[:, : output.shape[1]] for block in blocks if block[:, : output.shape[1]].numel() == output.numel()]
    if parts and len(parts) == len(blocks):
        columns, wanted = torch.stack([as_double(part).flatten() for part in parts]), as_double(output).flatten()
        finite = torch.isfinite(columns).all(dim=0) & torch.isfinite(wanted)
        columns, wanted = columns[:, finite], wanted[finite]
        # Least squares of a few numbers; of equal predictions only the sum of the factors matters.
        factors = torch.linalg.pinv(columns @ columns.T, hermitian=True, rtol=1e-12) @ (columns @ wanted)
        if relative_error(factors @ columns, wanted) < TOLERANCE.get(output.dtype, 2e-2):
            found: list[float] = factors.tolist()
            return found
    raise UnsupportedPipelineError(
        "expected a model output that is a linear combination of what the denoiser returned, got one that is not "
        f"(rescaled guidance, or another network); {otherwise}."
    )


def check_distinct(call: StepCall, samples: Sequence[str | int], otherwise: str) -> None:
    """Refuse factors that hold at this noise level only: those of predictions that are equal here by chance.

    Args:
        call: the step, with its calls of the denoiser.
        samples: the argument of each call that holds the samples, which has no part in this.
        otherwise: what the user can do where this cannot be done, for messages.

    Raises:
        UnsupportedPipelineError: two predictions are equal, though their conditions are not.
    """
    count = call.model_output.shape[0]
    blocks: list[tuple[Tensor, Any]] = []
    for item, name in zip(call.network_calls, samples, strict=True):
        total = item.prediction.shape[0]
        rest = {**{str(i): value for i, value in enumerate(item.args) if i != name}, **item.kwargs}
        rest.pop(str(name), None)
        for start in range(0, total, count):
            rows = torch.arange(start, start + count)
            blocks.append((item.prediction[start : start + count], take_rows(rest, rows, total)))
    for (one, left), (other, right) in itertools.combinations(blocks, 2):
        first, second = (as_double(part).nan_to_num(0.0, 0.0, 0.0) for part in (one, other))
        # A thousandth of what is told apart: rounding of the output moves the factors by that share.
        if relative_error(first, second) < 1e-3 * TOLERANCE.get(one.dtype, 2e-2) and not _alike(left, right):
            raise UnsupportedPipelineError(
                "expected predictions that differ between the conditions of guidance, from which its factors follow, "
                f"got equal ones at step {call.index} of {call.num_steps}; score later, or {otherwise}."
            )


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference over the largest entry."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def _alike(left: Any, right: Any) -> bool:
    """Whether two arguments are the same, also inside of dictionaries, lists and tuples."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_alike(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_alike, left, right))
    return left is right or (type(left) is type(right) and not isinstance(left, Tensor) and bool(left == right))

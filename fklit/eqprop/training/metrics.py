"""Quantities of a relaxation that are logged while a network trains."""

import torch
from torch import Tensor

from fklit.eqprop.relaxation.result import RelaxationResult


def relaxation_metrics(result: RelaxationResult) -> dict[str, Tensor]:
    """Quantiles of residual and iterations of a free phase, and shares of samples by outcome.

    Args:
        result: Of a batch.

    Returns:
        Values by the names they are logged under, `train/...`.
    """
    residual, iterations = result.residual, result.iterations.to(result.residual.dtype)
    middle, high = torch.tensor([0.5, 0.9], dtype=residual.dtype, device=residual.device)
    return {
        # "higher" picks one of the values: between a number and infinity, a weighted mean would be undefined
        "train/residual_p50": residual.quantile(middle, interpolation="higher"),
        "train/residual_p90": residual.quantile(high, interpolation="higher"),
        "train/residual_max": residual.max(),
        "train/iterations_p50": iterations.quantile(middle),
        "train/iterations_p90": iterations.quantile(high),
        "train/unconverged": (~result.converged).float().mean(),
        "train/period_two": result.period_two.float().mean(),
        "train/diverged": result.diverged.float().mean(),
    }

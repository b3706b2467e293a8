"""Log-weights of particles: float64, one row a group, and the one place that decides about NaN and -inf.

Rows are groups (prompts) and never mix. A log-weight of `-inf` is a dead particle. Nothing here exponentiates
before the row's maximum is taken out, so log-weights of +-1e4 and beyond are ordinary numbers.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.checks import check_choice, check_matrix

OnNan = Literal["error", "drop"]
OnDegenerate = Literal["error", "keep"]


class InvalidWeightError(ValueError):
    """A potential or reward of a living particle is NaN or `+inf`, which no weight can express."""


class DegenerateGroupError(RuntimeError):
    """Every particle of a group has weight zero, so the group has no distribution to go on with."""


def weight_device(device: torch.device) -> torch.device:
    """Return where weights of values on `device` live: there, or on the CPU if float64 does not exist there (MPS)."""
    return torch.device("cpu") if device.type == "mps" else device


def as_float64(values: Tensor) -> Float64[Tensor, "..."]:
    """Return `values` detached, in float64, on their `weight_device`."""
    return values.detach().to(device=weight_device(values.device)).to(torch.float64)


def log_mean_exp(log_weights: Tensor) -> Float64[Tensor, " B"]:
    """Return `log((1/K) sum_k exp(log_weights[b, k]))`, shape (B,); `-inf` for a group whose particles are all dead.

    Args:
        log_weights: shape (B, K), unnormalized, `-inf` allowed.
    """
    check_matrix("log_weights", log_weights)
    values = as_float64(log_weights)
    peak = values.amax(dim=-1, keepdim=True)
    # A finite reference keeps an all-dead row at log(0) = -inf; (-inf) - (-inf) would be NaN.
    reference = torch.where(torch.isfinite(peak), peak, torch.zeros_like(peak))
    return (values - reference).exp().mean(dim=-1).log() + reference.squeeze(-1)


def normalize(log_weights: Tensor) -> Float64[Tensor, "B K"]:
    """Return the weights in linear scale, each row summing to 1; a group whose particles are all dead gives zeros.

    Args:
        log_weights: shape (B, K), unnormalized, `-inf` allowed.
    """
    linear = _relative(log_weights)
    total = linear.sum(dim=-1, keepdim=True)
    return linear / torch.where(total > 0, total, torch.ones_like(total))


def ess(log_weights: Tensor) -> Float64[Tensor, " B"]:
    """Return the effective sample size `(sum w)^2 / sum w^2` of each group, shape (B,).

    It lies in [1, K]: K for equal weights, 1 if one particle has all the weight; 0 marks a group whose particles are
    all dead.

    Args:
        log_weights: shape (B, K), unnormalized, `-inf` allowed.

    References:
        Kong, Liu and Wong 1994, JASA 89.
    """
    linear = _relative(log_weights)
    squares = linear.square().sum(dim=-1)
    size = linear.sum(dim=-1).square() / torch.where(squares > 0, squares, torch.ones_like(squares))
    # Rounding may leave the interval by an ulp; a dead group stays at 0.
    return torch.where(squares > 0, size.clamp(min=1.0, max=float(log_weights.shape[-1])), torch.zeros_like(size))


def max_weight(log_weights: Tensor) -> Float64[Tensor, " B"]:
    """Return the largest normalized weight of each group, shape (B,), in [1/K, 1]; 0 for an all-dead group."""
    return normalize(log_weights).amax(dim=-1)


def apply_nan_policy(
    log_potential: Tensor, living: Tensor, *, on_nan: OnNan, context: str = ""
) -> tuple[Float64[Tensor, "B K"], Int64[Tensor, " B"]]:
    """Apply the policy for NaN and `+inf` to the log potentials of living particles.

    Args:
        log_potential: shape (B, K).
        living: bool, shape (B, K); what dead particles return is ignored and becomes 0.
        on_nan: "error" raises; "drop" makes the particle's value `-inf`, so that it is dead for good, and counts it.
        context: put into the message, for example "at update 3".

    Returns:
        The screened values in float64, and the number of particles dropped in each group, shape (B,).

    Raises:
        InvalidWeightError: with `on_nan="error"`, if a living particle has NaN or `+inf`.
    """
    check_choice("on_nan", on_nan, ("error", "drop"))
    values = torch.where(living, as_float64(log_potential), torch.zeros((), dtype=torch.float64, device=living.device))
    invalid = torch.isnan(values) | (values == torch.inf)
    if on_nan == "error" and bool(invalid.any()):
        group, particle = (int(index) for index in invalid.nonzero()[0])
        raise InvalidWeightError(
            f"{int(invalid.sum())} of {invalid.numel()} log potentials are NaN or +inf{context and ' ' + context} "
            "(first: "
            f"group {group}, particle {particle}, value {float(values[group, particle])}); a reward must be finite or "
            f"-inf, so fix it or set on_nan='drop' to give such particles weight zero."
        )
    return values.masked_fill(invalid, -torch.inf), invalid.sum(dim=-1)


def apply_degeneracy_policy(
    log_weights: Tensor, *, on_degenerate: OnDegenerate, context: str = ""
) -> tuple[Float64[Tensor, "B K"], Bool[Tensor, " B"]]:
    """Apply the policy for groups without a living particle.

    Args:
        log_weights: shape (B, K), no NaN.
        on_degenerate: "error" raises; "keep" gives the particles of such a group equal weights (log-weight 0).
        context: put into the message, for example "at update 3".

    Returns:
        The log-weights, other groups untouched, and which groups are degenerate, bool, shape (B,).

    Raises:
        DegenerateGroupError: with `on_degenerate="error"`, if a group has no living particle.
    """
    check_choice("on_degenerate", on_degenerate, ("error", "keep"))
    values = as_float64(log_weights)
    degenerate = (values == -torch.inf).all(dim=-1)
    if on_degenerate == "error" and bool(degenerate.any()):
        groups = [int(group) for group in degenerate.nonzero().flatten()[:5]]
        raise DegenerateGroupError(
            f"All {values.shape[-1]} particles of {int(degenerate.sum())} of {values.shape[0]} groups have weight zero"
            f"{context and ' ' + context} (groups {groups}); use a reward that is not -inf everywhere or more "
            "particles, or "
            f"set on_degenerate='keep' to go on with equal weights and log_z=-inf for these groups."
        )
    return values.masked_fill(degenerate.unsqueeze(-1), 0.0), degenerate


def _relative(log_weights: Tensor) -> Tensor:
    """Return `exp(log_weights - row maximum)`, zeros for a row of `-inf`."""
    check_matrix("log_weights", log_weights)
    values = as_float64(log_weights)
    peak = values.amax(dim=-1, keepdim=True)
    return (values - torch.where(torch.isfinite(peak), peak, torch.zeros_like(peak))).exp()

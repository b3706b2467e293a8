"""Correctors of Markov jump processes on finite states: reverse rates and the weight of exit rates.

A forward process jumps from x to y at rate A(x, y). An expert with law q_i reverses it with rates `A(y, x) q_i(y) /
q_i(x)`. The target `gamma = prod_i q_i^beta_i exp(rho)` is proposed with `A(y, x) gamma(y) / gamma(x)`, and weighed, in
time from noise to data and with `B = sum_i beta_i`, at the rate

    (B - 1) A_exit(x) + R_exit(x) - sum_i beta_i R_i,exit(x) + sum_i d(beta_i)/dt log q_i(x) + d(rho)/dt,

where `_exit` sums the rates to all other states. It is the counterpart of the divergences of continuous states.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def reverse_rates(forward: Float[Tensor, "s s"], log_law: Float[Tensor, " s"]) -> Float[Tensor, "s s"]:
    """Return the rates `A(y, x) law(y) / law(x)` of x to y, zero on the diagonal.

    Args:
        forward: A(x, y), the rates of x to y; the diagonal is ignored.
        log_law: log of a positive law, normalized or not.
    """
    if forward.ndim != 2 or forward.shape[0] != forward.shape[1] or log_law.shape != forward.shape[:1]:
        raise ValueError(
            f"expected shapes (s, s) and (s,), got forward {tuple(forward.shape)} and log_law {tuple(log_law.shape)}; "
            "pass the rates between all states."
        )
    rates = forward.transpose(0, 1) * (log_law.unsqueeze(0) - log_law.unsqueeze(1)).exp()
    return rates - torch.diag(rates.diagonal())


def exit_rates(rates: Float[Tensor, "s s"]) -> Float[Tensor, " s"]:
    """Return the sum of the rates out of each state."""
    return rates.sum(dim=1) - rates.diagonal()


def log_target(
    log_laws: Sequence[Float[Tensor, " s"]], exponents: Sequence[float], tilt: Float[Tensor, " s"] | None = None
) -> Float[Tensor, " s"]:
    """Return `sum_i beta_i log q_i + rho`."""
    total = torch.zeros_like(log_laws[0]) if tilt is None else tilt
    for exponent, log_law in zip(exponents, log_laws, strict=True):
        total = total + exponent * log_law
    return total


def exit_weight(
    forward: Float[Tensor, "s s"],
    log_laws: Sequence[Float[Tensor, " s"]],
    exponents: Sequence[float],
    *,
    exponent_rates: Sequence[float] | None = None,
    tilt: Float[Tensor, " s"] | None = None,
    tilt_rate: Float[Tensor, " s"] | None = None,
) -> Float[Tensor, " s"]:
    """Return the weight rate of each state under the rates of the target.

    Args:
        forward: A(x, y).
        log_laws: `log q_i`.
        exponents: `beta_i`.
        exponent_rates: their derivatives in time from noise to data; 0 if not given.
        tilt: `rho`, or None.
        tilt_rate: its derivative in time from noise to data; 0 if not given.
    """
    total = sum(exponents)
    proposed = reverse_rates(forward, log_target(log_laws, exponents, tilt))
    weight = (total - 1.0) * exit_rates(forward) + exit_rates(proposed)
    for exponent, log_law in zip(exponents, log_laws, strict=True):
        weight = weight - exponent * exit_rates(reverse_rates(forward, log_law))
    for change, log_law in zip(exponent_rates or (), log_laws, strict=exponent_rates is not None):
        weight = weight + change * log_law
    return weight if tilt_rate is None else weight + tilt_rate

"""Increments: what one step adds to the log weights, and what each of them needs.

===============  =================================================  ==================================================
increment        log weight of a step                               needs
===============  =================================================  ==================================================
Rate             the weight rate below, times the net interval      small steps; any zeta
KernelWeight     log normalizer of the combined reverse kernel      `ReverseKernel` with the forward variance
ExactRatio       `log gamma_s(x') K(x|x') / (gamma_t(x) F(x'|x))`   exact log densities, and a Gaussian kernel F
Uncorrected      0: the heuristic sampler                           nothing
===============  =================================================  ==================================================

The rate of a target `prod_i q_i^beta_i exp(rho)` with `B = sum_i beta_i`, per unit of time from noise to data, is

    (B - 1) div f + g^2/2 (|S_q|^2 - sum_i beta_i |s_i|^2) + sum_i d(beta_i)/dt log q_i
    + d(rho)/dt + <grad rho, g^2/2 S_q - f> + div c + <c, S>

for any drift control c. Divergences of scores cancel, whatever zeta is, and are nowhere estimated. It contains
propositions 3.1 to 3.4 and D.5 of arXiv 2503.02819.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.proposal import Move, Proposal
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target


class IncompatibleError(ValueError):
    """An increment that does not fit the proposal, the target or the control."""


class Increment(ABC):
    """A rule for the weight of a step; stateless."""

    needs_kernel = False
    """Whether the step has to be a draw from one Gaussian kernel."""

    def check(  # noqa: B027 (Uncorrected fits everything)
        self, target: Target, proposal: Proposal, control: Control | None
    ) -> None:
        """Raise an `IncompatibleError` if this increment is not right for these."""

    def needs_log_densities(self, changing: bool) -> bool:
        """Return whether `log q_i` at the start of each step is used; `changing` exponents need it by default."""
        return changing

    @abstractmethod
    def log_weight(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step, (B, K)."""


class Uncorrected(Increment):
    """No weights: the heuristic sampler, to compare with."""

    def needs_log_densities(self, changing: bool) -> bool:
        """Never."""
        return False

    def log_weight(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return zeros."""
        return zero_weights(move.x)


def zero_weights(x: Tensor) -> Float64[Tensor, "B K"]:
    """Return zeros (B, K) for samples (B, K, *event)."""
    return torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)


def exponent_change(target: Target, before: Evaluation, interval: Interval) -> Float64[Tensor, "B K"]:
    """Return `sum_i (beta_i(s) - beta_i(t)) log q_i(x, t)`."""
    result = zero_weights(before.x)
    changes = zip(target.exponents(interval.s), target.exponents(interval.t), strict=True)
    for number, (new, old) in enumerate(changes):
        if new != old:
            assert before.log_densities is not None
            result = result + (new - old) * before.log_densities[number]
    return result


def refuse_control(increment: Increment, control: Control | None) -> None:
    """Raise an `IncompatibleError` if there is a control."""
    if control is not None:
        raise IncompatibleError(
            f"expected no control with {type(increment).__name__}(), got {type(control).__name__}, which changes the "
            "process whose rate is weighted and needs Rate(); omit control=."
        )

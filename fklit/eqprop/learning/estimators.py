"""The response of a network to a nudge of its output: how equilibrium propagation gets its error vector.

The state obeys `s = act(H(s) + drive + beta f)` with `f = dL/ds`, so +beta increases the loss and
`e = ds/dbeta` at 0 is the neurons' error vector. It is measured on activities (not on their inputs), which makes
the Jacobian of a tied network symmetric.
"""

from typing import ClassVar

from fklit.eqprop.learning.linear_response import relax_response
from fklit.eqprop.learning.phases import (
    Arithmetic,
    check_arithmetic,
    complex_deviation,
    complex_phases,
    contour,
    real_phases,
)
from fklit.eqprop.learning.responses import Estimator, Force, Response, check_beta, collect, constant_force
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.eqprop.relaxation.settings import Relaxation


def _from_free(relaxation: Relaxation) -> Relaxation:
    """The relaxation of a phase that starts from the free state, whatever `start` says.

    Raises:
        ValueError: If it says something.
    """
    if relaxation.start != "zero":
        raise ValueError(
            f"expected no start for the relaxation of an estimator, whose phases start from the free state, got start="
            f"{relaxation.start!r}; give it to the network's free phase."
        )
    return relaxation


def nudged_relaxation(relaxation: Relaxation | None) -> Relaxation:
    """The relaxation of nudged phases, by default 20 iterations with tolerance 1e-6."""
    return Relaxation(max_iterations=20, tolerance=1e-6) if relaxation is None else _from_free(relaxation)


def _linear(relaxation: Relaxation | None) -> Relaxation:
    """The relaxation of linearized phases, by default at most 200 iterations with tolerance 1e-6."""
    return Relaxation(max_iterations=200, tolerance=1e-6) if relaxation is None else _from_free(relaxation)


class OneSided(Estimator):
    """`(s(beta) - s(0)) / beta`; error of order beta (Scellier & Bengio 2017).

    The residual of the free phase, divided by beta, is part of the answer; from two phases on it cancels.

    Args:
        beta: Size of the nudge.
        relaxation: Of the nudged phase; None for 20 iterations with tolerance 1e-6.
    """

    def __init__(self, beta: float = 0.1, *, relaxation: Relaxation | None = None) -> None:
        self.beta, self.relaxation = check_beta(beta), nudged_relaxation(relaxation)

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """One real phase."""
        return contour(network, equilibrium, force, num_phases=1, beta=self.beta, relaxation=self.relaxation)


class Symmetric(Estimator):
    """`(s(beta) - s(-beta)) / (2 beta)`; error of order beta squared (Laborieux et al. 2021), N = 2 of the paper.

    Args:
        beta: Size of the nudge.
        relaxation: Of the nudged phases, which run as one batch; None for 20 iterations with tolerance 1e-6.
    """

    def __init__(self, beta: float = 0.1, *, relaxation: Relaxation | None = None) -> None:
        self.beta, self.relaxation = check_beta(beta), nudged_relaxation(relaxation)

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """Two real phases."""
        return contour(network, equilibrium, force, num_phases=2, beta=self.beta, relaxation=self.relaxation)


class Cauchy(Estimator):
    """N points on a circle of complex nudges; error of order beta^N (Laborieux & Zenke 2022, 2024).

    Args:
        num_phases: N, at least 3.
        beta: Radius of the circle; must stay below the distance of the nearest singularity.
        arithmetic: `"split"` computes with real and imaginary halves stacked along the samples (faster),
            `"native"` with complex tensors.
        relaxation: Of the nudged phases; None for 20 iterations with tolerance 1e-6.
    """

    needs_holomorphic = True

    def __init__(
        self,
        num_phases: int = 4,
        beta: float = 0.2,
        *,
        arithmetic: Arithmetic = "split",
        relaxation: Relaxation | None = None,
    ) -> None:
        if num_phases < 3:
            raise ValueError(
                f"expected num_phases of at least 3, got num_phases={num_phases}; use OneSided (1) or Symmetric (2)."
            )
        check_arithmetic(arithmetic)
        self.num_phases, self.beta, self.arithmetic = num_phases, check_beta(beta), arithmetic
        self.relaxation = nudged_relaxation(relaxation)

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """One or two real phases as one batch, and a batch with one complex phase for each conjugate pair."""
        self.check(network)
        return contour(
            network,
            equilibrium,
            force,
            num_phases=self.num_phases,
            beta=self.beta,
            relaxation=self.relaxation,
            arithmetic=self.arithmetic,
        )


class ComplexStep(Estimator):
    """`Im s(i beta) / beta`: one complex phase, error of order beta squared, and no cancellation for tiny beta.

    Args:
        beta: Size of the nudge.
        arithmetic: As in `Cauchy`.
        relaxation: Of the nudged phase, with the residual of the imaginary parts; None for 20 iterations with tolerance
            `1e-6 beta`.
    """

    needs_holomorphic = True

    def __init__(
        self, beta: float = 1e-3, *, arithmetic: Arithmetic = "split", relaxation: Relaxation | None = None
    ) -> None:
        check_arithmetic(arithmetic)
        self.beta, self.arithmetic = check_beta(beta), arithmetic
        self.relaxation = (
            Relaxation(max_iterations=20, tolerance=1e-6 * beta) if relaxation is None else _from_free(relaxation)
        )

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """One complex phase."""
        self.check(network)
        field, start = complex_phases(network, equilibrium, force, [1j * self.beta], arithmetic=self.arithmetic)
        result = relax(field, start, self.relaxation, imaginary=True)
        deviations = complex_deviation(result.state, equilibrium.state, 1)
        return collect(tuple(part[0].imag / self.beta for part in deviations), (result,), len(equilibrium.x))


class _Linear(Estimator):
    """A relaxation of the linearized network.

    Args:
        relaxation: Of the linear iteration; None for at most 200 iterations with tolerance 1e-6.
    """

    linearizes = True
    low_precision = True
    transposed: ClassVar[bool]

    def __init__(self, *, relaxation: Relaxation | None = None) -> None:
        self.relaxation = _linear(relaxation)

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """The fixed point of the linear iteration."""
        constant = constant_force(network, equilibrium, force)
        result = relax_response(network, equilibrium, constant, self.relaxation, transposed=self.transposed)
        return collect(result.state, (result,), len(equilibrium.x))


class ExactResponse(_Linear):
    """`ds/dbeta` for an infinitesimal nudge, by forward-mode derivatives ("N = 0" of the paper).

    Args:
        relaxation: Of the linear iteration; None for at most 200 iterations with tolerance 1e-6.
    """

    transposed = False


class RecurrentBackprop(_Linear):
    """The true error vector, by the transposed linear iteration (Almeida 1987, Pineda 1987); not local.

    Args:
        relaxation: Of the linear iteration; None for at most 200 iterations with tolerance 1e-6.
    """

    transposed = True


class CorrectedNudge(Estimator):
    """`Symmetric` with deviations propagated by the transposed derivative; unbiased without symmetry.

    A control (AsymEP, arXiv 2602.03670): the nudged phase uses transposed weights, so it is not local.

    Args:
        beta: Size of the nudge.
        relaxation: Of the nudged phases; None for at most 200 iterations with tolerance 1e-6.
    """

    linearizes = True

    def __init__(self, beta: float = 0.1, *, relaxation: Relaxation | None = None) -> None:
        self.beta, self.relaxation = check_beta(beta), _linear(relaxation)

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """Two real phases."""
        betas = [self.beta, -self.beta]
        field, start = real_phases(network, equilibrium, force, betas, corrected=True)
        result = relax(field, start, self.relaxation)
        pairs = (part.view(2, *free.shape) for part, free in zip(result.state, equilibrium.state, strict=True))
        error = tuple((pair[0] - pair[1]) / (2 * self.beta) for pair in pairs)
        return collect(error, (result,), len(equilibrium.x))

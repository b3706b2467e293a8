"""The response of a network to a nudge of its output: how equilibrium propagation gets its error vector.

The state obeys ``s = act(H(s) + drive + beta f)`` with ``f = dL/ds``, so +beta pushes the loss up and
``e = ds/dbeta`` at 0 is the neurons' error vector. It is measured on activities (not on their inputs), which makes
the Jacobian of a tied network symmetric.
"""

import cmath
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from fklit.eqprop.dynamics import Field, Relaxation, Settled, settle
from fklit.eqprop.fields import CorrectedField, NetworkField, ResponseField
from fklit.eqprop.nudges import LiveForce, Nudge
from fklit.eqprop.state import State, blank_rows, halves, per_row, repeat_rows, split_complex

if TYPE_CHECKING:
    from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork

Force = State | Nudge
"""A constant nudge of each population, or a loss that is followed along the trajectory."""

Arithmetic = Literal["split", "native"]


@dataclass(frozen=True)
class Response:
    """What a nudge did.

    Attributes:
        error: Error vector of each population, ``(samples, *shape)``, real; zero for samples that diverged.
        reports: The relaxations behind it; rows are phase after phase of all samples.
        diverged: Samples of which a phase diverged.
        point: Activities at which weights are to be credited, if not the free equilibrium.
    """

    error: State
    reports: tuple[Settled, ...]
    diverged: Bool[Tensor, " samples"]
    point: State | None = None


class Estimator(ABC):
    """Measures the response to a nudge at a free equilibrium."""

    needs_holomorphic: ClassVar[bool] = False

    @abstractmethod
    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """Return the error vector.

        Args:
            network: The network.
            equilibrium: Its free equilibrium.
            force: Derivative of each sample's loss with respect to the activities of every population, or a loss.
        """


def check_beta(beta: float) -> float:
    """Return beta if it is above 0.

    Raises:
        ValueError: Otherwise.
    """
    if not beta > 0:
        raise ValueError(f"beta={beta} was given; it is the size of the nudge and must be above 0.")
    return beta


def check_arithmetic(arithmetic: str) -> None:
    """Accept the two kinds of complex arithmetic.

    Raises:
        ValueError: For anything else.
    """
    if arithmetic not in ("split", "native"):
        raise ValueError(f"arithmetic={arithmetic!r} was given; give 'split' or 'native'.")


def finish(error: State, reports: tuple[Settled, ...], samples: int, point: State | None = None) -> Response:
    """Collect which samples diverged in a phase and set their error to zero."""
    diverged = torch.stack([report.diverged.view(-1, samples).any(0) for report in reports]).any(0)
    clean = tuple(blank_rows(diverged, part) for part in error)
    return Response(clean, reports, diverged, point)


def constant_force(network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> State:
    """The force as a state: a loss is evaluated at the free equilibrium."""
    if not isinstance(force, Nudge):
        return force
    out = equilibrium.state[network.output]
    pull = force.force(network, out)
    return tuple(pull if i == network.output else torch.zeros_like(s) for i, s in enumerate(equilibrium.state))


def real_phases(
    network: "EquilibriumNetwork",
    equilibrium: "Equilibrium",
    force: Force,
    betas: list[float],
    *,
    corrected: bool = False,
) -> tuple[Field, State]:
    """The nudged network at several real betas, stacked along the samples, and the state to start from."""
    count, samples = len(betas), len(equilibrium.x)
    rows = equilibrium.x.new_tensor(betas).repeat_interleave(samples)
    drive = repeat_rows(equilibrium.drive, count)
    live = None
    if isinstance(force, Nudge):
        live = LiveForce(network, force.repeated(count), rows)
    else:
        pulls = repeat_rows(force, count)
        drive = tuple(part + per_row(rows, part) * pull for part, pull in zip(drive, pulls, strict=True))
    start = repeat_rows(equilibrium.state, count)
    if corrected:
        return CorrectedField(network, start, drive, live=live), start
    return NetworkField(network, drive, live=live), start


def complex_phases(
    network: "EquilibriumNetwork",
    equilibrium: "Equilibrium",
    force: Force,
    betas: list[complex],
    *,
    arithmetic: Arithmetic,
) -> tuple[Field, State]:
    """The nudged network at several complex betas, as :func:`real_phases`, with a split or a complex state."""
    count, samples = len(betas), len(equilibrium.x)
    complex_dtype = equilibrium.x.dtype.to_complex()
    rows = torch.tensor(betas, dtype=complex_dtype, device=equilibrium.x.device).repeat_interleave(samples)
    drive = tuple(part.to(complex_dtype) for part in repeat_rows(equilibrium.drive, count))
    live = None
    split = arithmetic == "split"
    if isinstance(force, Nudge):
        live = LiveForce(network, force.repeated(count), rows, split=split)
    else:
        pulls = repeat_rows(force, count)
        drive = tuple(part + per_row(rows, part) * pull for part, pull in zip(drive, pulls, strict=True))
    start = tuple(part.to(complex_dtype) for part in repeat_rows(equilibrium.state, count))
    if split:
        drive, start = tuple(map(split_complex, drive)), tuple(map(split_complex, start))
    return NetworkField(network, drive, split=split, live=live), start


def complex_deviation(state: State, free: State, count: int) -> list[Tensor]:
    """``s - s0`` of each population as complex numbers ``(phases, samples, *shape)``."""
    parts = []
    for part, origin in zip(state, free, strict=True):
        values = part if part.is_complex() else torch.complex(*halves(part))
        parts.append(values.view(count, *origin.shape) - origin)
    return parts


def contour(
    network: "EquilibriumNetwork",
    equilibrium: "Equilibrium",
    force: Force,
    *,
    num_phases: int,
    beta: float,
    relaxation: Relaxation,
    arithmetic: Arithmetic = "split",
) -> Response:
    """``e_N = 1/N sum_k (s(beta_k) - s0) / beta_k`` over the N-th roots ``beta_k = beta exp(2 pi i k / N)``.

    s0 is the free state; for N > 1 it drops out, as the roots' inverses add up to 0. For real networks conjugate betas
    give conjugate states: those on the real axis run as real phases, of each other pair only one runs.
    """
    samples, free = len(equilibrium.x), equilibrium.state
    reports = []
    real = [beta, -beta] if num_phases % 2 == 0 else [beta]
    field, start = real_phases(network, equilibrium, force, real)
    report = settle(field, start, relaxation)
    reports.append(report)
    total = []
    for part, origin in zip(report.state, free, strict=True):
        deviations = part.view(len(real), *origin.shape) - origin
        total.append(sum((d / b for d, b in zip(deviations, real, strict=True)), torch.zeros_like(origin)))
    turns = [k / num_phases for k in range(1, (num_phases + 1) // 2)]
    if turns:
        betas = [beta * cmath.exp(2j * cmath.pi * turn) for turn in turns]
        field, start = complex_phases(network, equilibrium, force, betas, arithmetic=arithmetic)
        report = settle(field, start, relaxation)
        reports.append(report)
        for i, deviations in enumerate(complex_deviation(report.state, free, len(betas))):
            for deviation, b in zip(deviations, betas, strict=True):
                total[i] = total[i] + 2 * (deviation / b).real
    return finish(tuple(part / num_phases for part in total), tuple(reports), samples)


def _nudged(relaxation: Relaxation | None) -> Relaxation:
    return Relaxation(max_steps=20, tolerance=1e-6) if relaxation is None else relaxation


class OneSided(Estimator):
    """``(s(beta) - s(0)) / beta``; error of order beta (Scellier & Bengio 2017).

    Args:
        beta: Size of the nudge.
        relaxation: Of the nudged phase; None for 20 sweeps with tolerance 1e-6.
    """

    def __init__(self, beta: float = 0.1, *, relaxation: Relaxation | None = None) -> None:
        self.beta, self.relaxation = check_beta(beta), _nudged(relaxation)

    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """One real phase."""
        return contour(network, equilibrium, force, num_phases=1, beta=self.beta, relaxation=self.relaxation)


class Symmetric(Estimator):
    """``(s(beta) - s(-beta)) / (2 beta)``; error of order beta squared (Laborieux et al. 2021), N = 2 of the paper.

    Args:
        beta: Size of the nudge.
        relaxation: Of the nudged phases, which run as one batch; None for 20 sweeps with tolerance 1e-6.
    """

    def __init__(self, beta: float = 0.1, *, relaxation: Relaxation | None = None) -> None:
        self.beta, self.relaxation = check_beta(beta), _nudged(relaxation)

    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """Two real phases."""
        return contour(network, equilibrium, force, num_phases=2, beta=self.beta, relaxation=self.relaxation)


class Cauchy(Estimator):
    """N points on a circle of complex nudges; error of order beta^N (Laborieux & Zenke 2022, 2024).

    Args:
        num_phases: N, at least 3.
        beta: Radius of the circle; must stay below the distance of the nearest singularity.
        arithmetic: ``"split"`` computes with real and imaginary halves stacked along the samples (faster),
            ``"native"`` with complex tensors.
        relaxation: Of the nudged phases; None for 20 sweeps with tolerance 1e-6.
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
            raise ValueError(f"num_phases={num_phases} was given; it is at least 3 (OneSided is 1, Symmetric 2).")
        check_arithmetic(arithmetic)
        self.num_phases, self.beta, self.arithmetic = num_phases, check_beta(beta), arithmetic
        self.relaxation = _nudged(relaxation)

    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """One or two real phases as one batch, and a batch with one complex phase for each conjugate pair."""
        network.check_estimator(self)
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
    """``Im s(i beta) / beta``: one complex phase, error of order beta squared, and no cancellation for tiny beta.

    Args:
        beta: Size of the nudge.
        arithmetic: As in :class:`Cauchy`.
        relaxation: Of the nudged phase, judged by the imaginary parts; None for 20 sweeps with tolerance ``1e-6 beta``.
    """

    needs_holomorphic = True

    def __init__(
        self, beta: float = 1e-3, *, arithmetic: Arithmetic = "split", relaxation: Relaxation | None = None
    ) -> None:
        check_arithmetic(arithmetic)
        self.beta, self.arithmetic = check_beta(beta), arithmetic
        self.relaxation = Relaxation(max_steps=20, tolerance=1e-6 * beta) if relaxation is None else relaxation

    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """One complex phase."""
        network.check_estimator(self)
        field, start = complex_phases(network, equilibrium, force, [1j * self.beta], arithmetic=self.arithmetic)
        report = settle(field, start, self.relaxation, imaginary=True)
        deviations = complex_deviation(report.state, equilibrium.state, 1)
        return finish(tuple(part[0].imag / self.beta for part in deviations), (report,), len(equilibrium.x))


class _Linear(Estimator):
    """A relaxation of the linearised network.

    Args:
        relaxation: Of the linear iteration; None for 60 sweeps with tolerance 1e-6.
    """

    transposed: ClassVar[bool]

    def __init__(self, *, relaxation: Relaxation | None = None) -> None:
        self.relaxation = Relaxation(max_steps=60, tolerance=1e-6) if relaxation is None else relaxation

    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """The fixed point of the linear iteration."""
        pull = constant_force(network, equilibrium, force)
        field = ResponseField(network, equilibrium.state, equilibrium.drive, pull, transposed=self.transposed)
        start = tuple(torch.zeros_like(part) for part in equilibrium.state)
        report = settle(field, start, self.relaxation)
        return finish(report.state, (report,), len(equilibrium.x))


class ExactResponse(_Linear):
    """``ds/dbeta`` for an infinitesimal nudge, by forward-mode derivatives ("N = 0" of the paper).

    Args:
        relaxation: Of the linear iteration; None for 60 sweeps with tolerance 1e-6.
    """

    transposed = False


class RecurrentBackprop(_Linear):
    """The true error vector, by the transposed linear iteration (Almeida 1987, Pineda 1987); not local.

    Args:
        relaxation: Of the linear iteration; None for 60 sweeps with tolerance 1e-6.
    """

    transposed = True


class CorrectedNudge(Estimator):
    """:class:`Symmetric` with deviations sent along the transposed derivative; unbiased without symmetry.

    A control (AsymEP, arXiv 2602.03670): the nudged phase is given weights it does not have, so it is not local.

    Args:
        beta: Size of the nudge.
        relaxation: Of the nudged phases; None for 20 sweeps with tolerance 1e-6.
    """

    def __init__(self, beta: float = 0.1, *, relaxation: Relaxation | None = None) -> None:
        self.beta, self.relaxation = check_beta(beta), _nudged(relaxation)

    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """Two real phases."""
        betas = [self.beta, -self.beta]
        field, start = real_phases(network, equilibrium, force, betas, corrected=True)
        report = settle(field, start, self.relaxation)
        pairs = (part.view(2, *free.shape) for part, free in zip(report.state, equilibrium.state, strict=True))
        error = tuple((pair[0] - pair[1]) / (2 * self.beta) for pair in pairs)
        return finish(error, (report,), len(equilibrium.x))

"""Nudged phases: stacked along the samples, real or complex, and the contour of N of them."""

import cmath
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from fklit.eqprop.dynamics import Field, Relaxation, settle
from fklit.eqprop.fields import CorrectedField, NetworkField
from fklit.eqprop.nudges import LiveForce, Nudge
from fklit.eqprop.responses import Force, Response, finish
from fklit.eqprop.state import State, halves, per_row, repeat_rows, split_complex

if TYPE_CHECKING:
    from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork

Arithmetic = Literal["split", "native"]


def check_arithmetic(arithmetic: str) -> None:
    """Accept the two kinds of complex arithmetic.

    Raises:
        ValueError: For anything else.
    """
    if arithmetic not in ("split", "native"):
        raise ValueError(f"arithmetic={arithmetic!r} was given; give 'split' or 'native'.")


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

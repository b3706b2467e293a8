"""Nudged phases, stacked along the samples, real or complex, and the contour of N of them."""

import cmath
from typing import Literal

import torch
from torch import Tensor

from fklit.eqprop.learning.nudges import Nudge, NudgeForce
from fklit.eqprop.learning.responses import Force, Response, collect
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, join_complex, per_row, repeat_rows, split_complex
from fklit.eqprop.relaxation.fields import CorrectedField, NetworkField
from fklit.eqprop.relaxation.iteration import Field
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.eqprop.relaxation.settings import Relaxation

Arithmetic = Literal["split", "native"]


def check_arithmetic(arithmetic: str) -> None:
    """Accept the two kinds of complex arithmetic.

    Raises:
        ValueError: For anything else.
    """
    if arithmetic not in ("split", "native"):
        raise ValueError(f"expected arithmetic 'split' or 'native', got arithmetic={arithmetic!r}.")


def real_phases(
    network: RecurrentNetwork,
    equilibrium: Equilibrium,
    force: Force,
    betas: list[float],
    *,
    corrected: bool = False,
) -> tuple[Field, State]:
    """The network nudged with several real betas, stacked along the samples.

    Args:
        network: The network.
        equilibrium: Its free equilibrium.
        force: A constant nudge or a loss.
        betas: One for each phase.
        corrected: Whether deviations propagate by the transposed derivative.

    Returns:
        The field, and the state to start from.
    """
    count, samples = len(betas), len(equilibrium.x)
    rows = equilibrium.x.new_tensor(betas).repeat_interleave(samples)
    drive = repeat_rows(equilibrium.drive, count)
    output_force = None
    if isinstance(force, Nudge):
        output_force = NudgeForce(network, force.repeated(count), rows)
    else:
        drive = _nudged(drive, repeat_rows(force, count), rows)
    start = repeat_rows(equilibrium.state, count)
    if corrected:
        return CorrectedField(network, start, drive, force=output_force), start
    return NetworkField(network, drive, force=output_force), start


def complex_phases(
    network: RecurrentNetwork,
    equilibrium: Equilibrium,
    force: Force,
    betas: list[complex],
    *,
    arithmetic: Arithmetic,
) -> tuple[Field, State]:
    """The network nudged with several complex betas, as `real_phases`, with a split or a complex state."""
    count, samples = len(betas), len(equilibrium.x)
    complex_dtype = equilibrium.x.dtype.to_complex()
    rows = torch.tensor(betas, dtype=complex_dtype, device=equilibrium.x.device).repeat_interleave(samples)
    drive = tuple(part.to(complex_dtype) for part in repeat_rows(equilibrium.drive, count))
    output_force = None
    split = arithmetic == "split"
    if isinstance(force, Nudge):
        output_force = NudgeForce(network, force.repeated(count), rows, split=split)
    else:
        drive = _nudged(drive, repeat_rows(force, count), rows)
    start = tuple(part.to(complex_dtype) for part in repeat_rows(equilibrium.state, count))
    if split:
        drive, start = tuple(map(split_complex, drive)), tuple(map(split_complex, start))
    return NetworkField(network, drive, split=split, force=output_force), start


def _nudged(drive: State, force: State, betas: Tensor) -> State:
    """`drive + beta f`, with one beta for each row."""
    return tuple(part + per_row(betas, part) * f for part, f in zip(drive, force, strict=True))


def complex_deviation(state: State, free: State, count: int) -> list[Tensor]:
    """`s - s0` of each layer as complex numbers `(phases, samples, *shape)`."""
    parts = []
    for part, origin in zip(state, free, strict=True):
        values = part if part.is_complex() else join_complex(part)
        parts.append(values.view(count, *origin.shape) - origin)
    return parts


def contour(
    network: RecurrentNetwork,
    equilibrium: Equilibrium,
    force: Force,
    *,
    num_phases: int,
    beta: float,
    relaxation: Relaxation,
    arithmetic: Arithmetic = "split",
) -> Response:
    """`e_N = 1/N sum_k (s(beta_k) - s0) / beta_k` over the N-th roots `beta_k = beta exp(2 pi i k / N)`.

    s0 is the free state; for N > 1 it drops out, as the roots' inverses add up to 0. For real networks conjugate betas
    give conjugate states: those on the real axis run as real phases, of each other pair only one runs.

    Args:
        network: The network.
        equilibrium: Its free equilibrium.
        force: A constant nudge or a loss.
        num_phases: N.
        beta: Radius of the circle.
        relaxation: Of the phases.
        arithmetic: Of the complex phases.
    """
    samples, free = len(equilibrium.x), equilibrium.state
    real = [beta, -beta] if num_phases % 2 == 0 else [beta]
    field, start = real_phases(network, equilibrium, force, real)
    results = [relax(field, start, relaxation)]
    total = []
    for part, origin in zip(results[0].state, free, strict=True):
        deviations = part.view(len(real), *origin.shape) - origin
        total.append(sum((d / b for d, b in zip(deviations, real, strict=True)), torch.zeros_like(origin)))
    turns = [k / num_phases for k in range(1, (num_phases + 1) // 2)]  # of the roots above the real axis
    if turns:
        betas = [beta * cmath.exp(2j * cmath.pi * turn) for turn in turns]
        field, start = complex_phases(network, equilibrium, force, betas, arithmetic=arithmetic)
        results.append(relax(field, start, relaxation))
        for i, deviations in enumerate(complex_deviation(results[1].state, free, len(betas))):
            for deviation, b in zip(deviations, betas, strict=True):
                total[i] = total[i] + 2 * (deviation / b).real
    return collect(tuple(part / num_phases for part in total), tuple(results), samples)

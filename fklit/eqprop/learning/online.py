"""The continuous-time estimate: the nudge oscillates slowly around zero, and two running averages are all it keeps."""

import cmath

import torch
from torch import Tensor

from fklit.eqprop.learning.phases import complex_deviation, complex_phases
from fklit.eqprop.learning.responses import Estimator, Force, Response, check_beta, collect
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import pick_rows, scale_rows
from fklit.eqprop.relaxation.iteration import change_of
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import Equilibrium, RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation


class Online(Estimator):
    """Averages over a slowly oscillating nudge (Laborieux & Zenke 2022, section 3.3).

    The average of `s / beta` is the error vector, and the average of s itself is the free state (mean-value property),
    at which the local gradients are taken: `Response.gradient_state`. The oscillation must be slow compared to the
    relaxation.

    Args:
        num_phases: Points on a period of the oscillation.
        beta: Radius.
        iterations_per_phase: Iterations at each point.
        num_periods: Periods averaged over, transients included.
        from_zero: Start from activities of zero as the published code does, instead of the free state.
        tolerance: Iterations may be left out where that changes the averages by about as much (by more for samples that
            converge slowly): a sample waits for the next point once no activity changes by more in an iteration, and
            its last period stands for those that are left if these would not move an activity by more at its change a
            period. 0 runs all iterations; 1e-6 is for float32.
        relaxation: Order, rate and bound of the iterations; its tolerance and number of iterations are not used. None
            for undamped sequential updates.

    Raises:
        ValueError: If a number is out of range, or the relaxation is accelerated.
    """

    needs_holomorphic = True

    def __init__(
        self,
        num_phases: int = 4,
        beta: float = 0.2,
        *,
        iterations_per_phase: int = 20,
        num_periods: int = 1,
        from_zero: bool = False,
        tolerance: float = 0.0,
        relaxation: Relaxation | None = None,
    ) -> None:
        if num_phases < 3 or iterations_per_phase < 1 or num_periods < 1:
            raise ValueError(
                f"expected num_phases of at least 3, iterations_per_phase and num_periods of at least 1, got "
                f"num_phases={num_phases}, iterations_per_phase={iterations_per_phase}, num_periods={num_periods}."
            )
        self.num_phases, self.beta, self.num_periods, self.from_zero = (
            num_phases,
            check_beta(beta),
            num_periods,
            from_zero,
        )
        self.iterations_per_phase = iterations_per_phase
        self.tolerance = tolerance  # also that of the relaxation; checkpoints keep every argument
        base = Relaxation() if relaxation is None else relaxation
        if base.anderson_window or base.start != "zero":
            raise ValueError(
                "expected neither anderson_window nor start in the relaxation of Online, which averages over the plain "
                f"iterations, got anderson_window={base.anderson_window} and start={base.start!r}; leave them out."
            )
        self.relaxation = Relaxation(
            max_iterations=iterations_per_phase, tolerance=tolerance, order=base.order, rate=base.rate, bound=base.bound
        )

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """One complex trajectory through all phases."""
        self.check(network)
        betas = [self.beta * cmath.exp(2j * cmath.pi * k / self.num_phases) for k in range(self.num_phases)]
        phases = [complex_phases(network, equilibrium, force, [beta], arithmetic="split") for beta in betas]
        fields, state = [field for field, _ in phases], phases[0][1]
        if self.from_zero:
            state = tuple(torch.zeros_like(part) for part in state)
        free, samples = equilibrium.state, len(equilibrium.x)
        error = [torch.zeros_like(part) for part in free]
        mean = [torch.zeros_like(part) for part in free]
        results: list[RelaxationResult] = []
        going = torch.arange(samples, device=equilibrium.x.device)  # samples that are still iterated
        for period in range(self.num_periods):
            origin, before = pick_rows(free, going), state
            errors = [torch.zeros_like(part) for part in origin]
            means = [torch.zeros_like(part) for part in origin]
            for field, beta in zip(fields, betas, strict=True):
                result = relax(field, state, self.relaxation)
                state = result.state
                results.append(_of_all(result, going, results[-self.num_phases] if period else None, samples))
                for i, deviation in enumerate(complex_deviation(state, origin, 1)):
                    errors[i] += (deviation[0] / beta).real
                    means[i] += deviation[0].real + origin[i]
            left = self.num_periods - period  # periods that this one stands for if the rest repeat it
            repeating = left * change_of(state, before, 2) < self.tolerance
            if period == 0:  # its start is not on the oscillation
                repeating = torch.zeros_like(repeating)
            weights = torch.where(repeating, left, 1)
            for total, part in zip((*error, *mean), scale_rows((*errors, *means), weights), strict=True):
                total[going] += part
            if repeating.all():
                break
            if repeating.any():
                chosen = (~repeating).nonzero().squeeze(1)
                state = pick_rows(state, torch.cat([chosen, chosen + len(going)]))
                fields, going = [field.select(chosen) for field in fields], going[chosen]
        count = self.num_phases * self.num_periods
        averages = [tuple(part / count for part in parts) for parts in (error, mean)]
        return collect(averages[0], tuple(results), samples, averages[1])


def _of_all(result: RelaxationResult, going: Tensor, before: RelaxationResult | None, samples: int) -> RelaxationResult:
    """The result of a phase for all samples: those that are not iterated repeat the one of a period before."""
    if before is None or len(going) == samples:
        return result
    state = tuple(part.clone() for part in before.state)
    for whole, part in zip(state, result.state, strict=True):
        whole[torch.cat([going, going + samples])] = part
    rows = {"iterations": torch.zeros_like(before.iterations)}
    for name in ("residual", "converged", "diverged", "period_two"):
        rows[name] = getattr(before, name).clone()
    for name, whole in rows.items():
        whole[going] = getattr(result, name)
    return RelaxationResult(state, **rows)

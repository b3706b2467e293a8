"""The continuous-time estimate: the nudge oscillates slowly around zero, and two running averages are all it keeps."""

import cmath

import torch

from fklit.eqprop.learning.oscillation import oscillate
from fklit.eqprop.learning.phases import complex_deviation, complex_phases
from fklit.eqprop.learning.responses import Estimator, Force, Response, check_beta, collect
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.relaxation.result import Equilibrium
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
            converge slowly): a sample goes on to the next point once no activity changes by more in an iteration, and
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
        start = phases[0][1]
        if self.from_zero:
            start = tuple(torch.zeros_like(part) for part in start)
        results = oscillate([field for field, _ in phases], start, self.relaxation, self.num_periods)
        free, total = equilibrium.state, self.num_phases * self.num_periods
        error = [torch.zeros_like(part) for part in free]
        mean = [torch.zeros_like(part) for part in free]
        for at, result in enumerate(results):
            # One of the last period stands for itself and for those of the periods that are left
            last = at + self.num_phases >= len(results)
            times = (total - 1 - at) // self.num_phases + 1 if last else 1
            for i, (deviation,) in enumerate(complex_deviation(result.state, free, 1)):
                error[i] += times / total * (deviation / betas[at % self.num_phases]).real
                mean[i] += times / total * (deviation.real + free[i])
        return collect(tuple(error), tuple(results), len(equilibrium.x), tuple(mean))

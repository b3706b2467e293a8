"""The continuous-time estimate: the nudge turns slowly around zero, and two running averages are all that is kept."""

import cmath
from typing import TYPE_CHECKING

import torch

from fklit.eqprop.dynamics import Relaxation, settle
from fklit.eqprop.phases import complex_deviation, complex_phases
from fklit.eqprop.responses import Estimator, Force, Response, check_beta, finish

if TYPE_CHECKING:
    from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork


class Online(Estimator):
    """Averages over a slowly turning nudge (Laborieux & Zenke 2022, section 3.3).

    The average of ``s / beta`` is the error vector, and the average of s itself is the free state (mean-value
    property), at which the weights are credited: :attr:`Response.point`. The turning must be slow compared to settling.

    Args:
        num_phases: Stops on a turn.
        beta: Radius.
        steps_per_phase: Sweeps at each stop.
        turns: Turns averaged over, transients included.
        from_zero: Start from activities of zero as the published code does, instead of the free state.
        relaxation: Order, rate and bound of the sweeps; its tolerance and number of steps are not used. None for
            plain sweeps.
    """

    needs_holomorphic = True

    def __init__(
        self,
        num_phases: int = 4,
        beta: float = 0.2,
        *,
        steps_per_phase: int = 20,
        turns: int = 1,
        from_zero: bool = False,
        relaxation: Relaxation | None = None,
    ) -> None:
        if num_phases < 3 or steps_per_phase < 1 or turns < 1:
            raise ValueError(
                f"num_phases={num_phases}, steps_per_phase={steps_per_phase}, turns={turns} were given; at least 3, 1 "
                "and 1 are needed."
            )
        self.num_phases, self.beta, self.turns, self.from_zero = num_phases, check_beta(beta), turns, from_zero
        base = Relaxation() if relaxation is None else relaxation
        self.relaxation = Relaxation(
            max_steps=steps_per_phase, tolerance=0.0, order=base.order, rate=base.rate, bound=base.bound
        )

    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """One complex trajectory through all phases."""
        network.check_estimator(self)
        free = equilibrium.state
        state: tuple[torch.Tensor, ...] | None = None
        error = [torch.zeros_like(part) for part in free]
        mean = [torch.zeros_like(part) for part in free]
        reports = []
        count = self.num_phases * self.turns
        for k in range(count):
            beta = self.beta * cmath.exp(2j * cmath.pi * k / self.num_phases)
            field, start = complex_phases(network, equilibrium, force, [beta], arithmetic="split")
            if state is None:
                state = tuple(torch.zeros_like(part) for part in start) if self.from_zero else start
            report = settle(field, state, self.relaxation)
            reports.append(report)
            state = report.state
            for i, deviation in enumerate(complex_deviation(state, free, 1)):
                error[i] += (deviation[0] / beta).real / count
                mean[i] += (deviation[0].real + free[i]) / count
        return finish(tuple(error), tuple(reports), len(equilibrium.x), tuple(mean))

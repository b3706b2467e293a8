"""Centered equilibrium propagation: the contrast of two opposite nudges, without the free state."""

from fklit.eqprop.learning.estimators import nudged_relaxation
from fklit.eqprop.learning.phases import real_phases
from fklit.eqprop.learning.responses import Estimator, Force, Response, check_beta, collect
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.relaxation.relax import relax
from fklit.eqprop.relaxation.result import Equilibrium
from fklit.eqprop.relaxation.settings import Relaxation


class Centered(Estimator):
    """Centered EP (C-EP): nudges of beta and -beta, contrasted (Laborieux et al. 2021; Scellier et al. 2023).

    The error vector is that of `Symmetric`, `(s(beta) - s(-beta)) / (2 beta)`. The activities that it meets are the
    mean of both nudged states instead of the free state, so that the gradient of tied dense and of tied unpooled
    convolutional weights is the published contrast `(dPhi/dw(s(beta)) - dPhi/dw(s(-beta))) / (2 beta)` of the energy,
    exactly; with pooling up to a term of order beta squared, as is the error of both.

    Args:
        beta: Size of the nudges.
        relaxation: Of the nudged phases, which run as one batch; None for 20 iterations with tolerance 1e-6.
    """

    def __init__(self, beta: float = 0.1, *, relaxation: Relaxation | None = None) -> None:
        self.beta, self.relaxation = check_beta(beta), nudged_relaxation(relaxation)

    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """Two real phases."""
        field, start = real_phases(network, equilibrium, force, [self.beta, -self.beta])
        result = relax(field, start, self.relaxation)
        pairs = [part.chunk(2) for part in result.state]
        error = tuple((up - down) / (2 * self.beta) for up, down in pairs)
        mean = tuple((up + down) / 2 for up, down in pairs)
        return collect(error, (result,), len(equilibrium.x), mean)

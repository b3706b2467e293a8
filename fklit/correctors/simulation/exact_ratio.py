"""The exact ratio of target and kernels as an increment."""

import math

from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.increment import IncompatibleError, Increment, refuse_control, zero_weights
from fklit.correctors.simulation.proposal import Move, Proposal
from fklit.correctors.targets.dispersion import inner
from fklit.correctors.targets.target import Target


class ExactRatio(Increment):
    """`log gamma_s(x') - log gamma_t(x) + log K(x | x') - log F(x' | x)`: unbiased at any step size."""

    needs_kernel = True

    def check(self, target: Target, proposal: Proposal, control: Control | None) -> None:
        """Refuse targets without exact densities and proposals without one."""
        if not target.has_log_densities:
            raise IncompatibleError(
                "ExactRatio() needs log_density(x, t) of every expert, but one has none; use Rate() or KernelWeight(), "
                "which need scores."
            )
        if not proposal.has_kernel:
            raise IncompatibleError(
                f"ExactRatio() needs the density of the step, but {proposal!r} has none; use EulerMaruyama with noise "
                "or ReverseKernel."
            )
        refuse_control(self, control)

    def needs_log_densities(self, changing: bool) -> bool:
        """Always."""
        return True

    def log_weight(self, target: Target, move: Move) -> Float64[Tensor, "B K"]:
        """Return the log weight of a step."""
        before, interval = move.before, move.interval
        if move.mean is None or move.variance is None:
            raise IncompatibleError(
                f"expected a step with noise, got one without from t={interval.t:g} to {interval.s:g}, whose exact "
                "ratio is undefined; end the grid where noise is left."
            )
        assert before.log_densities is not None
        dim = before.x[0, 0].numel()
        pairs = zip(before.exponents, before.log_densities, strict=True)
        log_gamma = sum((exponent * density for exponent, density in pairs), zero_weights(before.x))
        if before.tilt is not None:
            log_gamma = log_gamma + before.tilt
        forward = _log_gaussian(before.x - interval.ratio * move.x, interval.variance, dim)
        reverse = _log_gaussian(move.x - move.mean, move.variance, dim)
        return target.log_gamma(move.x, interval.s) - log_gamma + forward - reverse


def _log_gaussian(deviation: Tensor, variance: float, dim: int) -> Tensor:
    return -0.5 * inner(deviation, deviation) / variance - 0.5 * dim * math.log(2 * math.pi * variance)

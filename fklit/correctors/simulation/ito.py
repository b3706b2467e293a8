"""Ito estimates of the experts' log densities, carried along each path where experts have none."""

from torch import Tensor

from fklit.correctors.simulation.initial import noised_gaussian
from fklit.correctors.simulation.proposal import Proposal
from fklit.correctors.targets.dispersion import inner
from fklit.correctors.targets.evaluation import Evaluation
from fklit.correctors.targets.paths.noise_path import Interval
from fklit.correctors.targets.target import Target


def initial_log_densities(target: Target, x: Tensor, t: float) -> tuple[Tensor, ...]:
    """Return `log q_i` at the noise end, each (B, K): exact, or that of a Gaussian of the expert's moments."""
    if target.has_log_densities:
        return target.log_densities(x, t)
    return tuple(noised_gaussian(expert, target.path, t).log_density(x) for expert in target.experts)


def carry_log_densities(
    before: Evaluation, log_densities: tuple[Tensor, ...], interval: Interval, new: Tensor
) -> tuple[Tensor, ...]:
    """Return the Ito estimates of `log q_i` after a step with zeta = 1, whatever its drift was.

    `d log q_i = <s_i, dx> + (div f + <f, s_i> - g^2/2 |s_i|^2) dt`, in time from noise to data. With another zeta the
    divergence of s_i would be needed.

    Args:
        before: the target before the step.
        log_densities: `log q_i` there, each (B, K).
        interval: the step.
        new: the samples after it.

    References:
        Skreta et al. 2025, arXiv 2412.17762 (SuperDiff).
    """
    x, dim = before.x, before.x[0, 0].numel()
    carried = []
    for score, density in zip(before.scores, log_densities, strict=True):
        along = inner(score, new - x - interval.growth * x)
        carried.append(density + along - interval.growth * dim - 0.5 * interval.noise * inner(score, score))
    return tuple(carried)


def check_ito(target: Target, proposal: Proposal, intervals: tuple[Interval, ...]) -> None:
    """Raise a ValueError unless the noise of every step is that of zeta = 1."""
    levels = {proposal.noise_level(target, interval.t) for interval in intervals}
    if levels != {1.0}:
        raise ValueError(
            "exponents that change in time need log densities, and their Ito estimate needs zeta = 1 at every step, "
            f"but the proposal is {proposal!r}; use EulerMaruyama(), or experts with log_density(x, t)."
        )

"""A run against importance sampling from a wide law: the check that sees what no particle visited."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_count
from fklit.correctors.simulation.initial import InitialGaussian
from fklit.correctors.simulation.result import SimulationResult
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.weights import ess, log_mean_exp, normalize


@dataclass(frozen=True)
class ReferenceCheck:
    """Weighted means and log Z of a run against those of importance sampling.

    Attributes:
        min_ess: least effective sample size of the run as a share of its particles, mean over groups.
        roots: share of its initial particles with a descendant at the end, mean over groups.
        log_z: of the run, mean over groups, and of the reference.
        means: (2, M) float64, of each coordinate and its square, of the run and of the reference.
        deviation: largest difference of these, in units of its standard error.
        reference_ess: effective sample size of the reference; below 100 it decides nothing.
    """

    min_ess: float
    roots: float
    log_z: tuple[float, float]
    means: Float64[Tensor, "2 M"]
    deviation: float
    reference_ess: float

    @property
    def decides(self) -> bool:
        """Whether the reference itself is good enough; in many dimensions it is not."""
        return self.reference_ess >= 100

    def consistent(self, threshold: float = 5.0) -> bool:
        """Return whether the reference decides, and nothing differs by more than `threshold` standard errors."""
        return self.decides and self.deviation <= threshold


@torch.no_grad()
def reference_check(
    target: Target,
    result: SimulationResult,
    *,
    width: float = 3.0,
    num_draws: int = 100_000,
    t: float | None = None,
    seed: int = 0,
) -> ReferenceCheck:
    """Compare a run with importance sampling of its target from a Gaussian `width` times as wide as the experts.

    Effective sample sizes and roots cannot tell that a mode was missed: the particles know of each other only. This
    can, in few dimensions, where experts have exact log densities and moments.

    Args:
        target: what was sampled, without a black-box tilt.
        result: of `simulate`.
        width: of the reference, in standard deviations of the widest expert, positive.
        num_draws: of the reference.
        t: the last time of the run; the path's `stop` if None.
        seed: of the draws.

    Raises:
        ValueError: if an expert has no log density or no moments.
    """
    if not (target.has_log_densities and target.has_moments):
        raise ValueError(
            "expected experts with log_density(x, t) and moments(), got one without, so that there is no reference; "
            "use zeta_independence()."
        )
    check_count("num_draws", num_draws)
    found: list[tuple[Tensor, Tensor]] = [expert.moments() for expert in target.experts]  # type: ignore[attr-defined]
    mean = torch.stack([m.double() for m, _ in found]).mean(dim=0)
    variance = torch.stack([v.double() + (m.double() - mean).square() for m, v in found]).amax(dim=0)
    law = InitialGaussian(mean, width**2 * variance)
    generators = group_generators(seed, 1, stream="reference")
    shape = (1, num_draws, *mean.shape)
    x = law.sample(shape, generators, dtype=torch.float64, device=torch.device("cpu"))
    logs = target.log_gamma(x, target.path.stop if t is None else t) - law.log_density(x)
    size = float(ess(logs))

    def moments(values: Tensor) -> Tensor:
        flat = values.double().flatten(2)
        return torch.cat([flat, flat.square()], dim=2)

    weights = normalize(logs).unsqueeze(2)
    known = (weights * moments(x)).sum(dim=1)[0]
    spread = ((weights * moments(x).square()).sum(dim=1)[0] - known.square()).clamp(min=1e-300)
    each = result.mean(moments)
    # Of one run: as if as many draws were independent as the worst moment left.
    left = torch.minimum(result.min_ess.cpu(), result.unique_roots.double())
    groups, count = result.num_groups, float(left.mean().clamp(min=1.0))
    error = (spread / (count * groups) + spread / size).sqrt()
    evidence, reference = float(result.log_z.mean()), float(log_mean_exp(logs))
    evidence_error = math.sqrt(1 / (count * groups) + 1 / size)
    gaps = (each.mean(dim=0).cpu() - known).abs() / error
    return ReferenceCheck(
        min_ess=float(result.min_ess.mean()) / result.num_particles,
        roots=float(result.unique_roots.double().mean()) / result.num_particles,
        log_z=(evidence, reference),
        means=torch.stack([each.mean(dim=0).cpu(), known]),
        deviation=max(float(gaps.max()), abs(evidence - reference) / evidence_error),
        reference_ess=size,
    )

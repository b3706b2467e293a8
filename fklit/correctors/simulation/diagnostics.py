"""Self-checks: identities that hold for any model, whether or not its target is known.

The target does not depend on zeta, the noise of the proposal. If the weighted means of runs with other zeta disagree
by more than their errors, then steps are too large, particles too few, or the scores are not those of one law (learned
scores need not be gradients, nor fit each other at different times). It is blind to what no zeta visits: where log
densities are known, `reference_check` compares a run with importance sampling from a wide law, and
`ito_against_exact` the Ito estimates of the densities along the paths with the truth. For guided pipelines see
`prompt_divergence`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_count
from fklit.correctors.simulation.api import simulate
from fklit.correctors.simulation.corrector import Corrector
from fklit.correctors.simulation.euler_maruyama import EulerMaruyama
from fklit.correctors.simulation.ito import carry_log_densities
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import group_generators


@dataclass(frozen=True)
class ZetaCheck:
    """Weighted means of an observable for several zeta.

    Attributes:
        min_ess: (Z,) float64, least effective sample size of a run as a share of the particles, mean over groups.
        roots: (Z,) float64, share of the initial particles that have a descendant at the end, mean over groups.
        zetas: the Z values of zeta.
        means: (Z, M) float64, of M observables, over all groups.
        errors: (Z, M) float64, their standard errors, from the variance between groups.
        ess: (Z,) float64, terminal effective sample size as a share of the particles, mean over groups. After a
            resampling it is no sign of a good run.
        deviation: largest difference of two means, in units of its standard error.
        resolution: largest standard error of a mean, in units of the observable's own standard deviation: what
            differs by less than some of these the check cannot see.
    """

    min_ess: Float64[Tensor, " Z"]
    roots: Float64[Tensor, " Z"]
    zetas: tuple[float, ...]
    means: Float64[Tensor, "Z M"]
    errors: Float64[Tensor, "Z M"]
    ess: Float64[Tensor, " Z"]
    deviation: float
    resolution: float

    def consistent(self, threshold: float = 4.0, *, resolution: float = 0.1) -> bool:
        """Return whether no two means differ by more than `threshold` standard errors, and that could be seen.

        Args:
            threshold: in standard errors of the difference of two means.
            resolution: largest standard error, in standard deviations of the observable, with which agreement counts.
        """
        return self.deviation <= threshold and self.resolution <= resolution


def zeta_independence(
    target: Target,
    *,
    num_particles: int,
    num_groups: int = 8,
    zetas: Sequence[float] = (0.7, 1.0, 1.4),
    observable: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    **settings: Any,
) -> ZetaCheck:
    """Run a target with several zeta and compare the weighted means.

    Args:
        target: what to sample.
        num_particles: K of each group.
        num_groups: independent groups, at least 2, from whose variance the errors follow.
        zetas: at least two values. Larger ones need smaller steps.
        observable: from x (B, K, *event) to (B, K, M) or (B, K); every coordinate and its square if not given.
        seed: of the first run; every zeta gets its own noise.
        settings: further arguments of `simulate`.

    Returns:
        Means, errors and the largest deviation.
    """
    check_count("num_groups", num_groups, minimum=2)
    if len(zetas) < 2:
        raise ValueError(f"expected at least two values to compare, got zetas={tuple(zetas)}; add one.")
    refused = {"proposal", "generator"} & settings.keys()
    if refused:
        raise ValueError(
            f"expected neither proposal= nor generator=, got {sorted(refused)}; they follow from zetas and seed, so "
            "omit them."
        )
    measure = _coordinates if observable is None else observable

    def both(x: Tensor) -> Tensor:
        values = measure(x)
        return values.unsqueeze(2) if values.ndim == 2 else values.flatten(2)

    means, errors, spreads, sizes, least, left = [], [], [], [], [], []
    for number, zeta in enumerate(zetas):
        generators = group_generators(seed, num_groups, stream=f"zeta {number}")
        run = simulate(
            target,
            num_particles=num_particles,
            num_groups=num_groups,
            proposal=EulerMaruyama(zeta),
            generator=generators,
            **settings,
        )
        each = run.mean(both)
        means.append(each.mean(dim=0))
        errors.append(each.std(dim=0) / num_groups**0.5)
        spreads.append((run.mean(lambda x: both(x).square()).mean(dim=0) - means[-1].square()).clamp(min=0).sqrt())
        sizes.append(run.ess[-1].mean() / num_particles)
        least.append(run.min_ess.mean() / num_particles)
        left.append(run.unique_roots.double().mean() / num_particles)
    mean, error = torch.stack(means), torch.stack(errors)
    gaps = (mean.unsqueeze(0) - mean.unsqueeze(1)).abs()
    scale = (error.square().unsqueeze(0) + error.square().unsqueeze(1)).sqrt().clamp(min=1e-300)
    spread = torch.stack(spreads).amax(dim=0).clamp(min=1e-300)
    return ZetaCheck(
        min_ess=torch.stack(least),
        roots=torch.stack(left),
        zetas=tuple(zetas),
        means=mean,
        errors=error,
        ess=torch.stack(sizes),
        deviation=float((gaps / scale).max()),
        resolution=float((error / spread).max()),
    )


@dataclass(frozen=True)
class ItoCheck:
    """Ito log densities against exact ones at the end of plain paths.

    Attributes:
        bias: (E,) float64, mean error of each expert.
        rms: (E,) float64, root mean square error of each expert.
    """

    bias: Float64[Tensor, " E"]
    rms: Float64[Tensor, " E"]


@torch.no_grad()
def ito_against_exact(
    target: Target,
    *,
    num_particles: int = 1000,
    num_steps: int = 200,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> ItoCheck:
    """Carry the log densities of all experts along uncorrected paths with zeta = 1 and compare them with the truth.

    Args:
        target: experts with `log_density`; the paths are those of its own drift.
        num_particles: number of paths.
        num_steps: steps of the path's grid.
        seed: of the noise.
        dtype: of the samples.

    Raises:
        ValueError: if an expert has no log density.
    """
    if not target.has_log_densities:
        raise ValueError(
            "expected experts with log_density(x, t), got one without, so that there is nothing to compare with; use "
            "zeta_independence()."
        )
    bare = Target(target.terms)
    model = Corrector(bare, target.path.grid(num_steps), dtype=dtype)
    generators = group_generators(seed, 1)
    x: Tensor = model.initial(1, num_particles, generators)["x"]
    carried = bare.log_densities(x, model.intervals[0].t)
    proposal = EulerMaruyama()
    for interval in model.intervals:
        before = bare.evaluate(x, interval.t)
        x = proposal.move(bare, before, interval, interval, None, generators).x
        carried = carry_log_densities(before, carried, interval, x)
    exact = bare.log_densities(x, model.intervals[-1].s)
    errors = torch.stack([found - known for found, known in zip(carried, exact, strict=True)]).flatten(1)
    return ItoCheck(errors.mean(dim=1), errors.square().mean(dim=1).sqrt())


def _coordinates(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return torch.cat([flat, flat.square()], dim=2)

"""One call from a target of masked experts to weighted tokens: `simulate_masked(target, num_particles=...)`."""

from dataclasses import fields

import torch
from torch import Tensor

from fklit.correctors.discrete.masked import MaskedCorrector
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.checks import check_count
from fklit.feynman_kac.engine import run
from fklit.feynman_kac.randomness import Generators, group_generators
from fklit.feynman_kac.resampling import Resampler, get_resampler
from fklit.feynman_kac.result import ParticleResult
from fklit.feynman_kac.weights import OnDegenerate, OnNan


@torch.no_grad()
def simulate_masked(
    target: Target,
    *,
    num_particles: int = 64,
    num_groups: int = 1,
    num_steps: int | None = None,
    corrected: bool = True,
    resampler: Resampler | str = "systematic",
    ess_threshold: float = 0.9,
    seed: int = 0,
    generator: Generators = None,
    device: torch.device | str = "cpu",
    on_nan: OnNan = "error",
    on_degenerate: OnDegenerate = "error",
) -> ParticleResult[Tensor]:
    """Sample a target of masked experts: B groups of K particles from masks to tokens, corrected by weights.

    ```python
    result = simulate_masked(Target.product([first, second], [1.5, 0.5]), num_particles=256)
    result.sample(10), result.log_z
    ```

    Args:
        target: experts with constant exponents; see `MaskedCorrector`.
        num_particles: K.
        num_groups: B, independent runs side by side.
        num_steps: None unmasks one site a step, which has no error of steps. A number is T of the path's grid, whose
            steps unmask several sites that do not see each other: fewer calls if it is smaller than the number of
            sites, and the same law only if it is much larger.
        corrected: False gives the heuristic sampler, with equal weights. A site at which no token is possible is then
            left masked.
        resampler: see `fklit.feynman_kac.resampling`.
        ess_threshold: fraction of K below which a group resamples.
        seed: of one generator for each group; ignored if `generator` is given.
        generator: one, or one for each group.
        device: of the tokens.
        on_nan: "error", or "drop" particles of invalid weight.
        on_degenerate: "error", or "keep" groups whose particles are all dead.

    Returns:
        Tokens (B, K, L) with their weights; `log_z` estimates the log of the sum of `prod_i p_i(x)^beta_i` over all
        sequences.

    Raises:
        TypeError, ValueError: for targets that do not fit.
    """
    times = None if num_steps is None else target.path.grid(check_count("num_steps", num_steps))
    model = MaskedCorrector(target, times, corrected=corrected, device=device)
    result = run(
        model,
        num_groups=num_groups,
        num_particles=num_particles,
        resampler=get_resampler(resampler),
        ess_threshold=ess_threshold,
        generator=group_generators(seed, num_groups) if generator is None else generator,
        on_nan=on_nan,
        on_degenerate=on_degenerate,
    )
    known = {item.name: getattr(result, item.name) for item in fields(ParticleResult)}
    return ParticleResult(**{**known, "samples": result.samples["x"]})

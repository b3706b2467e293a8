"""One call from a target to weighted samples: `simulate(target, num_particles=...)`."""

from collections.abc import Iterable, Sequence
from dataclasses import fields

import torch

from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.corrector import Corrector
from fklit.correctors.simulation.increment import Increment
from fklit.correctors.simulation.initial import InitialGaussian
from fklit.correctors.simulation.proper import warn_of_escape
from fklit.correctors.simulation.proposal import Proposal
from fklit.correctors.simulation.result import SimulationResult
from fklit.correctors.targets.paths.noise_path import times_of
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.engine import run
from fklit.feynman_kac.randomness import Generators, group_generators
from fklit.feynman_kac.resampling import Resampler, get_resampler
from fklit.feynman_kac.result import ParticleResult
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.weights import OnDegenerate, OnNan


@torch.no_grad()
def simulate(
    target: Target,
    *,
    num_particles: int = 4000,
    num_groups: int = 1,
    num_steps: int = 200,
    times: Iterable[float] | None = None,
    proposal: Proposal | None = None,
    increment: Increment | None = None,
    control: Control | None = None,
    resampler: Resampler | str = "systematic",
    ess_threshold: float = 0.9,
    resample_schedule: Schedule | None = None,
    event_shape: Sequence[int] | None = None,
    initial: InitialGaussian | None = None,
    clamp: float | None = None,
    seed: int = 0,
    generator: Generators = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    on_nan: OnNan = "error",
    on_degenerate: OnDegenerate = "error",
) -> SimulationResult:
    """Sample a target: B groups of K particles from noise to data, corrected by weights and resampling.

    ```python
    law = GaussianMixture([[-1.5], [1.2]], [0.15, 0.3], [0.35, 0.65]).on(VariancePreserving())
    result = simulate(Target.annealed(law, 2.5), control=FittedControl(), dtype=torch.float64)
    result.mean(), result.log_z, result.ess[-1]
    ```

    With `increment=Uncorrected()` it is the heuristic sampler, and with one particle a group the same, bit for bit.

    Args:
        target: what to sample.
        num_particles: K.
        num_groups: B, independent runs side by side.
        num_steps: steps of the path's own grid; ignored if `times` are given.
        times: falling times from noise to data, numbers or an array of them (`numpy.linspace`).
        proposal: how particles move; `EulerMaruyama()` if not given.
        increment: how steps are weighed; what fits the proposal if not given.
        control: a drift control.
        resampler: see `fklit.feynman_kac.resampling`.
        ess_threshold: fraction of K below which a group resamples. The weights of a corrector grow by small rough
            steps, so that frequent resampling costs little; with a control, 0.5 is enough.
        resample_schedule: steps that may resample; all if not given. Weights are carried through the others. Skipping
            the noisy end costs little, skipping the clean end loses the correction.
        event_shape: shape of one sample; the experts' if not given.
        initial: the Gaussian to start from; the target's own at the noise end if not given.
        clamp: bound on how far a step's log weight may lie from its group's mean; a bias, and counted.
        dtype: of the samples.
        device: of the samples.
        on_nan: "error", or "drop" particles of invalid weight.
        seed: of one generator for each group; ignored if `generator` is given.
        generator: one, or one for each group.
        on_degenerate: "error", or "keep" groups whose particles are all dead.

    Returns:
        The particles with their weights; see `SimulationResult`.

    Warns:
        ImproperTargetWarning: if all particles left the support of every expert.

    Raises:
        ImproperTargetError: if the target can be seen to have no finite integral.
        IncompatibleError, StiffTiltError, ValueError, TypeError: for what does not fit together.
    """
    model = Corrector(
        target,
        target.path.grid(num_steps) if times is None and isinstance(target, Target) else times_of(times),
        proposal=proposal,
        increment=increment,
        control=control,
        event_shape=event_shape,
        initial=initial,
        clamp=clamp,
        dtype=dtype,
        device=device,
        on_nan=on_nan,
    )
    allowed = None if resample_schedule is None else {-1, *resample_schedule.resolve_resampling(model.num_steps)}
    result = run(
        model,
        num_groups=num_groups,
        num_particles=num_particles,
        resampler=get_resampler(resampler),
        ess_threshold=ess_threshold,
        generator=group_generators(seed, num_groups) if generator is None else generator,
        on_nan=on_nan,
        on_degenerate=on_degenerate,
        resample_steps=allowed,
    )
    warn_of_escape(model.farthest, stacklevel=3)
    known = {item.name: getattr(result, item.name) for item in fields(ParticleResult)}
    known["samples"] = result.samples["x"]
    log_weight_std = torch.stack(model.log_weight_std)
    return SimulationResult(**known, log_weight_std=log_weight_std, clamped=model.clamped, num_steps=model.num_steps)

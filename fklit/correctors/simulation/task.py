"""SimulationGroups of an analytic or learned target under Lightning, held against a reference law."""

from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from fklit.analytic.gaussian import GaussianMixture
from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.increments import Increment
from fklit.correctors.simulation.proposals import Proposal
from fklit.correctors.simulation.simulate import SimulationResult, simulate
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.resampling import get_resampler, systematic
from fklit.metrics.distributions import energy_wasserstein, mmd, mode_masses, total_variation, wasserstein
from fklit.metrics.prompt_mean import PromptMean
from fklit.sampling.threads import check_threads, pinned_threads


class SimulationTask(LightningModule):
    """Simulates a target, a group of K particles for each item of a ``SimulationDataModule``; see ``simulate``.

    ``predict`` returns one :class:`~fklit.correctors.SimulationResult` a batch, which ``SimulationWriter`` writes.
    ``test`` logs the mean over groups of the final ESS, of log Z and, with a reference, of W1 and W2 (exact assignment
    of 2,000 points), squared MMD, energy W1 and W2, and the total variation of the masses of its modes; in two
    dimensions also the total variation of 200 x 200 histograms. Lengths are multiplied by ``unit``.

    Args:
        target: What to sample.
        num_particles: K.
        num_steps: Steps of the path's own grid.
        proposal: How particles move; None for ``EulerMaruyama()``.
        increment: How steps are weighed; None for what fits the proposal.
        control: A drift control.
        resampler: "systematic", "multinomial", "stratified", "residual", "ssp" or "birth_death".
        ess_threshold: Fraction of K below which a group resamples; 1 always.
        clamp: Bound on an increment's distance from its group's mean, or None.
        double: Whether particles are float64.
        seed: With the index of a group, its seed.
        reference: The exact law, for ``test``.
        modes: Law whose means are the modes; the reference's own if None.
        unit: Length of one unit of the particles, for the metrics.
        extent: Half the side of the square of the histograms, after ``unit``.
        num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they are.

    Raises:
        ValueError, TypeError: For settings that no run accepts.
    """

    def __init__(
        self,
        target: Target,
        *,
        num_particles: int = 4000,
        num_steps: int = 400,
        proposal: Proposal | None = None,
        increment: Increment | None = None,
        control: Control | None = None,
        resampler: str = "systematic",
        ess_threshold: float = 0.9,
        clamp: float | None = None,
        double: bool = True,
        seed: int = 0,
        reference: GaussianMixture | None = None,
        modes: GaussianMixture | None = None,
        unit: float = 1.0,
        extent: float = 50.0,
        num_threads: int | None = 1,
    ) -> None:
        super().__init__()
        get_resampler(resampler)
        self.num_threads = check_threads(num_threads)
        self.target = target
        self.seed = seed
        self.simulation: dict[str, Any] = {
            "num_particles": num_particles,
            "num_steps": num_steps,
            "proposal": proposal,
            "increment": increment,
            "control": control,
            "resampler": resampler,
            "ess_threshold": ess_threshold,
            "clamp": clamp,
            "dtype": torch.float64 if double else torch.float32,
        }
        self.reference = reference
        self.modes = reference if modes is None else modes
        self.unit = unit
        self.extent = extent
        names = ["ess", "log_z", "spread"]
        if reference is not None:
            names += ["w1", "w2", "mmd", "energy_w1", "energy_w2", "mode_tv", *(["tv"] if reference.dim == 2 else [])]
        self.means = nn.ModuleDict({name: PromptMean() for name in names})

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> SimulationResult:
        """Simulates the groups of a batch."""
        indices: list[int] = batch["indices"]
        with pinned_threads(self.num_threads):
            return simulate(
                self.target,
                num_groups=len(indices),
                generator=group_generators(self.seed, indices),
                device=self.device,
                **self.simulation,
            )

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Simulates the groups of a batch and adds them to the means."""
        run = self.predict_step(batch, batch_idx)
        for b, index in enumerate(batch["indices"]):
            with pinned_threads(self.num_threads):
                figures = self.figures(run, b, index)
            for name, value in figures.items():
                mean = self.means[name]
                assert isinstance(mean, PromptMean)
                mean.update(torch.tensor([index]), torch.tensor([value], dtype=torch.float64))

    def on_test_epoch_end(self) -> None:
        """Logs the means over all groups of all processes."""
        for name, mean in self.means.items():
            assert isinstance(mean, PromptMean)
            self.log(f"test/{name}", mean.compute().float(), sync_dist=True)
            mean.reset()

    def figures(self, run: SimulationResult, b: int, index: int) -> dict[str, float]:
        """Figures of group b, whose index chooses the points that are compared."""
        found = {
            "ess": float(run.ess[-1, b]),
            "log_z": float(run.log_z[b]),
            "spread": float(run.log_weight_std[:, b].mean()),
        }
        law = self.reference
        if law is None or self.modes is None:
            return found
        slots = systematic(run.log_weights[b : b + 1].cpu(), torch.Generator().manual_seed(index))[0]
        x = run.samples[b].cpu()[slots]
        y = law.sample((len(x),), torch.Generator().manual_seed(10_000 + index), dtype=x.dtype)
        unit = self.unit
        found["w1"], found["w2"] = wasserstein(unit * x, unit * y, seed=index)
        spread = float((unit * y).std())
        found["mmd"] = mmd(unit * x, unit * y, bandwidths=(0.05 * spread, 0.2 * spread, spread), seed=index)
        found["energy_w1"], found["energy_w2"] = energy_wasserstein(x, y, _energy(law))
        masses = mode_masses(x, self.modes.means), mode_masses(y, self.modes.means)
        found["mode_tv"] = 0.5 * float((masses[0] - masses[1]).abs().sum())
        if x.shape[1] == 2:
            found["tv"] = total_variation(unit * x, unit * y, low=-self.extent, high=self.extent)
        return found

    def setup(self, stage: str) -> None:
        """Refuses ``fit`` and ``validate``.

        Raises:
            ValueError: For these stages.
        """
        if stage in ("fit", "validate"):
            self.configure_optimizers()

    def training_step(self, batch: Any, batch_idx: int) -> NoReturn:
        """Refuses."""
        self.configure_optimizers()

    def configure_optimizers(self) -> NoReturn:
        """Refuses."""
        raise ValueError(
            "`fit` or `validate` was asked for with SimulationTask, which trains nothing; use `predict` (writes "
            "particles) or `test` (reports distances to the reference)."
        )


def _energy(law: GaussianMixture) -> Any:
    def energy(points: Tensor) -> Tensor:
        return -law.log_density(points)

    return energy

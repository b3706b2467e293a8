"""Simulation of an analytic or learned target under Lightning, compared with a reference law."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from jsonargparse import set_parsing_settings
from torch import Tensor, nn

from fklit.analytic.gaussian import GaussianMixture
from fklit.checks import check_choice
from fklit.correctors.simulation.api import simulate
from fklit.correctors.simulation.comparison import Comparison
from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.increment import Increment
from fklit.correctors.simulation.polish import Polish
from fklit.correctors.simulation.proposal import Proposal
from fklit.correctors.simulation.result import SimulationResult
from fklit.correctors.targets.target import Target
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.resampling import get_resampler, systematic
from fklit.hyperparameters import save_hyperparameters
from fklit.metrics.distributions import energy_wasserstein, mmd, mode_masses, total_variation, wasserstein
from fklit.metrics.prompt_mean import PromptMean
from fklit.metrics.samples import SampleBatch
from fklit.sampling.no_training import NoTraining
from fklit.sampling.threads import check_threads, pinned_threads

# A dataclass, for which jsonargparse accepts no class path unless told so; configurations and checkpoints name its
# class methods.
set_parsing_settings(subclasses_enabled=[Target])


class SimulationTask(NoTraining):
    """Simulates a target, a group of K particles for each item of a `SimulationDataModule`; see `simulate`.

    `predict` returns one `SimulationResult` a batch, which `SimulationWriter` writes. `validate` and `test` log the
    mean over groups of the least ESS of the run and the surviving roots, of the final ESS, of log Z, of the standard
    deviation of a step's log weights and, with a reference, of W1 and W2 (exact assignment of 2,000 points), squared
    MMD, energy W1 and W2, and the total variation of the masses of its modes; in two dimensions also the total
    variation of 200 x 200 histograms. Lengths are multiplied by `unit`.

    Args:
        target: What to sample.
        num_particles: K.
        num_steps: Steps of the path's own grid.
        proposal: How particles move; None for `EulerMaruyama()`.
        increment: How steps are weighted; None for what fits the proposal.
        control: A drift control.
        resampler: "systematic", "multinomial", "stratified", "residual", "ssp" or "birth_death".
        ess_threshold: Fraction of K below which a group resamples; 1 always.
        clamp: Bound on an increment's distance from its group's mean, or None.
        dtype: Precision of the particles; log weights are always float64.
        seed: With the index of a group, its seed.
        reference: The exact law, for `validate` and `test`.
        modes: Law whose means are the modes; the reference's own if None.
        comparison: What else to compare the particles with, in place of `reference` where the truth is no mixture; its
            figures are logged by their own names.
        polish: Moves the particles of a finished run once more, under the target; its draws have a stream of their own.
        unit: Length of one unit of the particles, for the metrics.
        extent: Half the side of the square of the histograms, after `unit`.
        num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they are.

    Raises:
        ValueError, TypeError: For settings that no run accepts.
    """

    evaluates: ClassVar[str] = "particles"  # what the steps return, for MetricsCallback

    def __init__(
        self,
        target: Target,
        *,
        num_particles: int = 4000,
        num_steps: int = 200,
        proposal: Proposal | None = None,
        increment: Increment | None = None,
        control: Control | None = None,
        resampler: str = "systematic",
        ess_threshold: float = 0.9,
        clamp: float | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        seed: int = 0,
        reference: GaussianMixture | None = None,
        modes: GaussianMixture | None = None,
        comparison: Comparison | None = None,
        polish: Polish | None = None,
        unit: float = 1.0,
        extent: float = 50.0,
        num_threads: int | None = 1,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        get_resampler(resampler)
        check_choice("dtype", dtype, ("float32", "float64"))
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
            "dtype": getattr(torch, dtype),
        }
        self.reference = reference
        self.modes = reference if modes is None else modes
        self.comparison = comparison
        self.polish = polish
        self.unit = unit
        self.extent = extent
        names = ["min_ess", "unique_roots", "ess", "log_z", "log_weight_std"]
        if reference is not None:
            names += ["w1", "w2", "mmd", "energy_w1", "energy_w2", "mode_tv", *(["tv"] if reference.dim == 2 else [])]
        if comparison is not None:
            taken = sorted(set(comparison.names) & set(names))
            if taken:
                raise ValueError(f"expected new names of a comparison, got {taken}, which the task logs; rename them.")
            names += comparison.names
        self.means = nn.ModuleDict({name: PromptMean() for name in names})

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Simulates the groups of a batch.

        Returns:
            A `SimulationResult`, or an empty tuple on a process that has no group (Lightning warns of None).
        """
        indices: list[int] = batch["indices"]
        if not indices:
            return ()
        with pinned_threads(self.num_threads):
            result = simulate(
                self.target,
                num_groups=len(indices),
                generator=group_generators(self.seed, indices),
                device=self.device,
                **self.simulation,
            )
            if self.polish is None:
                return result
            draws = group_generators(self.seed, indices, stream="polish")
            return replace(result, samples=self.polish(result.samples, draws))

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Simulates the groups of a batch, adds them to the means, and returns the particles."""
        if not batch["indices"]:  # of a process that has nothing to do: what is gathered from it has no rows
            nothing = torch.zeros(0, dtype=torch.int64)
            for mean in self.means.values():
                assert isinstance(mean, PromptMean)
                mean.update(nothing, torch.zeros(0, dtype=torch.float64))
            return {"samples": torch.zeros(0, 1, 1), "batch": SampleBatch([], [], nothing, nothing)}
        result = self.predict_step(batch, batch_idx)
        for b, index in enumerate(batch["indices"]):
            with pinned_threads(self.num_threads):
                figures = self.figures(result, b, index)
            for name, value in figures.items():
                mean = self.means[name]
                assert isinstance(mean, PromptMean)
                mean.update(torch.tensor([index]), torch.tensor([value], dtype=torch.float64))
        count, drawn = len(batch["indices"]), result.sample_index(1).squeeze(1).cpu()
        known = SampleBatch([""] * count, [{}] * count, drawn, torch.tensor(batch["indices"]), result)
        return {"samples": result.samples, "batch": known}

    validation_step = test_step

    def on_validation_epoch_end(self) -> None:
        """Logs the means over all groups of all processes, `val/NAME`."""
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """Logs the means over all groups of all processes, `test/NAME`."""
        self._log_means("test")

    def _log_means(self, stage: str) -> None:
        for name, mean in self.means.items():
            assert isinstance(mean, PromptMean)
            self.log(f"{stage}/{name}", mean.compute().float(), sync_dist=True)
            mean.reset()

    def figures(self, result: SimulationResult, b: int, index: int) -> dict[str, float]:
        """Figures of group b, whose index seeds the choice of the points that are compared."""
        found = {
            "min_ess": float(result.min_ess[b]),
            "unique_roots": float(result.unique_roots[b]),
            "ess": float(result.ess[-1, b]),
            "log_z": float(result.log_z[b]),
            "log_weight_std": float(result.log_weight_std[:, b].mean()),
        }
        slots = systematic(result.log_weights[b : b + 1].cpu(), torch.Generator().manual_seed(index))[0]
        x = result.samples[b].cpu()[slots]
        if self.comparison is not None:
            found |= self.comparison.figures(x, index)
        law = self.reference
        if law is None or self.modes is None:
            return found
        y = law.sample((len(x),), torch.Generator().manual_seed(10_000 + index), dtype=x.dtype)
        unit = self.unit
        found["w1"], found["w2"] = wasserstein(unit * x, unit * y, seed=index)
        deviation = float((unit * y).std())
        bandwidths = (0.05 * deviation, 0.2 * deviation, deviation)
        found["mmd"] = mmd(unit * x, unit * y, bandwidths=bandwidths, seed=index)
        found["energy_w1"], found["energy_w2"] = energy_wasserstein(x, y, _energy(law))
        masses = mode_masses(x, self.modes.means), mode_masses(y, self.modes.means)
        found["mode_tv"] = 0.5 * float((masses[0] - masses[1]).abs().sum())
        if x.shape[1] == 2:
            found["tv"] = total_variation(unit * x, unit * y, low=-self.extent, high=self.extent)
        return found


def _energy(law: GaussianMixture) -> Any:
    def energy(points: Tensor) -> Tensor:
        return -law.log_density(points)

    return energy

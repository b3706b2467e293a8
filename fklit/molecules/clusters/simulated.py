"""Samples of a cluster that `fklit predict` has made: what the next network of a ladder trains on."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fklit.feynman_kac.resampling import systematic
from fklit.molecules.clusters.energy import ClusterEnergy
from fklit.molecules.clusters.parallel_tempering import check_ladder
from fklit.molecules.clusters.samples import ClusterSamples


class SimulatedSamples(ClusterSamples):
    """Samples of a cluster at the temperature to which a run has annealed a network of a higher one.

    `fklit predict` wrote them with `SimulationWriter`. As many are drawn from each group by its weights as it has
    particles, each as often as its weight says, within one. Trained on them, the next network starts at this
    temperature: a ladder of temperatures (as in Akhound-Sadegh et al. 2025, arXiv 2506.16471).

    Args:
        system: The energy.
        temperature: Of the run's target.
        folder: Of the `SimulationWriter`.

    Raises:
        ValueError: For a temperature that is not positive; from `at`, for another one, for groups of more than
            one run, and for particles of another system or without finite coordinates.
        FileNotFoundError: There are no groups in the folder (from `at`).
    """

    def __init__(self, system: ClusterEnergy, temperature: float, folder: str) -> None:
        self.system, self.temperatures, self.folder = system, check_ladder([temperature]), folder

    def at(self, temperature: float) -> Float[Tensor, "n d"]:
        """Return all samples, one group after the other."""
        if temperature not in self.temperatures:
            raise ValueError(
                f"expected the temperature of the run, {self.temperatures[0]:g}, got {temperature:g}; give the same."
            )
        return self._samples

    def make(self) -> None:
        """Read the groups."""
        _ = self._samples

    @cached_property
    def _samples(self) -> Tensor:
        place = Path(self.folder).expanduser()
        # A group is complete once its record, which is written last, is there.
        records = sorted(place.glob("[0-9]*.json"))
        groups = [path.with_suffix(".npz") for path in records]
        if not groups:
            raise FileNotFoundError(
                f"expected groups of SimulationWriter, 00000.npz and so on, got none in {place} (looked in "
                f"{place.absolute()}); run `fklit predict` with it first."
            )
        if len({json.loads(path.read_text(encoding="utf-8")).get("settings") for path in records}) > 1:
            raise ValueError(
                f"expected groups of one run, got some of other settings in {place}; empty the folder and run "
                "`fklit predict` again."
            )
        return torch.cat([self._draws(path, number) for number, path in enumerate(groups)])

    def _draws(self, path: Path, seed: int) -> Tensor:
        with np.load(path) as arrays:
            samples, log_weights = (torch.from_numpy(arrays[name]) for name in ("samples", "log_weights"))
        if samples.ndim != 2 or samples.shape[1] != self.system.space.dim:
            raise ValueError(
                f"expected particles of {self.system.space.dim} mean-free coordinates, got {tuple(samples.shape)} in "
                f"{path}; give the system of that run, or the folder of one of this system."
            )
        slots = systematic(log_weights.double().unsqueeze(0), torch.Generator().manual_seed(seed))[0]
        drawn = samples[slots].float()
        if not bool(drawn.isfinite().all()):
            raise ValueError(
                f"expected finite coordinates of particles that have weight, got NaN or infinities in {path}; look at "
                "the network and the steps of that run."
            )
        return drawn

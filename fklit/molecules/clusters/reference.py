"""Reference samples of a cluster: made once by parallel tempering, kept in a file."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from fklit.atomic import make_folder, write_atomically
from fklit.hyperparameters import describe
from fklit.molecules.clusters.energy import ClusterEnergy
from fklit.molecules.clusters.parallel_tempering import check_ladder, index_of, parallel_tempering
from fklit.molecules.clusters.samples import ClusterSamples

LADDER = (0.8, 0.9, 1.0, 1.2, 1.35, 1.5, 1.75, 2.0)


class ClusterReference(ClusterSamples):
    """Samples of a cluster at the temperatures of a ladder, by `parallel_tempering`.

    They are made when they are first needed, which takes half a minute of one core for 13 Lennard-Jones particles, and
    are read from the file from then on.

    Args:
        system: The energy.
        temperatures: Rising.
        num_chains: See `parallel_tempering`, as the next four.
        num_steps: MALA steps of each chain.
        burn_in: Steps before the first sample.
        every: Steps between samples of a chain.
        seed: Of the chains.
        file: A `.safetensors` file to keep them in, in a folder that may not exist yet; None keeps them in memory.

    Raises:
        ValueError: For temperatures that do not rise, or a file of other settings.
    """

    def __init__(
        self,
        system: ClusterEnergy,
        temperatures: Sequence[float] = LADDER,
        *,
        num_chains: int = 32,
        num_steps: int = 20_000,
        burn_in: int = 6_000,
        every: int = 10,
        seed: int = 0,
        file: str | None = None,
    ) -> None:
        self.system, self.temperatures = system, check_ladder(temperatures)
        self.num_chains, self.num_steps, self.burn_in, self.every = num_chains, num_steps, burn_in, every
        self.seed, self.file = seed, file

    def at(self, temperature: float) -> Float[Tensor, "n d"]:
        """Return all samples of a temperature, float32, in the order of time with the chains side by side.

        Raises:
            ValueError: for a temperature that is not on the ladder.
        """
        return self._samples[index_of(self.temperatures, temperature)].flatten(0, 1)

    def make(self) -> None:
        """Make the samples and write the file, if there is none yet."""
        _ = self._samples

    @cached_property
    def _samples(self) -> Float[Tensor, "T S C d"]:
        from safetensors import safe_open
        from safetensors.torch import save

        # What the samples depend on; another file name makes no other samples.
        given = {name: value for name, value in describe(self)["init_args"].items() if name != "file"}
        key = json.dumps(given, sort_keys=True)
        place = None if self.file is None else Path(self.file).expanduser()
        if place is not None and place.is_file():
            with safe_open(place, "pt") as kept:
                if (kept.metadata() or {}).get("settings") != key:
                    raise ValueError(
                        f"expected samples of these settings, got {place}, which was made with others; name another "
                        "file, or delete this one."
                    )
                found: Tensor = kept.get_tensor("samples")
            return found
        settings = {name: given[name] for name in ("num_chains", "num_steps", "burn_in", "every", "seed")}
        samples = parallel_tempering(self.system, self.temperatures, **settings).samples.float().contiguous()
        if place is not None:
            make_folder(place.parent)
            with write_atomically(place) as file:
                file.write(save({"samples": samples}, metadata={"settings": key}))
        return samples

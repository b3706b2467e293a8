"""What a run of benchmarks/science.py on molecules is, and what it costs."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fklit.feynman_kac import ParticleResult

Run = Callable[[int], tuple[list[str], dict[str, Any]]]
"""From a seed to SMILES and costs."""


def costs(result: ParticleResult[Tensor]) -> dict[str, Any]:
    """Calls, seconds and the least share of particles that counted."""
    share = float(result.min_ess[0]) / result.num_particles
    return {"calls": result.budget.denoiser_calls, "seconds": result.budget.seconds, "min_ess": share}

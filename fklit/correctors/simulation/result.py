"""What `simulate` returns."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.feynman_kac.result import ParticleResult, json_numbers


@dataclass(frozen=True, kw_only=True)
class SimulationResult(ParticleResult[Tensor]):
    """Weighted samples (B, K, *event) of a target, and how much each step's weights varied.

    Attributes:
        log_weight_std: (T, B) float64, standard deviation of each step's log weights within each group.
        clamped: (B,) int64, log weights that the clamp bounded.
        num_steps: T.
    """

    log_weight_std: Float64[Tensor, "T B"]
    clamped: Int64[Tensor, " B"]
    num_steps: int

    def record(self, b: int) -> dict[str, Any]:
        """Return what is known of group b except for its samples, JSON-able."""
        return {
            **super().record(b),
            "num_steps": self.num_steps,
            "log_weight_std": json_numbers(self.log_weight_std[:, b]),
            "clamped": int(self.clamped[b]),
        }

"""What a corrected pipeline call returns."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.result import json_numbers
from fklit.sampling.result import PipelineResult


@dataclass(frozen=True, kw_only=True)
class GuidanceResult(PipelineResult):
    """All K particles of each of B prompts, with weights; nothing is thrown away.

    `log_z` estimates the normalizing constant of the target over the base's. The rows of `ancestors` and `resampled`
    are the T steps of the scheduler; `ess` has one more for the terminal reward, if there is one. Without a reward
    `best()` is the sample of the highest weight: for a sample of the target take `sample()`.

    Attributes:
        log_weight_std: (T, B) standard deviation within each prompt's particles of the *exact* log weights of each
            step, whatever the correction: its size tells how much of a correction K particles can carry; NaN where the
            pipeline evaluates no unconditional prediction.
        stepwise_kl: (T, B) nats that each step adds to `KL(p(x | prompt) || p(x))`, see
            `fklit.correctors.guidance.weight.stepwise_kl`; NaN where the pipeline evaluates no unconditional
            prediction. The sum over steps estimates that divergence, and on a learned model the error of both
            predictions with it.
        weighted_steps: the steps whose weights counted.
    """

    log_weight_std: Float64[Tensor, "T B"]
    stepwise_kl: Float64[Tensor, "T B"]
    weighted_steps: tuple[int, ...]

    def record(self, b: int) -> dict[str, Any]:
        """Return everything about prompt b except for the samples, JSON-able."""
        return {
            **super().record(b),
            "drawn": int(self.sample_index(1)[b, 0]),
            "weighted_steps": list(self.weighted_steps),
            "log_weight_std": json_numbers(self.log_weight_std[:, b]),
            "stepwise_kl": json_numbers(self.stepwise_kl[:, b]),
        }

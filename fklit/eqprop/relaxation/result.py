"""What a relaxation returns: the state it reached, and for each sample how it ended."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fklit.eqprop.network.state import State

UnconvergedPolicy = Literal["keep", "drop", "raise"]
"""What is done with samples that have not converged: no difference, no gradient of the dynamics, or an error."""


@dataclass(frozen=True)
class RelaxationResult:
    """Where a relaxation ended. Rows are samples, or phase after phase of all samples.

    Attributes:
        state: Activities. A diverged sample keeps its last finite ones.
        iterations: Iterations that each sample took.
        residual: Largest change of an activity in the last iteration, divided by the rate; infinite if diverged.
        converged: Whether the residual fell below the tolerance.
        diverged: Whether activities exceeded the bound or were not finite.
        period_two: Whether a sample that has not converged alternates between two states (False if not asked for).
    """

    state: State
    iterations: Int[Tensor, " rows"]
    residual: Float[Tensor, " rows"]
    converged: Bool[Tensor, " rows"]
    diverged: Bool[Tensor, " rows"]
    period_two: Bool[Tensor, " rows"]

    def counts(self) -> dict[str, int]:
        """Number of samples, and of those not converged, of period two and diverged (the last two count as the first).

        Returns:
            `samples`, `unconverged`, `period_two` and `diverged`.
        """
        return {
            "samples": len(self.iterations),
            "unconverged": int((~self.converged).sum()),
            "period_two": int(self.period_two.sum()),
            "diverged": int(self.diverged.sum()),
        }


@dataclass(frozen=True)
class Equilibrium:
    """A free equilibrium of a batch.

    Attributes:
        x: The input.
        drive: Static input of each layer: biases and input links (no gradient).
        result: State, residual and iterations of each sample.
    """

    x: Tensor
    drive: State
    result: RelaxationResult

    @property
    def state(self) -> State:
        """Activities of each layer (no gradient)."""
        return self.result.state

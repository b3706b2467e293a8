"""How a state is relaxed to a fixed point: order, damping, tolerance and limits."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Relaxation:
    """How to relax.

    Attributes:
        max_iterations: Most iterations; every iteration updates each layer once.
        tolerance: A sample has converged when no activity changes by as much in an iteration (divided by `rate`); 0
            runs all `max_iterations` and calls no sample converged.
        order: `"sequential"` updates one color of layers after another with the newest activities (even and odd layers
            of a layered network; no two layers of a color are connected), `"synchronous"` all at once.
        rate: Fraction of the way to the new value, in (0, 1]; below 1 the updates are damped.
        bound: A sample whose activities exceed it in size, or are not finite, has diverged.
        check_every: Iterations between checks of which samples have stopped, at which stopped ones leave the batch;
            None for every iteration on a CPU and every fifth elsewhere, where a check waits for the device. Changes no
            result.

    Raises:
        ValueError: If a value is out of range.
    """

    max_iterations: int = 150
    tolerance: float = 1e-4
    order: Literal["sequential", "synchronous"] = "sequential"
    rate: float = 1.0
    bound: float = 1e4
    check_every: int | None = None

    def __post_init__(self) -> None:
        if self.max_iterations < 1 or (self.check_every is not None and self.check_every < 1):
            raise ValueError(
                f"expected max_iterations and check_every of at least 1, got max_iterations={self.max_iterations} and "
                f"check_every={self.check_every}."
            )
        if not 0 < self.rate <= 1:
            raise ValueError(f"expected rate in (0, 1], where 1 is undamped, got rate={self.rate}.")
        if self.tolerance < 0 or not self.bound > 0:
            raise ValueError(
                f"expected tolerance of at least 0 and bound above 0, got tolerance={self.tolerance} and "
                f"bound={self.bound}."
            )
        if self.order not in ("sequential", "synchronous"):
            raise ValueError(f"expected order 'sequential' or 'synchronous', got order={self.order!r}.")

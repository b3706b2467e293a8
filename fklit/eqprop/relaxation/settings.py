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
            None for every iteration on a CPU and every fifth elsewhere, where a check waits for the device, and for
            compiled iterations, of which five are one call. Changes no result.
        anderson_window: Iterations that Anderson acceleration remembers for each sample, 3 to 5 usually; 0 for none.
            Samples then take fewer iterations to the same fixed points; each costs more
            (`fklit.eqprop.relaxation.anderson`).
        anderson_damping: Share of the residual that an accelerated step takes along, in (0, 1]; 1 is undamped.
        start: Of the free phase: `"zero"`, or `"feedforward"` for the activities of one pass through the layers in
            their order without backward directions. Other phases start from the free state.

    Raises:
        ValueError: If a value is out of range.
    """

    max_iterations: int = 150
    tolerance: float = 1e-4
    order: Literal["sequential", "synchronous"] = "sequential"
    rate: float = 1.0
    bound: float = 1e4
    check_every: int | None = None
    anderson_window: int = 0
    anderson_damping: float = 1.0
    start: Literal["zero", "feedforward"] = "zero"

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
        if self.anderson_window < 0 or not 0 < self.anderson_damping <= 1:
            raise ValueError(
                "expected anderson_window of at least 0 and anderson_damping in (0, 1], where 1 is undamped, got "
                f"anderson_window={self.anderson_window} and anderson_damping={self.anderson_damping}."
            )
        if self.anderson_damping < 1 and self.anderson_window == 0:
            raise ValueError(
                f"expected anderson_window of at least 1 for a damped acceleration, got anderson_window=0 and "
                f"anderson_damping={self.anderson_damping}; give a window, or leave out the damping."
            )
        if self.start not in ("zero", "feedforward"):
            raise ValueError(f"expected start 'zero' or 'feedforward', got start={self.start!r}.")

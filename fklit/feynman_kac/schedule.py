"""Which steps of a run score, and which of those may resample.

Steps count as the sampler takes them: 0 is the noisiest, `num_steps - 1` the last. A score at step i judges the
prediction made from the sample *before* step i, when `num_steps - i` steps are left. The terminal score, on the
finished sample, is always there and is no part of a schedule.

How published settings of 100-step runs map:

- The reference code's 20-80-20 (start, end, frequency) scores at loop indices 20, 40, 60, 80 and 99, the last being
  its terminal step: `Schedule(start=20, stop=80, every=20)`.
- The paper's `[0, 20, 40, 60, 80]` counts the steps that are left, 0 being the terminal score: predictions with 80,
  60, 40 and 20 steps left are those of steps 20, 40, 60, 80, so it is the same schedule. (The reference code scores
  these predictions but resamples one step later, with 79, 59, 39 and 19 steps left.)
- The reference code's default 5-30-5 is `Schedule(start=5, stop=30, every=5)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fklit.feynman_kac.checks import as_number, check_count

Position = int | float
"""A step index (int, from 0) or a fraction of the run (float, from 0.0 to 1.0)."""


@dataclass(frozen=True)
class Schedule:
    """Steps that score: a window with an interval, or a list.

    Attributes:
        start: first step of the window; an int is a step index, a float a fraction of the run.
        stop: last step of the window, included if the interval meets it.
        every: interval; an int counts steps, a float is a fraction of the run.
        indices: a list of steps in place of the window; `()` means the terminal score alone (best-of-n).
        resample_at: the scored steps that may resample; None means all of them.

    Raises:
        ValueError, TypeError: for a position or interval that no run has.
    """

    start: Position = 0.0
    stop: Position = 1.0
    every: Position = 1
    indices: Sequence[Position] | None = None
    resample_at: Sequence[Position] | None = None

    def __post_init__(self) -> None:
        for name in ("start", "stop"):
            object.__setattr__(self, name, _check_position(name, getattr(self, name)))
        every = as_number(self.every)
        if every is None:
            raise TypeError(f"every={self.every!r} is not a number; give steps (int) or a fraction of the run (float).")
        object.__setattr__(self, "every", every)
        if not 0 < self.every < math.inf or (isinstance(self.every, float) and self.every > 1):
            raise ValueError(
                f"every={self.every} is not accepted; give at least 1 step (int) or a fraction in (0, 1] (float)."
            )
        if type(self.start) is type(self.stop) and self.start > self.stop:
            raise ValueError(f"start={self.start} is after stop={self.stop}; step 0 is the noisiest, so swap them.")
        for name in ("indices", "resample_at"):
            positions: Any = getattr(self, name)
            if positions is None:
                continue
            if not isinstance(positions, Sequence) and hasattr(positions, "tolist"):  # an array or a tensor
                positions = positions.tolist()
            if isinstance(positions, str) or not isinstance(positions, Sequence):
                raise TypeError(f"{name}={positions!r} is not a list; give a tuple of steps such as (20, 40, 60).")
            # A tuple, as a list from YAML would make it unhashable.
            checked = tuple(_check_position(f"a step of {name}", position) for position in positions)
            object.__setattr__(self, name, checked)

    def resolve(self, num_steps: int) -> tuple[int, ...]:
        """Return the indices of the steps that score in a run of `num_steps`, sorted, without repeats.

        A window with fractions holds the steps i with `start <= i / num_steps <= stop`.

        Raises:
            ValueError: if a step lies outside the run or the window holds none.
        """
        check_count("num_steps", num_steps)
        if self.indices is not None:
            return tuple(sorted({_index(position, num_steps) for position in self.indices}))
        first = self.start if isinstance(self.start, int) else math.ceil(self.start * num_steps - 1e-9)
        last = self.stop if isinstance(self.stop, int) else min(math.floor(self.stop * num_steps + 1e-9), num_steps - 1)
        interval = self.every if isinstance(self.every, int) else self.every * num_steps
        for name, value, step in (("start", self.start, first), ("stop", self.stop, last)):
            if step >= num_steps:
                raise ValueError(
                    f"{name}={value} is outside a run of {num_steps} steps; give 0 to {num_steps - 1} or a fraction "
                    "below 1.0."
                )
        count = math.floor((last - first) / interval + 1e-9) + 1
        if count < 1:
            raise ValueError(
                f"No step of a run of {num_steps} lies between start={self.start} and stop={self.stop}; widen the "
                "window, "
                f"or set indices=() to score only the finished samples."
            )
        return tuple(sorted({math.floor(first + number * interval + 1e-9) for number in range(count)}))

    def resolve_resampling(self, num_steps: int) -> tuple[int, ...]:
        """Return the scored steps that may resample, sorted.

        Raises:
            ValueError: as `resolve`, or if a step of `resample_at` is not scored.
        """
        scored = self.resolve(num_steps)
        if self.resample_at is None:
            return scored
        chosen = tuple(sorted({_index(position, num_steps) for position in self.resample_at}))
        unscored = sorted(set(chosen) - set(scored))
        if unscored:
            raise ValueError(f"resample_at names steps {unscored} that do not score; choose among {list(scored)}.")
        return chosen


def _check_position(name: str, given: object) -> Position:
    value = as_number(given)
    if value is None:
        raise TypeError(f"{name} is {given!r}, not a number; give a step index (int) or a fraction of the run (float).")
    if isinstance(value, int) and value < 0:
        raise ValueError(f"{name}={value} is negative; step 0 is the noisiest, so give 0 or more.")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value} is not a fraction of the run; give 0.0 to 1.0, or an int for a step index.")
    return value


def _index(position: Position, num_steps: int) -> int:
    step = position if isinstance(position, int) else math.floor(position * num_steps + 1e-9)
    if step >= num_steps:
        raise ValueError(
            f"Step {position} is outside a run of {num_steps} steps; give 0 to {num_steps - 1} or a fraction below 1.0."
        )
    return step

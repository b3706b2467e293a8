"""Fewer particles for prompts that are good already: an adaptive number of particles."""

import math
from dataclasses import dataclass

from fklit.checks import as_number, check_count


@dataclass(frozen=True, kw_only=True)
class FewerParticles:
    """A prompt all of whose particles score above a value goes on with fewer of them.

    They are drawn by weight, at a scheduled step that may resample, and each takes an equal part of the K slots: from
    there on the denoiser evaluates `number` rows of the prompt in place of K, and nothing is scored before the end. In
    the result the samples in the slots of one particle are equal. The target is the same: when this happens follows
    from the past alone, and the draw is a resampling (over the slots, ancestors have the law of the weights).

    Attributes:
        above: The rewards above which a prompt is good enough.
        number: Particles with which it goes on, a divisor of `num_particles`; 1 costs least, more leave a choice among
            finished samples.

    Raises:
        ValueError: A number is out of its range.
    """

    above: float
    number: int = 1

    def __post_init__(self) -> None:
        limit = as_number(self.above)
        if limit is None or math.isnan(limit):
            raise ValueError(f"above expected a reward, got {self.above!r}; give a number.")
        object.__setattr__(self, "above", float(limit))
        object.__setattr__(self, "number", check_count("number", self.number))

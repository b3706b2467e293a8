"""How a network is computed: switches for speed that leave the fixed points where they are."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Execution:
    """Switches for speed. Results change by rounding, and with `free_precision` within the tolerance.

    Attributes:
        channels_last: Keep images and kernels with the channels innermost, which convolutions often prefer.
        compile: Run the iterations through `torch.compile`. The first steps then take minutes, and it pays for long
            trainings of convolutional networks only.
        free_precision: `"bfloat16"` or `"float16"` runs the first iterations of the free phase in that format, on
            hardware that is faster in it, until its rounding is reached or half of the free phase's `max_iterations`
            are over; `"full"` does not. Every sample then goes on in full precision until its residual there is below
            the tolerance, and starts again there if it diverged in the low one: the low precision saves time and
            decides nothing.
    """

    channels_last: bool = False
    compile: bool = False
    free_precision: Literal["full", "bfloat16", "float16"] = "full"

    def __post_init__(self) -> None:
        if self.free_precision not in ("full", "bfloat16", "float16"):
            raise ValueError(f"expected free_precision 'full', 'bfloat16' or 'float16', got {self.free_precision!r}.")

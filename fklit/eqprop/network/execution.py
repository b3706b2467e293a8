"""How a network is computed: switches for speed that leave the fixed points where they are."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Execution:
    """Switches for speed. Results change by rounding, and with `free_precision` within the tolerance.

    Attributes:
        channels_last: Keep images and kernels with the channels innermost, which convolutions often prefer.
        compile: Run the iterations of every phase through `torch.compile`, five in one call, with the residuals that
            say which samples stop at which (Anderson acceleration: one in a call). `True` fuses its kernels,
            `"cudagraphs"` also records them (`mode="reduce-overhead"`), so that a CUDA device is given one graph
            instead of hundreds of kernels; elsewhere it does what `True` does. The first steps then take minutes, and
            it pays for long trainings only.
        free_precision: `"bfloat16"` or `"float16"` runs the first iterations of the free phase in that format, on
            hardware that is faster in it, until its rounding is reached or half of the free phase's `max_iterations`
            are over; `"full"` does not. Every sample then goes on in full precision until its residual there is below
            the tolerance, and starts again there if it diverged in the low one: the low precision saves time and
            decides nothing.
        response_precision: `"bfloat16"` does the same for the linear iteration of `ExactResponse` and
            `RecurrentBackprop`. Finite nudges are refused: their response is a difference of nearby states, of which
            bfloat16 leaves nothing.
    """

    channels_last: bool = False
    compile: bool | Literal["cudagraphs"] = False
    free_precision: Literal["full", "bfloat16", "float16"] = "full"
    response_precision: Literal["full", "bfloat16"] = "full"

    def __post_init__(self) -> None:
        if self.compile not in (True, False, "cudagraphs"):
            raise ValueError(f"expected compile True, False or 'cudagraphs', got compile={self.compile!r}.")
        if self.free_precision not in ("full", "bfloat16", "float16"):
            raise ValueError(f"expected free_precision 'full', 'bfloat16' or 'float16', got {self.free_precision!r}.")
        if self.response_precision not in ("full", "bfloat16"):
            raise ValueError(
                f"expected response_precision 'full' or 'bfloat16', got response_precision={self.response_precision!r}."
            )

"""How a network is computed: switches for speed that leave the fixed points where they are."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from fklit.eqprop.dynamics import Settled, settle
from fklit.eqprop.fields import NetworkField
from fklit.eqprop.state import State, per_row

if TYPE_CHECKING:
    from fklit.eqprop.networks import EquilibriumNetwork


@dataclass(frozen=True)
class Execution:
    """Switches for speed. Results change by rounding, and with ``free_precision`` within the tolerance.

    Attributes:
        channels_last: Keep images and kernels with the channels innermost, which convolutions often prefer.
        compile: Run the sweeps through ``torch.compile``. The first steps then take minutes, and it pays for long
            trainings of conv nets only.
        free_precision: ``"bfloat16"`` or ``"float16"`` runs the first sweeps of the free phase in that format, on
            hardware that is faster in it, until its rounding is reached or half of the free phase's ``max_steps`` are
            over; ``"full"`` does not. Every sample then goes on in full precision until its residual there is below the
            tolerance, and starts afresh there if it diverged in the low one: the low precision saves time and decides
            nothing.
    """

    channels_last: bool = False
    compile: bool = False
    free_precision: Literal["full", "bfloat16", "float16"] = "full"

    def __post_init__(self) -> None:
        if self.free_precision not in ("full", "bfloat16", "float16"):
            raise ValueError(f"free_precision={self.free_precision!r} was given; give 'full', 'bfloat16' or 'float16'.")


def relax_freely(network: "EquilibriumNetwork", drive: State, start: State) -> Settled:
    """The free phase of a network, in the precision it asks for.

    Args:
        network: The network.
        drive: Static input of each population.
        start: First activities.
    """
    field = NetworkField(network, drive)
    low = network.execution.free_precision
    if low == "full":
        return settle(field, start, network.free, classify=True)
    dtype = torch.bfloat16 if low == "bfloat16" else torch.float16
    # Activities are of order one, so changes of two units in the last place are rounding.
    rough = replace(
        network.free,
        tolerance=max(network.free.tolerance, 2 * torch.finfo(dtype).eps),
        max_steps=(network.free.max_steps + 1) // 2,
    )
    coarse = settle(
        NetworkField(network, tuple(part.to(dtype) for part in drive)), tuple(part.to(dtype) for part in start), rough
    )
    state = tuple(
        torch.where(per_row(coarse.diverged, old), old, new.to(old.dtype))
        for new, old in zip(coarse.state, start, strict=True)
    )
    fine = settle(field, state, network.free, classify=True)
    return replace(fine, steps=fine.steps + coarse.steps)

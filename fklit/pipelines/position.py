"""Where a run starts on a scheduler's grid: image-to-image pipelines start in the middle."""

from typing import Any

from torch import Tensor


def first_position(scheduler: Any, timestep: Any) -> int:
    """Return the index in `scheduler.timesteps` of the call with `timestep`, the first of a run.

    Args:
        scheduler: a diffusers scheduler, not yet stepped.
        timestep: as the pipeline passes it: a number, or a tensor of one or one a row.
    """
    for known in (getattr(scheduler, "step_index", None), getattr(scheduler, "begin_index", None)):
        if known is not None:
            return int(known)
    first = float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)  # some give one a row
    return next((i for i, t in enumerate(scheduler.timesteps) if float(t) == first), 0)

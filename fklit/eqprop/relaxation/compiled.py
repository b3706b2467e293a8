"""Iterations through `torch.compile`, and batches of few different sizes for what it records.

What is compiled is one function of this module, kept by the process and by no network: copies, checkpoints, pickles and
the processes of distributed training do not see it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.eqprop.network.state import State
from fklit.eqprop.relaxation.iteration import Field, advance
from fklit.eqprop.relaxation.settings import Relaxation

Advance = Callable[[Field, State, Relaxation, bool], tuple[State, Tensor, Tensor]]

VERSIONS = 128
"""Most versions of the function: each phase, number format and layout of each network has one. Torch's default is 8,
past which it warns and goes on uncompiled."""


@cache
def _compiled(mode: str | None) -> Advance:
    compiled: Advance = torch.compile(advance, mode=mode)
    return compiled


def advance_of(how: bool | Literal["cudagraphs"]) -> Advance:
    """`advance` as `Execution.compile` asks for it.

    Args:
        how: The setting.

    Returns:
        The function. What it returns stays as it is when it is called again.
    """
    if how is False:
        return advance
    import torch._dynamo  # takes a second, so only who compiles

    compiler: Any = torch.compiler  # torch does not annotate all of it
    run = _compiled("reduce-overhead" if how == "cudagraphs" else None)

    def step(field: Field, point: State, relaxation: Relaxation, imaginary: bool) -> tuple[State, Tensor, Tensor]:
        with torch._dynamo.config.patch(recompile_limit=VERSIONS):
            if how is True:
                return run(field, point, relaxation, imaginary)
            # A graph writes to the same memory each time: a step is over when its results have been copied out of it.
            compiler.cudagraph_mark_step_begin()
            proposal, change, inside = run(field, point, relaxation, imaginary)
            return tuple(part.clone() for part in proposal), change.clone(), inside.clone()

    return step


def going_on(active: Tensor, left: int, how: bool | Literal["cudagraphs"]) -> Tensor:
    """Which rows of a batch stay in it when samples have stopped.

    A graph is recorded for every size of a batch, so for graphs a batch is halved, and halved again, and stopped
    samples fill it up; they change no more.

    Args:
        active: Which samples have not stopped, `(samples,)` bool.
        left: How many these are.
        how: `Execution.compile`.

    Returns:
        Their places in ascending order, and for `"cudagraphs"` those of some stopped samples.
    """
    if how != "cudagraphs":
        return active.nonzero().squeeze(1)
    size = len(active)
    while size > 1 and (size + 1) // 2 >= left:
        size = (size + 1) // 2
    return active.int().argsort(descending=True, stable=True)[:size].sort().values

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
from fklit.eqprop.relaxation.progress import Progress, advance_several
from fklit.eqprop.relaxation.settings import Relaxation

How = bool | Literal["cudagraphs"]

VERSIONS = 128
"""Most versions of a function: each phase, number format and layout of each network has one. Torch's default is 8,
past which it warns and goes on uncompiled."""

UNROLLED = 5
"""Iterations of one compiled call; what is left of a multiple of it is done one by one."""


@cache
def _compiled(function: Callable[..., Any], mode: str | None) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function, mode=mode)
    return compiled


def _run(function: Callable[..., Any], how: How, *given: Any) -> Any:
    """Call a function of this package as `Execution.compile` asks for it; later calls do not change what it returns."""
    if how is False:
        return function(*given)
    import torch._dynamo  # takes a second, so only who compiles

    compiler: Any = torch.compiler  # torch does not annotate all of it
    with torch._dynamo.config.patch(recompile_limit=VERSIONS):
        if how is True:
            return _compiled(function, None)(*given)
        # A graph writes to the same memory each time: a step is over when its results have been copied out of it.
        compiler.cudagraph_mark_step_begin()
        return _copied(_compiled(function, "reduce-overhead")(*given))


def _copied(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.clone()
    copies = [_copied(part) for part in result]
    return Progress(*copies) if isinstance(result, Progress) else tuple(copies)


def run_advance(field: Field, point: State, relaxation: Relaxation, imaginary: bool) -> tuple[State, Tensor, Tensor]:
    """`advance` as `Execution.compile` of the field asks for it."""
    found: tuple[State, Tensor, Tensor] = _run(advance, field.execution.compile, field, point, relaxation, imaginary)
    return found


def run_several(
    field: Field, state: State, progress: Progress, relaxation: Relaxation, imaginary: bool, count: int
) -> tuple[State, Progress]:
    """`advance_several` as `Execution.compile` of the field asks for it: in compiled calls of `UNROLLED` or 1."""
    how = field.execution.compile
    while count:
        size = count if how is False else UNROLLED if count >= UNROLLED else 1
        state, progress = _run(advance_several, how, field, state, progress, relaxation, imaginary, size)
        count -= size
    return state, progress


def going_on(active: Tensor, left: int, how: How) -> Tensor:
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

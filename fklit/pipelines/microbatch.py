"""Evaluating a network in chunks of a fixed number of rows, without changing the network or its caller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Positions of transformers carry no batch axis, and their length can equal the number of rows by chance.
UNBATCHED = frozenset({"img_ids", "txt_ids", "image_rotary_emb", "text_rope_pos", "visual_rope_pos"})
_LAYERS_FIRST = frozenset({"encoder_hidden_states_llama3"})  # whose second axis is that of the rows


@contextmanager
def intercept_call(module: nn.Module, around: Callable[..., Any]) -> Iterator[None]:
    """Has `module(...)` go through `around(call, *args, **kwargs)` within the context.

    `nn.Module` looks up `_compiled_call_impl` at every call, before hooks and `forward`. Standing there, the
    interception survives accelerate, which rewrites `forward` when it offloads, and it stays outside of what
    `torch.compile` traces.

    Args:
        module: the network.
        around: gets the way in as first argument and the caller's arguments after it.
    """
    missing = object()
    before = module.__dict__.get("_compiled_call_impl", missing)
    inner = module._call_impl if before is missing or before is None else before

    def outer(*args: Any, **kwargs: Any) -> Any:
        return around(inner, *args, **kwargs)

    module._compiled_call_impl = outer
    try:
        yield
    finally:
        if before is missing:
            del module._compiled_call_impl
        else:
            module._compiled_call_impl = before


def rows_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Rows of a denoiser's batch: the first axis of the sample, which is its first tensor argument, or list of tensors.

    Raises:
        ValueError: if there is no tensor among the arguments.
    """
    for name in ("sample", "hidden_states", "x"):
        value = kwargs.get(name)
        if isinstance(value, Tensor):
            return int(value.shape[0])
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim > 1:
            return int(value.shape[0])
        if is_list_of_tensors(value):
            return len(value)
    raise ValueError("the denoiser was called without a tensor of samples; fklit cannot tell its batch size")


def is_list_of_tensors(value: Any) -> bool:
    """Return whether a value is a list with one tensor a row, as Z-Image's transformer takes its samples."""
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, Tensor) for item in value)


def call_in_chunks(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, rows: int, size: int
) -> Any:
    """Calls a network on chunks of exactly `size` rows (the last one padded by its last row) and joins the results.

    Rounding in a network depends on the batch size, not on the position in the batch: with chunks of one size the
    result of a row has the same bits whatever else is in the batch.

    Args:
        call: the network.
        args: positional arguments; every tensor whose first axis has `rows` entries is split, also inside of
            dictionaries, lists and tuples.
        kwargs: keyword arguments, treated alike, except for unbatched position ids.
        rows: rows of the whole batch.
        size: rows of a chunk, at least 1.

    Returns:
        What the network returns for the whole batch.
    """
    outputs = []
    for start in range(0, rows, size):
        index = torch.arange(start, start + size).clamp(max=rows - 1)
        outputs.append(call(*take_rows(args, index, rows), **take_rows(kwargs, index, rows)))
    return _join(outputs, rows)


def take_rows(value: Any, index: Tensor, rows: int) -> Any:
    """Return an argument of a network with some of its rows, also inside of dictionaries, lists and tuples.

    Args:
        value: the argument; what has another first axis than `rows` is left as it is.
        index: (n,), the rows wanted.
        rows: of the whole batch.
    """
    if isinstance(value, Tensor):
        return value[index.to(value.device)] if value.ndim > 0 and value.shape[0] == rows else value
    if isinstance(value, dict):
        return {name: _take_named(name, item, index, rows) for name, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(take_rows(item, index, rows) for item in value)
    return value


def _take_named(name: str, value: Any, index: Tensor, rows: int) -> Any:
    if name in UNBATCHED:
        return value
    if name in _LAYERS_FIRST and isinstance(value, Tensor) and value.ndim > 1:
        return value[:, index.to(value.device)] if value.shape[1] == rows else value
    return take_rows(value, index, rows)


def _join(outputs: list[Any], rows: int) -> Any:
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(outputs)[:rows]
    if isinstance(first, dict):  # diffusers' and transformers' outputs are ordered dictionaries with attributes
        return type(first)(**{key: _join([output[key] for output in outputs], rows) for key in first})
    if isinstance(first, list | tuple):
        return type(first)(_join(list(parts), rows) for parts in zip(*outputs, strict=True))
    return first


def first_tensor(output: Any) -> Tensor | None:
    """Return the prediction of a denoiser: it returns it alone, first in a tuple, or as `sample`."""
    found = output if isinstance(output, Tensor) else getattr(output, "sample", None)
    if found is None and isinstance(output, tuple | list) and output:
        found = output[0]
    rows: Any = found
    if is_list_of_tensors(rows) and len({row.shape for row in rows}) == 1:  # one tensor a row
        found = torch.stack(rows)
    return found if isinstance(found, Tensor) else None

"""Conditioning that differs between the particles of a prompt moves with the particles when they are resampled.

Pipelines make their conditions once, a row a slot. Where the rows of a prompt differ (an image embedding from a prior,
a noised low-resolution image beside the sample), a resampled particle would be denoised under another particle's
condition. Every argument of the denoiser is therefore compared within each prompt.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fklit.pipelines.microbatch import UNBATCHED, is_list_of_tensors, rows_of

_SAMPLES = ("sample", "hidden_states", "x")
# Computed anew at every step from the samples as they lie, by a ControlNet or an adapter: already in order.
_DERIVED = ("down_block_additional_residuals", "mid_block_additional_residual", "down_intrablock_additional_residuals",
            "controlnet_block_samples", "controlnet_single_block_samples", "block_controlnet_hidden_states",
            "controlnet_states", "encoder_hidden_states_controlnet")  # fmt: skip


class PerParticleConditioning:
    """Re-indexes the arguments of a denoiser that differ between the particles of one prompt.

    Args:
        num_rows: samples of the run, in group order.
        group_size: K, rows of one prompt side by side.
        refuse: raises the error of the interception with a message.
    """

    def __init__(self, num_rows: int, group_size: int, refuse: Callable[[str], Exception]) -> None:
        self._num_rows = num_rows
        self._group_size = group_size
        self._refuse = refuse
        self._origin = torch.arange(num_rows)  # slot in which the particle of each slot started
        self._first: dict[tuple[int, str], Tensor] = {}  # what differed at the first step, by call and name
        self._call = 0
        self._rows = num_rows  # of the denoiser call that is looked at
        self._frames = 1  # of each sample, of which some networks take a row each

    def next_step(self) -> None:
        """Start counting the denoiser calls of a step."""
        self._call = 0

    def select(self, ancestors: Tensor) -> None:
        """Follow a resampling, by flat ancestors (N,)."""
        self._origin = self._origin[ancestors.cpu()]

    def arranged(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        shape: torch.Size | None,
        sample: Tensor | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of one denoiser call with each condition in the row of its particle.

        Args:
            module: the denoiser, whose signature names positional arguments.
            args: as the pipeline gives them.
            kwargs: likewise.
            shape: of the samples, (N, ...); channels, tokens or frames of the denoiser's input beyond it are
                conditions. None before the first step.
            sample: the samples themselves, where they are known: they may lie behind the conditions. None otherwise.
        """
        names = [name for name in inspect.signature(module.forward).parameters if name != "self"]
        named = dict(zip(names, args, strict=False))
        sample_name = next((name for name in (*_SAMPLES, *named, *kwargs) if _is_sample({**named, **kwargs}, name)), "")
        number, self._call = self._call, self._call + 1
        self._rows = rows_of(args, kwargs)
        self._frames = shape[2] if shape is not None and len(shape) == 5 else 1
        first = next(iter({**named, **kwargs}), "")
        listed = is_list_of_tensors({**named, **kwargs}.get(first))

        def arrange(name: str, value: Any) -> Any:
            if name == sample_name:
                return self._sample(number, name, value, shape, sample)
            if is_list_of_tensors(value) and listed:  # one tensor a row, not one a layer
                return value if name == first else self._list(number, name, value)
            if name.split(".")[0].split("[")[0] in {*_DERIVED, *UNBATCHED}:
                return value
            if isinstance(value, Tensor):
                return self._tensor(number, name, value)
            if isinstance(value, dict):
                return {key: arrange(f"{name}.{key}", item) for key, item in value.items()}
            if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
                return type(value)(arrange(f"{name}[{i}]", item) for i, item in enumerate(value))
            return value

        positional = tuple(arrange(name, value) for name, value in zip(names, args, strict=False))
        return (*positional, *args[len(positional) :]), {name: arrange(name, value) for name, value in kwargs.items()}

    def _list(self, number: int, name: str, value: list[Tensor]) -> list[Tensor]:
        """One tensor a row: rows of a prompt must be equal, as there is no case in which they are not."""
        size = self._group_size
        for start in range(0, len(value), size) if len(value) % self._num_rows == 0 else ():
            group = value[start : start + size]
            if any(row.shape != group[0].shape or not torch.equal(row, group[0]) for row in group):
                raise self._refuse(f"the denoiser's list {name!r} differs between the particles of one prompt")
        return value

    def _sample(self, number: int, name: str, value: Tensor, shape: torch.Size | None, sample: Tensor | None) -> Tensor:
        """Conditions beside the sample along an axis: channels, reference pictures as tokens, frames."""
        if shape is None or value.ndim != len(shape):
            return value
        for axis, size in enumerate(shape):
            beyond = value.shape[axis] - size
            if axis == 0 or beyond <= 0:
                continue
            last = _ends_with(value, sample, axis)  # texts may lie before the sample
            extra = value.narrow(axis, 0 if last else size, beyond)
            arranged = self._tensor(number, f"{name} (axis {axis} but for the sample)", extra)
            own = value.narrow(axis, beyond if last else 0, size)
            value = torch.cat([arranged, own] if last else [own, arranged], dim=axis)
        return value

    def _tensor(self, number: int, name: str, value: Tensor) -> Tensor:
        # Other lengths are of tokens or layers: positions would be taken for conditions.
        batched = value.ndim > 0 and self._rows % self._num_rows == 0
        each = next((n for n in (1, self._frames) if batched and value.shape[0] == self._rows * n), None)
        if each is None:
            return value
        rows = value.reshape(self._rows, each, *value.shape[1:])  # motion modules get one row a frame
        if not self._differs(rows):
            return value
        known = self._first.setdefault((number, name), value)
        if known is not value and not (known.shape == value.shape and torch.equal(known, value)):
            raise self._refuse(
                f"the denoiser's argument {name!r} differs between the particles of one prompt and changes from step "
                "to step, so fklit cannot tell how to re-index it when particles are resampled"
            )
        if bool((self._origin == torch.arange(self._num_rows)).all()):
            return value
        origin = self._origin.to(value.device)
        return torch.cat([part[origin] for part in rows.chunk(value.shape[0] // (each * self._num_rows))]).reshape(
            value.shape
        )

    def _differs(self, value: Tensor) -> bool:
        rows = value.reshape(value.shape[0] // self._group_size, self._group_size, -1)
        return not torch.equal(rows, rows[:, :1].expand_as(rows))


def _is_sample(arguments: dict[str, Any], name: str) -> bool:
    value = arguments.get(name)
    return isinstance(value, Tensor) and value.ndim > 1


def _ends_with(value: Tensor, sample: Tensor | None, axis: int) -> bool:
    """Whether a denoiser's input ends with the samples along an axis (and does not begin with them)."""
    if sample is None:
        return False
    size, rows = sample.shape[axis], value[: sample.shape[0]]
    first, last = rows.narrow(axis, 0, size), rows.narrow(axis, rows.shape[axis] - size, size)
    known = sample.to(value.dtype)
    return last.shape == known.shape and torch.equal(last, known) and not torch.equal(first, known)

"""The denoiser of a step, called again: for its gradient with respect to the sample, or for other samples.

A pipeline calls its denoiser without gradients, on rows that it builds from the sample (doubled for guidance, scaled
for the network, with channels or tokens beside them), and combines what comes back. From the calls that the
interception kept, both are recovered: how the rows follow from the sample, and how the model output follows from the
predictions. Both must be linear, which is checked to rounding; anything else is refused. Calling again costs one more
evaluation, but no graph outlives the chunk it is needed for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fklit.pipelines.denoised import denoised
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.level_grid import GridLevel
from fklit.pipelines.microbatch import call_in_chunks, first_tensor, take_rows
from fklit.pipelines.network_time import NetworkTime, find_time
from fklit.pipelines.prediction_weights import TOLERANCE, check_distinct, find_weights, relative_error
from fklit.pipelines.step_call import NetworkCall, StepCall
from fklit.pipelines.transition import as_double

_SAMPLES = ("sample", "hidden_states", "x")


@dataclass(frozen=True)
class _Rows:
    """Where the samples stand in the rows of a call, once or more often: `rows = scale * sample`."""

    name: str | int
    value: Tensor
    scale: float
    blocks: int


class NetworkReplay:
    """The denoiser's calls of one step, ready to be made again.

    Args:
        call: the step, whose interception keeps the denoiser's calls.
        max_batch: most rows of a call, padded to exactly this number; None for all at once.
        checkpoint: whether the denoiser recomputes its blocks in the backward pass, for less memory.
        otherwise: what the user can do where this cannot be done, for messages.

    Attributes:
        evaluations: rows evaluated so far.

    Raises:
        UnsupportedPipelineError: the model output is no linear combination of the predictions (rescaled guidance), or
            the denoiser's input is not the sample times a number.
    """

    def __init__(
        self,
        call: StepCall,
        *,
        max_batch: int | None = None,
        checkpoint: bool = False,
        otherwise: str = "use a pipeline with plain guidance",
    ) -> None:
        self.evaluations = 0
        self._call = call
        self._max_batch = max_batch
        self._checkpoint = checkpoint
        self._rows = [_find_rows(item, call.sample, otherwise) for item in call.network_calls]
        self._weights = find_weights(call, otherwise)
        self._otherwise = otherwise
        self._times: list[NetworkTime] = []

    @property
    def sample(self) -> Tensor:
        """The parents of the step, (N, C, ...)."""
        return self._call.sample

    @property
    def network(self) -> nn.Module:
        """The denoiser that is called first."""
        found: nn.Module = self._call.network_calls[0].network
        return found

    def pull_back(self, cotangent: Tensor) -> Tensor:
        """Return the gradient of `sum(cotangent * x0)` with respect to the sample, x0 being the denoised prediction.

        Args:
            cotangent: (N, C, ...), such as the gradient of a reward with respect to x0.

        Returns:
            (N, C, ...), float32.
        """
        call = self._call
        with torch.inference_mode(False), torch.enable_grad():
            # Clones, as tensors made in inference mode take no gradient.
            sample, output = (part.float().clone().requires_grad_() for part in (call.sample, call.model_output))
            x0 = denoised(call.scheduler, output, call.timestep, sample)
            # Neither may be used at all: the prediction itself may be what the network gives, or be clipped away.
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                x0, (sample, output), cotangent.float().clone(), allow_unused=True
            )
        direct, through = found
        total = torch.zeros_like(cotangent, dtype=torch.float32) if direct is None else direct
        if through is None:
            return total
        weights = iter(self._weights)
        peak = through.abs().max().clamp(min=1e-30)  # taken out, so that nothing underflows in half precision
        for item, rows in zip(call.network_calls, self._rows, strict=True):
            incoming = torch.cat([next(weights) * through / peak for _ in range(rows.blocks)])
            gradient = self._network_gradient(item, rows, incoming)
            total = total + rows.scale * peak * gradient.reshape(rows.blocks, *total.shape).sum(dim=0)
        return total

    def find_times(self, level: GridLevel) -> list[NetworkTime]:
        """Find the timesteps of the calls, so that `predict` can be asked at other levels.

        Args:
            level: of the step itself.

        Raises:
            UnsupportedPipelineError: a call has no timestep that can be changed, or its samples are not scaled as the
                scheduler scales them.
        """
        config = self._call.scheduler.config
        number = int(config.get("num_train_timesteps", 1000))
        for item, rows in zip(self._call.network_calls, self._rows, strict=True):
            wanted = level.input_scale
            if abs(rows.scale - wanted) > TOLERANCE.get(rows.value.dtype, 2e-2) * wanted:
                raise UnsupportedPipelineError(
                    f"expected {type(item.network).__name__} to take the samples times {wanted:.4g}, as "
                    f"{type(self._call.scheduler).__name__} scales them, got {rows.scale:.4g}; {self._otherwise}."
                )
        check_distinct(self._call, [rows.name for rows in self._rows], self._otherwise)
        self._times = [find_time(item, level.timestep, number, self._otherwise) for item in self._call.network_calls]
        return self._times

    def predict(self, samples: Tensor, rows: Tensor, *, at: GridLevel | None = None) -> Tensor:
        """Return the model output for other samples in some of the rows, each with the conditions of its row.

        Args:
            samples: (n, C, ...), at the noise level of the step, or at another.
            rows: (n,), which rows of the step they stand in.
            at: the level; None for the step's own. Guidance is the combination that the step had. `find_times` comes
                first.
        """
        call, count = self._call, self._call.sample.shape[0]
        weights, output = iter(self._weights), torch.zeros(())
        for number, (item, found) in enumerate(zip(call.network_calls, self._rows, strict=True)):
            total = found.value.shape[0]
            index = torch.cat([rows.cpu() + block * count for block in range(found.blocks)])
            args, kwargs = take_rows(item.args, index, total), take_rows(dict(item.kwargs), index, total)
            kwargs |= _frames_of_rows(item.kwargs, index, total, self._call.sample)
            own = (args[found.name] if isinstance(found.name, int) else kwargs[found.name]).clone()
            scale = found.scale if at is None else at.input_scale
            own[:, : samples.shape[1]] = (scale * samples).to(own.dtype).repeat(found.blocks, *[1] * (samples.ndim - 1))
            if isinstance(found.name, int):
                args = (*args[: found.name], own, *args[found.name + 1 :])
            else:
                kwargs[found.name] = own
            if at is not None:
                args, kwargs = self._times[number].put(args, kwargs, at.timestep)
            self.evaluations += len(index)
            size = self._max_batch or len(index)
            prediction = first_tensor(call_in_chunks(item.run, args, kwargs, rows=len(index), size=size))
            assert prediction is not None
            for block in torch.split(prediction, len(rows)):
                output = output + next(weights) * block[:, : call.model_output.shape[1]].float()
        return output.to(call.model_output.dtype)

    def _network_gradient(self, item: NetworkCall, rows: _Rows, incoming: Tensor) -> Tensor:
        """Gradient of one call's prediction with respect to the samples in its rows, (rows, C, ...)."""
        width = self._call.sample.shape[1]

        def backward(*args: Any, incoming: Tensor, **kwargs: Any) -> Tensor:
            args, kwargs = _normal(args), _normal(kwargs)
            own = (args[rows.name] if isinstance(rows.name, int) else kwargs[rows.name]).requires_grad_()
            if isinstance(rows.name, int):
                args = (*args[: rows.name], own, *args[rows.name + 1 :])
            else:
                kwargs = {**kwargs, rows.name: own}
            prediction = first_tensor(item.run(*args, **kwargs))
            assert prediction is not None
            cotangent = torch.zeros_like(prediction)
            cotangent[:, : incoming.shape[1]] = incoming.to(prediction.dtype)
            gradient: Tensor = torch.autograd.grad(prediction, own, cotangent)[0]
            return gradient[:, :width].float()

        total = rows.value.shape[0]
        self.evaluations += total
        with torch.inference_mode(False), torch.enable_grad(), _checkpointing(item.network, self._checkpoint):
            found: Tensor = call_in_chunks(
                backward, item.args, {**item.kwargs, "incoming": incoming}, rows=total, size=self._max_batch or total
            )
        return found


def _find_rows(item: NetworkCall, sample: Tensor, otherwise: str) -> _Rows:
    """The argument that holds the samples, which is the first of its tensors (see `microbatch.rows_of`)."""
    named: list[tuple[str | int, Any]] = [(name, item.kwargs.get(name)) for name in _SAMPLES]
    named += [*enumerate(item.args), *item.kwargs.items()]
    name, value = next((pair for pair in named if isinstance(pair[1], Tensor) and pair[1].ndim > 1), ("", None))
    kind = type(item.network).__name__
    if value is None or value.ndim != sample.ndim or value.shape[0] % sample.shape[0] != 0:
        raise UnsupportedPipelineError(
            f"expected a denoiser that takes the samples {tuple(sample.shape)} as a tensor of as many axes, got "
            f"{kind}, which does not; {otherwise}."
        )
    # What is not finite, in rows that on_nan='drop' lets die, has no say.
    own = as_double(value[:, : sample.shape[1]]).nan_to_num(0.0, 0.0, 0.0)
    wanted = (
        as_double(sample).nan_to_num(0.0, 0.0, 0.0).repeat(value.shape[0] // sample.shape[0], *[1] * (sample.ndim - 1))
    )
    if own.shape == wanted.shape:
        scale = float((own * wanted).sum() / wanted.square().sum().clamp(min=1e-30))
        if relative_error(scale * wanted, own) < TOLERANCE.get(value.dtype, 2e-2):
            return _Rows(name, value, scale, value.shape[0] // sample.shape[0])
    raise UnsupportedPipelineError(
        f"expected {kind} to take the samples times a number, got an argument {name!r} that is something else; "
        f"{otherwise}."
    )


def _frames_of_rows(kwargs: dict[str, Any], index: Tensor, total: int, sample: Tensor) -> dict[str, Tensor]:
    """The arguments with an entry for each frame of a video (motion modules take such), of some rows."""
    frames = sample.shape[2] if sample.ndim == 5 else 1
    return {
        name: value.reshape(total, frames, *value.shape[1:])[index.to(value.device)].flatten(0, 1)
        for name, value in kwargs.items()
        if frames > 1 and isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == total * frames
    }


def _normal(value: Any) -> Any:
    """Clones of tensors, which autograd may save whatever mode they were made in."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) is dict:
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_normal(item) for item in value)
    return value


@contextmanager
def _checkpointing(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Has a network of diffusers recompute its blocks in the backward pass within the context."""
    enable: Callable[[], None] | None = getattr(network, "enable_gradient_checkpointing", None)
    if not wanted or getattr(network, "is_gradient_checkpointing", False):
        yield
        return
    disable: Callable[[], None] | None = getattr(network, "disable_gradient_checkpointing", None)
    if enable is None or disable is None or not getattr(network, "_supports_gradient_checkpointing", True):
        raise UnsupportedPipelineError(
            f"checkpoint=True expected a denoiser with gradient checkpointing, got {type(network).__name__}, which has "
            "none; set checkpoint=False and a smaller max_batch."
        )
    enable()
    try:
        yield
    finally:
        disable()

"""One step of a pipeline's call as a method sees it, and what the method may change of it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from torch import Tensor

from fklit.pipelines.denoised import denoised


@dataclass(frozen=True)
class NetworkCall:
    """One call of the denoiser, as it was made, so that it can be made again.

    Attributes:
        network: the denoiser.
        run: calls it, outside of the interception.
        args: positional arguments.
        kwargs: keyword arguments.
        prediction: what it returned, (rows, ...).
    """

    network: Any
    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    prediction: Tensor


@dataclass(frozen=True)
class StepCall:
    """One call of `scheduler.step`, before it happens.

    Attributes:
        index: position in the run; 0 is the noisiest.
        num_steps: number of calls in the run (not always the number of inference steps: second-order samplers call
            twice a step, image-to-image pipelines skip the first ones).
        timestep: the timestep, as the pipeline passes it.
        sample: the parents x_t, of shape (N, C, ...).
        model_output: the denoiser's prediction after guidance.
        scheduler: the scheduler, not yet stepped.
        predictions: what the denoiser returned since the step before, in order: with guidance one tensor of twice the
            rows, or two of N rows (see `fklit.pipelines.guidance_predictions.guidance_predictions`).
        arguments: the other arguments of the step, such as `eta`.
        network_calls: the denoiser's calls since the step before, if the interception keeps them.
    """

    index: int
    num_steps: int
    timestep: Any
    sample: Tensor
    model_output: Tensor
    scheduler: Any
    predictions: tuple[Tensor, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    network_calls: tuple[NetworkCall, ...] = ()

    def at(self, sample: Tensor) -> Self:
        """Return this step of another sample of the same shape, such as the same one in another precision."""
        return replace(self, sample=sample)

    def denoised(self) -> Tensor:
        """The denoised prediction `E[x_0 | x_t]` of the parents, (N, C, ...)."""
        return denoised(self.scheduler, self.model_output, self.timestep, self.sample)


@dataclass(frozen=True)
class StepChange:
    """What a hook changes of a step.

    Attributes:
        ancestors: flat ancestors (N,) by which the parents are replaced, or None.
        model_output: taken in place of the pipeline's, of its shape, in the order of the parents before they are
            replaced; or None.
        children: gets what the scheduler made of the (replaced) parents, (N, C, ...), and returns what goes on in its
            place, of its shape and dtype; or None.
        sample: takes the place of the parents, (N, C, ...), in the order before they are replaced, with a
            `model_output` of its own; or None.
    """

    ancestors: Tensor | None = None
    model_output: Tensor | None = None
    children: Callable[[Tensor], Tensor] | None = None
    sample: Tensor | None = None


class StepHook(Protocol):
    """What an algorithm does with an intercepted run."""

    def begin(self, num_steps: int, noisy: Callable[[Collection[int]], dict[int, bool]]) -> None:
        """Called once, at the first step; `noisy` tells which calls inject noise (no denoiser call is spent)."""

    def step(self, call: StepCall) -> Tensor | StepChange | None:
        """Called before each step; returns flat ancestors (N,), a change, or None for nothing."""

"""The interception of any diffusers pipeline: every `scheduler.step` of a call, seen before it happens.

The pipeline is neither forked nor changed. For the length of a context, `scheduler.step` and the calls of the
denoiser and of `vae.decode` go through fklit: a hook sees the parents `x_t` with their denoised prediction and may
resample them. The scheduler then draws the children of the resampled parents, so that clones separate at once and no
denoiser call is spent on them. On leaving the context, also by an error, everything is as before.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from fklit.pipelines.chunkable import why_not_in_chunks
from fklit.pipelines.conditioning import PerParticleConditioning
from fklit.pipelines.copied_step import InterceptedStep
from fklit.pipelines.decode import DecodeTap, restore_attribute
from fklit.pipelines.denoisers import denoisers_of
from fklit.pipelines.flow.kernel import FlowKernel
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.microbatch import call_in_chunks, first_tensor, intercept_call, rows_of
from fklit.pipelines.position import first_position
from fklit.pipelines.reindex import is_per_sample, reindex_state
from fklit.pipelines.shared_encoding import shared_encodings
from fklit.pipelines.shared_rows import SharedRows
from fklit.pipelines.step_call import NetworkCall, StepCall, StepChange, StepHook
from fklit.pipelines.step_output import with_sample
from fklit.pipelines.stochasticity import noisy_calls

_MARK = "_fklit_intercepted"
_STEPPED = frozenset({"model_output", "timestep", "sample"})


class UnsupportedPipelineError(ValueError):
    """This pipeline, or this use of it, cannot be intercepted correctly."""


class Interception:
    """Context manager that shows each step of a pipeline's call to a hook.

    Args:
        pipeline: a diffusers pipeline object.
        hook: sees every step, see `StepHook`.
        generators: one generator a slot (N; the same object for the particles of a prompt), from which the scheduler
            draws. The noise belongs to the slots, not to the particles. None leaves the pipeline's own.
        scheduler: runs the pipeline with this scheduler within the context; None keeps the pipeline's.
        kernel: takes the steps of a flow-matching scheduler within the context; None leaves the scheduler's own.
        eta: value forced on the `eta` argument of `scheduler.step`; None leaves what the pipeline sends.
        max_batch: most rows that the denoiser and the decoder get at once, in chunks of exactly this size (the last
            one padded), so that the result of a row does not depend on the batch it is in; None for no limit.
        decode_batch: most rows that the decoder gets at once; None for `max_batch`.
        group_size: particles of one prompt, whose rows lie side by side; what differs between them in the denoiser's
            arguments moves with the particles. None compares nothing.
        shares_encoding: whether the particles of a prompt share one encoding of a picture.
        resamples: whether the hook may resample.
        keeps_calls: whether the hook gets the denoiser's calls, to make them again.
        may_edit: whether the pipeline may edit latents between steps, as inpainting does: then nothing may depend on
            the law of a step.

    Attributes:
        returned: what the scheduler's last step returned, (N, C, ...); None before the first.
        denoiser_calls: denoiser evaluations so far, counted by rows: guidance evaluates two rows a particle.
        steps_taken: scheduler steps so far.
        num_steps: expected number of steps, None before the first.

    Raises:
        UnsupportedPipelineError: on entering, if the pipeline has no scheduler with a `step` of samples or no
            denoiser that fklit knows; during the run, if the pipeline edits latents between steps.
    """

    def __init__(
        self,
        pipeline: Any,
        hook: StepHook,
        *,
        generators: Sequence[torch.Generator] | None = None,
        scheduler: Any = None,
        kernel: FlowKernel | None = None,
        eta: float | None = None,
        max_batch: int | None = None,
        decode_batch: int | None = None,
        group_size: int | None = None,
        shares_encoding: bool = False,
        resamples: bool = True,
        keeps_calls: bool = False,
        may_edit: bool = False,
    ) -> None:
        if max_batch is not None and max_batch < 1:
            raise ValueError(
                f"expected max_batch of at least 1, or None for no limit, got max_batch={max_batch}; raise it."
            )
        self.decoder = DecodeTap(pipeline, max_batch=max_batch if decode_batch is None else decode_batch)
        self.denoiser_calls = 0
        self.steps_taken = 0
        self.num_steps: int | None = None
        self._pipeline = pipeline
        self._hook = hook
        self._generators = None if generators is None else list(generators)
        self._scheduler = scheduler
        self._kernel = kernel
        self._eta = eta
        self._max_batch = max_batch
        self._stack = ExitStack()
        self._shares_encoding = shares_encoding
        self._group_size = group_size or 1
        self._resamples = resamples
        self._may_edit = may_edit
        self._keeps_calls = keeps_calls
        self._calls: list[NetworkCall] = []
        self._conditioning: PerParticleConditioning | None = None
        self._control: PerParticleConditioning | None = None  # of a ControlNet, which may be called less often
        if resamples and self._generators is not None and (group_size or 1) > 1:
            self._conditioning = PerParticleConditioning(len(self._generators), group_size or 1, self._refusal)
            self._control = PerParticleConditioning(len(self._generators), group_size or 1, self._refusal)
        self._shared: SharedRows | None = None
        self._shape: torch.Size | None = None
        self.returned: Tensor | None = None
        self._predictions: list[Tensor] = []
        self.scheduler: Any = scheduler or getattr(pipeline, "scheduler", None)

    def __enter__(self) -> "Interception":
        pipeline = self._pipeline
        denoisers = denoisers_of(pipeline)
        scheduler = self.scheduler
        names = inspect.signature(scheduler.step).parameters if hasattr(scheduler, "step") else {}
        if not denoisers or not {"sample", "model_output", "timestep"} <= set(names):
            raise UnsupportedPipelineError(
                "expected a diffusers pipeline with a unet or transformer and a scheduler whose step takes "
                f"model_output, timestep and sample, got {type(pipeline).__name__}; use another pipeline."
            )
        cached = [type(module).__name__ for module in denoisers if getattr(module, "is_cache_enabled", False)]
        if cached and (self._resamples or self._max_batch is not None):
            raise UnsupportedPipelineError(
                f"{cached[0]} caches what it computed for each row between steps, which neither resampling nor "
                "max_batch can follow; call its disable_cache(), or use potential='terminal' with max_batch=None."
            )
        with self._stack:
            for part in (*denoisers, getattr(pipeline, "vae", None)):
                self._claim(part)
            if self._scheduler is not None:
                self._stack.callback(setattr, pipeline, "scheduler", pipeline.scheduler)
                pipeline.scheduler = self._scheduler
            self._stack.enter_context(self.decoder.installed())
            if self._shares_encoding:
                self._stack.enter_context(shared_encodings(pipeline, self._group_size))
            for module in denoisers:
                self._stack.enter_context(intercept_call(module, functools.partial(self._denoise, module)))
            control = getattr(pipeline, "controlnet", None)
            if self._control is not None and isinstance(control, torch.nn.Module):
                self._stack.enter_context(intercept_call(control, functools.partial(self._controlled, control)))
            if self._kernel is not None:
                self._stack.enter_context(stochastic_steps(scheduler, self._kernel, self._generators))
            self._patch_step(scheduler)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._stack.close()
        return False

    def share_rows(self, groups: Tensor, copies: int) -> None:
        """Has groups of particles go on with fewer from here on: (B,) bool, those of earlier calls included.

        Of such a group `copies` rows side by side are to be equal from this step on (by its `ancestors`): each step
        gives all of them the first one's child, and the denoiser gets one row of them.
        """
        self._shared = SharedRows(groups, self._group_size, copies)

    def _claim(self, part: Any) -> None:
        """Marks a network as intercepted, or refuses one that another run has marked."""
        if not hasattr(part, "__dict__"):
            return
        mark = object()
        if part.__dict__.setdefault(_MARK, mark) is not mark:
            raise UnsupportedPipelineError(
                f"{type(self._pipeline).__name__}, or another pipeline that shares its {type(part).__name__}, is being "
                "steered already; wait for that run (use a lock), or load a second pipeline with networks of its own."
            )
        self._stack.callback(part.__dict__.pop, _MARK, None)

    def _refusal(self, message: str) -> UnsupportedPipelineError:
        return UnsupportedPipelineError(
            f"in {type(self._pipeline).__name__} {message}; use potential='terminal' (best-of-n)."
        )

    def _patch_step(self, scheduler: Any) -> None:
        original, own = scheduler.step, scheduler.__dict__.get("step")
        signature = inspect.signature(original)

        def step(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            children = self._before(scheduler, bound)
            output = original(*bound.args, **bound.kwargs)
            if children is not None:
                output = with_sample(output, children(output[0]))
            if self._shared is not None:
                output = with_sample(output, self._shared.copied(output[0]))
            self.steps_taken += 1
            self.returned = output[0]
            self._predictions.clear()
            self._calls.clear()
            if self._conditioning is not None:
                self._conditioning.next_step()
            return output

        def refuse() -> NoReturn:
            raise self._refusal(
                f"copies of {type(scheduler).__name__} are stepped, one for each frame or for the sound, which cannot "
                "move with the particles"
            )

        stepped = InterceptedStep(scheduler, functools.wraps(original)(step), None if self._may_edit else refuse)
        scheduler.step = stepped

        def restore() -> None:
            if scheduler.__dict__.get("step") is stepped:
                restore_attribute(scheduler, "step", own)

        self._stack.callback(restore)

    def _controlled(self, module: torch.nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call of a ControlNet, whose control image some pipelines draw once a particle (from a posterior)."""
        if self._control is not None:
            args, kwargs = self._control.arranged(module, args, kwargs, shape=self._shape, sample=self.returned)
        return call(*args, **kwargs)

    def _denoise(self, module: torch.nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        rows = rows_of(args, kwargs)
        if self._conditioning is not None:
            args, kwargs = self._conditioning.arranged(module, args, kwargs, shape=self._shape, sample=self.returned)
        reason = None if self._max_batch is None else why_not_in_chunks(module, args, kwargs, rows)
        if reason is not None:
            raise UnsupportedPipelineError(
                f"max_batch expected a denoiser whose rows can be split, got {reason}; set max_batch=None."
            )

        def evaluate(args: tuple[Any, ...], kwargs: dict[str, Any], rows: int) -> Any:
            if self._max_batch is None:
                return call(*args, **kwargs)
            return call_in_chunks(call, args, kwargs, rows=rows, size=self._max_batch)

        if self._shared is None:
            output = evaluate(args, kwargs, rows)
        else:
            output, rows = self._shared.evaluate(evaluate, args, kwargs, rows)
        self.denoiser_calls += rows
        prediction = first_tensor(output)
        if prediction is not None:
            self._predictions.append(prediction)
            if self._keeps_calls:
                self._calls.append(NetworkCall(module, call, args, kwargs, prediction))
        return output

    def _before(self, scheduler: Any, bound: inspect.BoundArguments) -> Callable[[Tensor], Tensor] | None:
        """Shows a step to the hook and changes its arguments; returns what shall be done with its children."""
        given = bound.arguments
        sample: Tensor = given["sample"]
        names = bound.signature.parameters
        if self.num_steps is not None and self.steps_taken >= self.num_steps:
            raise UnsupportedPipelineError(
                f"the pipeline takes more than the {self.num_steps} steps of one call; call it once within a context, "
                "and make another context for another call."
            )
        self._check_sample(sample)
        self._shape = sample.shape
        if self._eta is not None and "eta" in names:
            given["eta"] = self._eta
        if self._generators is not None and "generator" in names and given.get("variance_noise") is None:
            given["generator"] = self._generators
        if self.num_steps is None:
            self._begin(scheduler, given)
        assert self.num_steps is not None
        answer = self._hook.step(
            StepCall(
                index=self.steps_taken,
                num_steps=self.num_steps,
                timestep=given["timestep"],
                sample=sample,
                model_output=given["model_output"],
                scheduler=scheduler,
                predictions=tuple(self._predictions),
                arguments={name: given[name] for name in given.keys() - _STEPPED},
                network_calls=tuple(self._calls),
            )
        )
        change = answer if isinstance(answer, StepChange) else StepChange(answer)
        if change.model_output is not None:
            given["model_output"] = change.model_output
        if change.sample is not None:
            given["sample"] = sample = change.sample
        ancestors = change.ancestors
        if ancestors is not None:
            ancestors = ancestors.to(sample.device)
            for name, value in given.items():
                if is_per_sample(value, sample) or name == "model_output":
                    given[name] = value[ancestors]
            reindex_state(scheduler, sample.shape, ancestors)
            for conditioning in (self._conditioning, self._control):
                if conditioning is not None:
                    conditioning.select(ancestors)
        return change.children

    def _begin(self, scheduler: Any, given: dict[str, Any]) -> None:
        timesteps = list(scheduler.timesteps)[first_position(scheduler, given["timestep"]) :]
        self.num_steps = len(timesteps)
        rows = given["sample"].shape[0]
        one = {
            name: value[:1].detach().clone() if isinstance(value, Tensor) and value.shape[:1] == (rows,) else value
            for name, value in given.items()
        }
        self._hook.begin(self.num_steps, functools.partial(noisy_calls, scheduler, one, timesteps))

    def _check_sample(self, sample: Tensor) -> None:
        rows = None if self._generators is None else len(self._generators)
        if rows is not None and sample.shape[0] != rows:
            halves = ": it steps both halves of guidance, so use guidance_scale=1 in pipeline_kwargs."
            raise UnsupportedPipelineError(
                f"expected {type(self._pipeline).__name__} to step {rows} samples (prompts x num_particles), got "
                f"{len(sample)}" + (halves if len(sample) == 2 * rows else "; use one that steps one sample an image.")
            )
        before = self.returned
        if before is None or sample is before or self._may_edit:
            return
        if sample.shape != before.shape or not torch.equal(sample, before.to(sample.dtype)):
            raise UnsupportedPipelineError(
                f"{type(self._pipeline).__name__} edits latents between steps, so particles cannot be resampled "
                "correctly; use a pipeline, and callbacks, that leave them alone."
            )

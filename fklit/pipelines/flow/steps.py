"""A kernel in the place of a scheduler's own step, for the length of a context."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.denoised import denoised
from fklit.pipelines.flow.kernel import FlowKernel
from fklit.pipelines.transition import Transition, draw

_PREVIOUS = "_fklit_previous_denoised"
_KERNEL = "_fklit_kernel"


class UnsupportedFlowError(ValueError):
    """A scheduler, or a use of it, whose stochastic step would not sample the flow-matching model."""


class _Stepped(tuple[Tensor]):
    """What a step returns: a tuple, also under `return_dict=True`, with the sample by name."""

    @property
    def prev_sample(self) -> Tensor:
        return self[0]


def check_flow_scheduler(scheduler: Any) -> None:
    """Refuse a scheduler on whose grid no kernel of flow matching is right.

    Args:
        scheduler: a flow-matching Euler scheduler, or a solver of DPM-Solver's family that is configured for flows.

    Raises:
        UnsupportedFlowError: naming the option and the fix.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if config.get("stochastic_sampling", False):
        raise UnsupportedFlowError(
            f"{name} has stochastic_sampling=True, the multi-step sampler of distilled models, in whose place no "
            "kernel may stand; set scheduler='keep' to resample under it, or build the scheduler without it"
        )
    if config.get("invert_sigmas", False):
        raise UnsupportedFlowError(
            f"{name} has invert_sigmas=True, whose grid rises where kernels of flow matching expect one that falls"
        )
    if "use_flow_sigmas" in config and not config["use_flow_sigmas"]:
        raise UnsupportedFlowError(
            f"{name} predicts a flow but has use_flow_sigmas=False, so its noise levels are those of another process; "
            "build it with use_flow_sigmas=True"
        )
    if config.get("final_sigmas_type", "zero") != "zero":
        raise UnsupportedFlowError(
            f"{name} has final_sigmas_type={config['final_sigmas_type']!r}, so its grid ends above 0 and samples keep "
            "noise; build it with final_sigmas_type='zero'"
        )
    if config.get("prediction_type", "flow_prediction") not in ("flow_prediction", "sample", "epsilon"):
        raise UnsupportedFlowError(f"{name} has prediction_type={config['prediction_type']!r}, which is no flow's")


@contextmanager
def stochastic_steps(
    scheduler: Any, kernel: FlowKernel, generators: Sequence[torch.Generator] | None = None
) -> Iterator[None]:
    """Have a flow-matching scheduler step by a kernel within the context.

    The scheduler stays the same object with the grid that the pipeline gives it (dynamic shifting, `sigmas=`, `mu`):
    only its class is replaced, by one that derives from it. Afterwards it is as before.

    ```python
    with stochastic_steps(pipeline.scheduler, get_flow_kernel("sde", 0.7)):
        images = pipeline("a red heart", generator=generator).images
    ```

    Args:
        scheduler: a `FlowMatchEulerDiscreteScheduler`, or a multi-step DPM-Solver or UniPC configured for flows.
        kernel: takes the steps; at noise level 0 the scheduler's own step is called, bit for bit.
        generators: one a sample, from which the noise is drawn where the pipeline sends none; None for torch's global
            generator.

    Raises:
        UnsupportedFlowError: on entering, for a scheduler that no kernel fits; at a step with `per_token_timesteps`.
    """
    if kernel.noise_level == 0:
        yield
        return
    check_flow_scheduler(scheduler)
    own = type(scheduler)
    step = _make_step(own, kernel, None if generators is None else list(generators))
    # A copy of the scheduler, by which fklit probes for noise, has this class, too; an attribute would be bound to the
    # original.
    members: dict[str, Any] = {"step": step, "__module__": own.__module__, _KERNEL: kernel}
    if not hasattr(own, "scale_model_input"):  # Bria asks for it of any class but the Euler scheduler's own
        members["scale_model_input"] = _unscaled
    replaced = type(own.__name__, (own,), members)
    scheduler.__class__ = replaced
    try:
        yield
    finally:
        scheduler.__dict__.pop(_PREVIOUS, None)
        scheduler.__class__ = own


def takes_kernel_steps(scheduler: Any) -> bool:
    """Return whether a kernel takes this scheduler's steps at present (see `stochastic_steps`)."""
    return hasattr(type(scheduler), _KERNEL)


def kernel_transition(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> tuple[Transition, Tensor]:
    """Return the law of the step that a kernel is about to take, in float32, and the denoised prediction.

    Args:
        scheduler: within `stochastic_steps`; at the first step of a run its position is set.
        output: the velocity (N, ...).
        timestep: of the step.
        sample: x, (N, ...).
    """
    kernel: FlowKernel = getattr(type(scheduler), _KERNEL)
    if scheduler.step_index is None:  # the first step of a run
        scheduler._init_step_index(timestep)
        setattr(scheduler, _PREVIOUS, None)
    index = scheduler.step_index
    levels = [float(scheduler.sigmas[i]) for i in (index, index + 1)]
    previous = getattr(scheduler, _PREVIOUS, None)
    # In float32: x0 of a bfloat16 sample would be off by a hundredth.
    x0 = denoised(scheduler, output, timestep, sample.float())
    transition = kernel.transition(
        sample.float(),
        x0,
        *levels,
        previous=previous,
        previous_sigma=None if previous is None else float(scheduler.sigmas[index - 1]),
    )
    return transition, x0


def _unscaled(self: Any, sample: Tensor, timestep: Any = None) -> Tensor:
    """A flow-matching network takes the sample as it is."""
    return sample


def _make_step(own: Any, kernel: FlowKernel, generators: list[torch.Generator] | None) -> Any:
    signature = inspect.signature(own.step)
    parameters = list(signature.parameters.values())
    if "generator" not in signature.parameters:
        parameters.append(inspect.Parameter("generator", inspect.Parameter.KEYWORD_ONLY, default=None))
    signature = signature.replace(parameters=parameters)
    euler = "per_token_timesteps" in signature.parameters or own.__name__.startswith("FlowMatch")

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        if given.get("per_token_timesteps") is not None:
            raise UnsupportedFlowError(
                f"expected one noise level a step, got per_token_timesteps, for which {own.__name__} has no stochastic "
                "step in fklit; use potential='terminal' (best-of-n)."
            )
        sample, output = given["sample"], given["model_output"]
        transition, x0 = kernel_transition(self, output, given["timestep"], sample)
        stepped = transition.mean
        if transition.std > 0:
            stepped = draw(transition, _noise(given, generators, stepped))
        if kernel.uses_change:
            setattr(self, _PREVIOUS, x0)
        self._step_index += 1
        # Each as its own step does: the Euler scheduler returns the denoiser's precision, the solvers the sample's.
        return _Stepped((stepped.to(output.dtype if euler else sample.dtype),))

    step.__signature__ = signature  # type: ignore[attr-defined]  # pipelines read it
    return step


def _noise(given: dict[str, Any], generators: list[torch.Generator] | None, like: Tensor) -> Tensor:
    from diffusers.utils.torch_utils import randn_tensor

    ready: Tensor | None = given.get("variance_noise")
    if ready is not None:
        return ready.to(like)
    sent = given.get("generator")
    source = generators if sent is None else sent
    noise: Tensor = randn_tensor(like.shape, generator=source, device=like.device, dtype=like.dtype)
    return noise

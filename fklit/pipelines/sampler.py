"""Which sampler a pipeline runs with when its particles shall be resampled."""

from dataclasses import dataclass
from typing import Any, Literal

from fklit.pipelines.families import (
    ZERO_SNR_ETA,
    NoStochasticSiblingError,
    family_name,
    family_of,
    stochastic_sibling,
)
from fklit.pipelines.flow.kernel import FlowKernel
from fklit.pipelines.flow.names import DEFAULT_KERNEL, FlowKernelName, get_flow_kernel
from fklit.pipelines.flow.steps import UnsupportedFlowError, check_flow_scheduler
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.named import is_one_of
from fklit.pipelines.refusals import check_task

_OTHERWISE: dict[str | None, str] = {
    "variance-preserving": ", or DPMSolverMultistepScheduler with algorithm_type='sde-dpmsolver++', or DDIM with eta=1",
    "EDM": ", or EDMDPMSolverMultistepScheduler with algorithm_type='sde-dpmsolver++'",
}


_READ_SIGMAS = ("StableDiffusionLatentUpscale",)


class DeterministicSamplerError(ValueError):
    """Resampling was asked for, but the sampler injects no noise by which clones could separate."""


@dataclass(frozen=True)
class Sampler:
    """A choice of sampler.

    Attributes:
        scheduler: runs in place of the pipeline's own; None keeps it.
        eta: is forced on its steps; None leaves what the pipeline sends.
        name: describes it.
        swap: a message that says what was changed, or None.
        kernel: takes the steps of a flow-matching scheduler; None for the scheduler's own.
    """

    scheduler: Any
    eta: float | None
    name: str
    swap: str | None = None
    kernel: FlowKernel | None = None


def choose_sampler(
    pipeline: Any,
    choice: Literal["auto", "stochastic", "keep"],
    *,
    eta: float | None,
    resamples: bool,
    flow_kernel: FlowKernelName = DEFAULT_KERNEL,
    noise_level: float | None = None,
) -> Sampler:
    """Return the pipeline's own sampler, or a stochastic sibling or kernel of a deterministic one.

    Args:
        pipeline: a diffusers pipeline.
        choice: "keep" for its own, "auto" for a stochastic one if it resamples, "stochastic" for one in any case.
        eta: the `eta` the pipeline will be called with, which is not overridden; None for none.
        resamples: whether particles may be resampled before the end; if not, every sampler will do.
        flow_kernel: which kernel is given to a flow-matching scheduler.
        noise_level: of the kernel; None for its own.

    Raises:
        DeterministicSamplerError: if particles shall be resampled at noise level 0.
        ValueError: for another choice, or a kernel or noise level that would do nothing.
        UnsupportedPipelineError: if particles shall be resampled and this sampler cannot serve, or the pipeline's task
            is another one than sampling.
    """
    check_task(pipeline)
    if choice not in ("auto", "stochastic", "keep"):
        raise ValueError(f"scheduler expected 'auto', 'stochastic' or 'keep', got {choice!r}; use one of them.")
    own = getattr(pipeline, "scheduler", None)
    name = type(own).__name__
    described = name if eta is None else f"{name} with eta={eta:g}"
    if own is None or not (resamples or choice == "stochastic"):
        return Sampler(None, None, described)
    if not resamples:
        try:
            return choose_sampler(
                pipeline, choice, eta=eta, resamples=True, flow_kernel=flow_kernel, noise_level=noise_level
            )
        except (DeterministicSamplerError, UnsupportedPipelineError) as error:
            raise type(error)(
                f"scheduler='stochastic' expected a sampler that draws noise, got none that serves "
                f"({str(error).partition('; ')[0]}); set scheduler='auto', which keeps the pipeline's own here."
            ) from error
    row = family_of(own)
    steps_by_kernel = row is not None and row.sibling == "kernel"
    _check_kernel_is_used(name, choice, steps_by_kernel, flow_kernel, noise_level)
    if steps_by_kernel:
        return _flow_sampler(pipeline, choice, get_flow_kernel(flow_kernel, noise_level), flow_kernel)
    try:
        sibling, forced, sampler = stochastic_sibling(own)
    except NoStochasticSiblingError as error:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be resampled: {error}; use potential='terminal' (best-of-n)"
            f"{_OTHERWISE.get(family_name(own), '')}."
        ) from error
    if type(pipeline).__name__.startswith(_READ_SIGMAS) and not hasattr(sibling, "sigmas"):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be resampled: it scales its samples by the scheduler's sigmas, which "
            f"{sampler}, the stochastic sibling of {name}, has not; set pipeline.scheduler to an "
            "EulerAncestralDiscreteScheduler, or use potential='terminal' (best-of-n)."
        )
    if eta == 1.0 and forced == ZERO_SNR_ETA:
        raise UnsupportedPipelineError(
            f"{name} with zero terminal SNR expected an eta below 1, got eta=1, at which its first step takes the root "
            f"of a difference that rounds below 0; use eta={ZERO_SNR_ETA:g}."
        )
    if choice == "keep":
        return Sampler(None, None, described)
    if eta is not None and forced is not None:
        forced, sampler = None, f"{type(sibling).__name__} with eta={eta:g}"
    swap = None
    if choice == "auto" and (sibling is not own or forced is not None):
        swap = (
            f"scheduler='auto' samples with {sampler} in place of {described}, which may inject no noise by which "
            "clones separate; set scheduler='keep' to run the pipeline's own."
        )
    return Sampler(None if sibling is own else sibling, forced, sampler, swap)


def _check_kernel_is_used(
    name: str, choice: str, steps_by_kernel: bool, flow_kernel: str, noise_level: float | None
) -> None:
    """Refuse a kernel that was asked for where none steps; the default one may stand in any configuration."""
    if steps_by_kernel and choice != "keep":
        return
    given = f"noise_level={noise_level:g}" if noise_level is not None else f"flow_kernel={flow_kernel!r}"
    if noise_level is None and flow_kernel == DEFAULT_KERNEL:
        return
    why = "scheduler='keep', which runs the pipeline's own steps" if steps_by_kernel else f"{name}, which is none"
    fix = "set scheduler='auto'" if steps_by_kernel else "omit it (the noise of DDIM is eta in pipeline_kwargs)"
    raise ValueError(f"{given} expected a scheduler of flow matching that a kernel may step, got {why}; {fix}.")


def _hidden_conditions(pipeline: Any) -> str | None:
    """What differs between the particles of a prompt without any argument of the denoiser differing."""
    name = type(pipeline).__name__
    network = getattr(pipeline, "transformer", None)
    if "Inpaint" in name and network is not None and network.config.get("in_channels") != 33:  # masks as channels
        return "mixes the picture outside of the mask, noised once a particle, into the samples between steps"
    if is_one_of(pipeline, ("LTX2", "Kandinsky6")):
        return "steps the sound by a copy of its scheduler"
    if is_one_of(pipeline, ("LTXImageToVideo", "LTXI2V")):
        return "joins a first frame, drawn once a particle, to the sample"
    return None


def _flow_sampler(pipeline: Any, choice: str, kernel: FlowKernel, kernel_name: str) -> Sampler:
    own = pipeline.scheduler
    name = type(own).__name__
    if choice == "keep":
        return Sampler(None, None, name)
    hidden = _hidden_conditions(pipeline)
    if hidden is not None:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be resampled: it {hidden}, which stays in its slot when particles move; "
            "use potential='terminal' (best-of-n)."
        )
    network = getattr(pipeline, "transformer", None)
    if getattr(getattr(network, "config", None), "flow_map", False):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be resampled: its {type(network).__name__} is a flow map, whose "
            "prediction is the jump to the next noise level and not a velocity, of which no stochastic step is known; "
            "use potential='terminal' (best-of-n)."
        )
    try:
        check_flow_scheduler(own)
    except UnsupportedFlowError as error:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} cannot be resampled: {error}; or use potential='terminal' (best-of-n)."
        ) from error
    if kernel.noise_level == 0:
        raise DeterministicSamplerError(
            f"resampling expected a noise_level above 0, got 0, at which {name} takes its own deterministic steps and "
            "clones never separate; raise it, or ask for best-of-n with potential='terminal'."
        )
    described = f"{name} with kernel {kernel_name} at noise level {kernel.noise_level:g}"
    swap = (
        f"scheduler='auto' samples with {described} in place of its own deterministic steps, under which clones never "
        "separate; set flow_kernel and noise_level to choose another, or scheduler='keep' to run its own."
    )
    return Sampler(None, None, described, swap if choice == "auto" else None, kernel)

"""The denoised prediction of a sample, `E[x_0 | x_t]`, before the scheduler takes its step.

Schedulers disagree about what a step returns (27 of diffusers' files have no `pred_original_sample`, and in TCD
element 1 is something else), so the prediction is computed here from the model output, by family:

=============  ====================================  =======================================================
family         forward process                       schedulers
=============  ====================================  =======================================================
cumulative     x = sqrt(a_t) x0 + sqrt(1 - a_t) e    DDIM, DDPM, PNDM, LCM, TCD, CogVideoX, ...
sigma          x = x0 + sigma e                      Euler, Euler ancestral, Heun, KDPM2, LMS, DPMSolverSDE
alpha_sigma    x = alpha x0 + sigma e                DPM-Solver (multi- and single-step), DEIS, UniPC, SA
edm            preconditioned, x = x0 + sigma e      EDM Euler, EDM DPM-Solver, Cosine DPM-Solver
flow           x = (1 - sigma) x0 + sigma e          flow matching Euler, Heun, LCM
consistency    x = x0 + sigma e, skip connection     consistency models (CMStochasticIterative)
=============  ====================================  =======================================================
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class UnknownSchedulerError(ValueError):
    """No formula is known for the denoised prediction of this scheduler."""


def denoised(scheduler: Any, model_output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """The denoised prediction `E[x_0 | x_t]` of the state that the scheduler is about to step.

    Args:
        scheduler: a diffusers scheduler, not yet stepped at this timestep; it is not changed.
        model_output: what the denoiser predicted for `sample` (after guidance), of shape (N, C, ...); with a learned
            variance (N, 2C, ...), of which the first half counts.
        timestep: the timestep the scheduler is about to be stepped with.
        sample: x_t as the scheduler holds it (not scaled for the model), of shape (N, C, ...).

    Returns:
        The prediction, of the shape and dtype of `sample`, clipped or thresholded where the config says so.

    Raises:
        UnknownSchedulerError: if the scheduler's family is not known.
    """
    family = _family(scheduler)
    if model_output.shape[1] == 2 * sample.shape[1]:  # learned variance
        model_output = model_output[:, : sample.shape[1]]
    prediction = family(scheduler, model_output.float(), timestep, sample.float())
    config = scheduler.config
    if config.get("thresholding", False):
        prediction = scheduler._threshold_sample(prediction)
    elif config.get("clip_sample", False) and not type(scheduler).__name__.startswith("CogVideoX"):  # ignore it
        bound = float(config.get("clip_sample_range", 1.0))
        prediction = prediction.clamp(-bound, bound)
    result: Tensor = prediction.to(sample.dtype)
    return result


def is_known(scheduler: Any) -> bool:
    """Whether `denoised` has a formula for this scheduler."""
    return any(base.__name__ in _FAMILIES for base in type(scheduler).__mro__)


def _family(scheduler: Any) -> Callable[[Any, Tensor, Any, Tensor], Tensor]:
    for base in type(scheduler).__mro__:
        if base.__name__ in _FAMILIES:
            return _FAMILIES[base.__name__]
    raise UnknownSchedulerError(
        f"expected a scheduler whose denoised prediction is known, got {type(scheduler).__name__}; use one of "
        f"{', '.join(sorted(_FAMILIES))}, or potential='terminal', which needs none."
    )


def _step_index(scheduler: Any, timestep: Any) -> int:
    """The scheduler's position; it is None until the first step of most multi-step schedulers."""
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    if isinstance(timestep, Tensor):
        timestep = timestep.to(scheduler.timesteps.device)
    return int(scheduler.index_for_timestep(timestep))


def _prediction_type(scheduler: Any) -> str:
    return str(scheduler.config.get("prediction_type", "epsilon"))


def _from_alpha_sigma(kind: str, output: Tensor, sample: Tensor, alpha: Tensor, sigma: Tensor, name: str) -> Tensor:
    """Solves `sample = alpha x0 + sigma e` for x0, given a prediction of kind `kind`."""
    if kind == "epsilon":
        return (sample - sigma * output) / alpha
    if kind in ("sample", "original_sample"):
        return output
    if kind == "v_prediction":  # v = alpha e - sigma x0, of the process with alpha^2 + sigma^2 = 1
        return alpha * sample - sigma * output
    if kind == "flow_prediction":  # v = e - x0 and alpha = 1 - sigma
        return sample - sigma * output
    raise UnknownSchedulerError(
        f"{name} expected prediction_type 'epsilon', 'sample', 'v_prediction' or 'flow_prediction', got {kind!r}; fix "
        "its config."
    )


def _cumulative(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    alpha_bar = scheduler.alphas_cumprod[int(timestep)].to(device=sample.device, dtype=sample.dtype)
    kind = _prediction_type(scheduler)
    return _from_alpha_sigma(kind, output, sample, alpha_bar**0.5, (1 - alpha_bar) ** 0.5, type(scheduler).__name__)


def _sigma(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    index = _step_index(scheduler, timestep)
    sigma = scheduler.sigmas[index]
    if not getattr(scheduler, "state_in_first_order", True):  # the second evaluation of a step stands at a midpoint
        if hasattr(scheduler, "sigmas_interpol"):
            ancestral = "Ancestral" in type(scheduler).__name__
            sigma = scheduler.sigmas_interpol[index - 1 if ancestral else index]
        elif hasattr(scheduler, "mid_point_sigma"):
            sigma = scheduler.mid_point_sigma
    sigma = torch.as_tensor(sigma).to(device=sample.device, dtype=sample.dtype)
    kind = _prediction_type(scheduler)
    if kind == "v_prediction":  # v of the variance preserving process, to which x / sqrt(sigma^2 + 1) belongs
        return sample / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
    return _from_alpha_sigma(kind, output, sample, torch.ones_like(sigma), sigma, type(scheduler).__name__)


def _alpha_sigma(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    index = _step_index(scheduler, timestep)
    alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[index])
    alpha, sigma = (torch.as_tensor(v).to(device=sample.device, dtype=sample.dtype) for v in (alpha, sigma))
    return _from_alpha_sigma(_prediction_type(scheduler), output, sample, alpha, sigma, type(scheduler).__name__)


def _edm(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    sigma = scheduler.sigmas[_step_index(scheduler, timestep)].to(device=sample.device, dtype=sample.dtype)
    prediction: Tensor = scheduler.precondition_outputs(sample, output, sigma)
    return prediction


def _flow(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    sigma = scheduler.sigmas[_step_index(scheduler, timestep)].to(device=sample.device, dtype=sample.dtype)
    prediction: Tensor = sample - sigma * output
    return prediction


def _consistency(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    sigma = scheduler.sigmas[_step_index(scheduler, timestep)].to(device=sample.device, dtype=sample.dtype)
    skip, out = scheduler.get_scalings_for_boundary_condition(sigma)
    prediction: Tensor = out * output + skip * sample
    return prediction.clamp(-1, 1) if scheduler.config.clip_denoised else prediction


_FAMILIES: dict[str, Callable[[Any, Tensor, Any, Tensor], Tensor]] = {
    **dict.fromkeys(
        (
            "DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler",
            "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler",
        ),
        _cumulative,
    ),
    **dict.fromkeys(
        (
            "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
            "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler",
            "DPMSolverSDEScheduler",
        ),
        _sigma,
    ),
    **dict.fromkeys(
        (
            "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler",
            "UniPCMultistepScheduler", "SASolverScheduler",
        ),
        _alpha_sigma,
    ),
    **dict.fromkeys(
        ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler"), _edm
    ),
    **dict.fromkeys(
        ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"), _flow
    ),
    "CMStochasticIterativeScheduler": _consistency,
}  # fmt: skip

"""Every scheduler configuration that the interception is tested on."""

from typing import Any

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def make(name: str) -> Any:
    """A scheduler by class name, with options after a colon: ``DPMSolverMultistepScheduler:sde``."""
    import diffusers

    class_name, _, option = name.partition(":")
    options: dict[str, Any] = {
        "": {},
        "v": {"prediction_type": "v_prediction"},
        "x0": {"prediction_type": "sample"},
        "sde": {"algorithm_type": "sde-dpmsolver++"},
        "sde3": {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        "ode-v": {"prediction_type": "v_prediction"},
        "stochastic": {"stochastic_sampling": True},
    }[option]
    if class_name.startswith(("EDM", "FlowMatch")):
        return getattr(diffusers, class_name)(**options)
    if "DDIM" in class_name or class_name in ("DDPMScheduler", "LCMScheduler", "TCDScheduler"):
        options = {"clip_sample": False, **options}
    return getattr(diffusers, class_name)(**BETAS, **options)


WITH_X0 = (
    "DDIMScheduler", "DDIMScheduler:v", "DDIMScheduler:x0", "DDPMScheduler", "DDPMScheduler:v",
    "EulerDiscreteScheduler", "EulerDiscreteScheduler:v", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
    "EDMEulerScheduler",
)  # fmt: skip
"""Their step returns the denoised prediction."""

WITH_MODEL_OUTPUTS = (
    "DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler:sde", "DPMSolverMultistepScheduler:sde3",
    "DPMSolverMultistepScheduler:ode-v", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
    "SASolverScheduler", "EDMDPMSolverMultistepScheduler",
)  # fmt: skip
"""Their history holds the denoised prediction after a step."""

STEERABLE = (
    "DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "PNDMScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler:sde", "DPMSolverMultistepScheduler:sde3",
    "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler",
    "LCMScheduler", "TCDScheduler",
)  # fmt: skip
"""Run under Stable Diffusion."""

NOISE = {  # which calls of a run of 4 steps inject noise (with eta as the scheduler's own default)
    "DDIMScheduler": (),
    "DDPMScheduler": (0, 1, 2),
    "EulerDiscreteScheduler": (),
    "EulerAncestralDiscreteScheduler": (0, 1, 2),
    "HeunDiscreteScheduler": (),
    "KDPM2DiscreteScheduler": (),
    "KDPM2AncestralDiscreteScheduler": (1, 3, 5),
    "DPMSolverMultistepScheduler": (),
    "DPMSolverMultistepScheduler:sde": (0, 1, 2),
    "UniPCMultistepScheduler": (),
    "LCMScheduler": (0, 1, 2),
    "TCDScheduler": (0, 1, 2),
}

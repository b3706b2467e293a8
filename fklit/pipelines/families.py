"""The families of diffusers' schedulers: which process each integrates, and its stochastic sibling within the family.

A model is trained for one process. A sampler of another family, or one with other noise levels, would sample another
law without a word, so a sibling is taken only from the same family, built from the scheduler's own config, and what
stands in no row is refused.
"""

import inspect
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["variance-preserving", "EDM", "flow", "consistency", "discrete", "other"]
Sibling = Literal["itself", "eta", "sde-dpmsolver++", "ddim", "ddim levels", "edm-sde-dpmsolver++", "kernel"]

ZERO_SNR_ETA = 0.999
"""In place of 1 at zero terminal SNR, where DDIM takes the root of a difference that is 0 and rounds below it."""


class NoStochasticSiblingError(ValueError):
    """No sampler of this scheduler's family injects noise that fklit can give each particle."""


@dataclass(frozen=True)
class SchedulerFamily:
    """A row of the table.

    Attributes:
        family: the process that the scheduler integrates.
        sibling: how particles get noise: "itself" (stochastic as it is), "eta" (an argument of its step), "ddim" (DDIM
            with eta), "ddim levels" (DDIM with eta at the scheduler's own noise levels), "sde-dpmsolver++" and
            "edm-sde-dpmsolver++" (the multi-step solvers of the SDE), "kernel" (itself, its steps taken by a kernel of
            `fklit.pipelines.flow`); None for none.
        reason: why there is none.
    """

    family: Family
    sibling: Sibling | None = None
    reason: str = ""


_FLOW = "samples a flow-matching model by steps of its own, whose place no kernel of fklit can take"
# The flow grids of DEIS and SA end above 0, where their last step stays: noise would be left in every sample.
_FLOW_SOLVERS = frozenset({"DPMSolverMultistepScheduler", "UniPCMultistepScheduler"})
_TREE = "draws its noise from a Brownian tree with one seed a call, not one a particle"
_TOKENS = "steps discrete tokens, not a diffusion of samples"
_CONSISTENCY = "samples a consistency model, whose denoised prediction is not known to fklit"
_NO_LEVELS = "has no noise levels of a process in its config, from which a sibling could be built"


def _rows(family: Family, sibling: Sibling | None, reason: str, *names: str) -> dict[str, SchedulerFamily]:
    return dict.fromkeys(names, SchedulerFamily(family, sibling, reason))


_TABLE: dict[str, SchedulerFamily] = {
    **_rows("variance-preserving", "eta", "", "DDIMScheduler", "DDIMParallelScheduler"),
    **_rows(
        "variance-preserving", "itself", "", "DDPMScheduler", "DDPMParallelScheduler",
        "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "SASolverScheduler",
        "CogVideoXDPMScheduler", "UnCLIPScheduler",
    ),
    **_rows(
        "variance-preserving", "sde-dpmsolver++", "", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    ),
    **_rows(
        "variance-preserving", "ddim", "", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler", "PNDMScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    ),
    **_rows("variance-preserving", "ddim levels", "", "CogVideoXDDIMScheduler"),  # its step ignores its eta
    **_rows("variance-preserving", None, _TREE, "DPMSolverSDEScheduler"),
    **_rows("variance-preserving", None, _NO_LEVELS, "IPNDMScheduler"),
    **_rows("EDM", "edm-sde-dpmsolver++", "", "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"),
    **_rows("EDM", "itself", "", "CosineDPMSolverMultistepScheduler"),  # its tree of noise has a seed a particle
    **_rows(
        "EDM", None, "steps by its own arguments, which are not those of a sampler that fklit knows",
        "KarrasVeScheduler", "ScoreSdeVeScheduler",
    ),
    **_rows("flow", "kernel", "", "FlowMatchEulerDiscreteScheduler"),
    **_rows(
        "flow", None, _FLOW, "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
        "LTXEulerAncestralRFScheduler", "FlowMapEulerDiscreteScheduler", "HeliosScheduler", "HeliosDMDScheduler",
        "MiniMaxH3Scheduler", "PiflowScheduler", "RFD4ProteinaScheduler",
    ),
    **_rows("consistency", "itself", "", "LCMScheduler"),
    **_rows("consistency", "eta", "", "TCDScheduler"),
    **_rows("consistency", "itself", "", "CMStochasticIterativeScheduler"),
    **_rows("consistency", None, _CONSISTENCY, "SCMScheduler"),
    **_rows(
        "discrete", None, _TOKENS, "AmusedScheduler", "BlockRefinementScheduler", "DiscreteDDIMScheduler",
        "EntropyBoundScheduler", "VQDiffusionScheduler",
    ),
    **_rows(
        "other", None, "runs the process backwards, from data to noise", "DDIMInverseScheduler",
        "DPMSolverMultistepInverseScheduler",
    ),
    **_rows("other", None, "goes back and forth between noise levels", "RePaintScheduler"),
    **_rows("other", None, _NO_LEVELS, "DDPMWuerstchenScheduler"),
}  # fmt: skip


def family_of(scheduler: Any) -> SchedulerFamily | None:
    """Return the row of a scheduler, by its class or the nearest class of diffusers it derives from; None if none.

    A solver of diffusion models that is configured for flow matching (`use_flow_sigmas`, `flow_prediction`) is one of
    the flow family.
    """
    row = next((_TABLE[base.__name__] for base in type(scheduler).__mro__ if base.__name__ in _TABLE), None)
    config = getattr(scheduler, "config", {})
    if config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas", False):
        known = any(base.__name__ in _FLOW_SOLVERS for base in type(scheduler).__mro__)
        return SchedulerFamily("flow", "kernel") if known else SchedulerFamily("flow", None, _FLOW)
    return row


def family_name(scheduler: Any) -> Family | None:
    """Return the family of a scheduler; None for one that fklit does not know."""
    row = family_of(scheduler)
    return None if row is None else row.family


def stochastic_sibling(scheduler: Any) -> tuple[Any, float | None, str]:
    """Return a stochastic sampler for the same model: of the same family, with the same noise levels.

    Args:
        scheduler: any diffusers scheduler.

    Returns:
        The scheduler to use (the same object where an option of `step` or a flow kernel is enough), the `eta` to
        force or None, and a description.

    Raises:
        NoStochasticSiblingError: if the scheduler stands in no row of the table, or its row has none.
    """
    name, row = type(scheduler).__name__, family_of(scheduler)
    if row is None:
        raise NoStochasticSiblingError(f"{name} is a scheduler whose process fklit does not know")
    if row.sibling is None:
        raise NoStochasticSiblingError(f"{name} {row.reason}")
    if row.sibling in ("itself", "kernel"):
        return scheduler, None, name
    if row.sibling == "eta":
        return _with_eta(scheduler)
    if row.sibling == "ddim":
        return _with_eta(_ddim(scheduler))
    if row.sibling == "ddim levels":
        return _with_eta(_ddim_at(scheduler))
    if str(scheduler.config.get("algorithm_type", "")).startswith("sde"):
        return scheduler, None, f"{name} ({scheduler.config['algorithm_type']})"
    # Single-step solvers have an SDE form, too, but share states between calls: take the multi-step one.
    import diffusers

    solver = "DPMSolverMultistepScheduler" if row.family == "variance-preserving" else "EDMDPMSolverMultistepScheduler"
    return _rebuilt(scheduler, getattr(diffusers, solver)), None, f"{solver} (sde-dpmsolver++)"


def _with_eta(scheduler: Any) -> tuple[Any, float, str]:
    zero = bool(scheduler.config.get("rescale_betas_zero_snr", False)) and "DDIM" in type(scheduler).__name__
    eta = ZERO_SNR_ETA if zero else 1.0
    return scheduler, eta, f"{type(scheduler).__name__} with eta={eta:g}"


def _ddim(scheduler: Any) -> Any:
    from diffusers import DDIMScheduler

    config = _understood(scheduler, DDIMScheduler)
    config["clip_sample"] = bool(scheduler.config.get("clip_sample", False))  # DDIM's default would clip latents
    return DDIMScheduler.from_config(config)


def _ddim_at(scheduler: Any) -> Any:
    """DDIM at the noise levels of a scheduler that makes them by a rule of its own."""
    sibling = _ddim(scheduler)
    sibling.alphas_cumprod = scheduler.alphas_cumprod.clone()
    sibling.final_alpha_cumprod = scheduler.final_alpha_cumprod.clone()
    sibling.register_to_config(clip_sample=False)  # an option that its step ignores, though it is on by default
    return sibling


def _rebuilt(scheduler: Any, kind: Any) -> Any:
    return kind.from_config(_understood(scheduler, kind), algorithm_type="sde-dpmsolver++")


def _understood(scheduler: Any, kind: Any) -> dict[str, Any]:
    """The part of a config that another class takes; the rest would be reported as ignored."""
    known = set(inspect.signature(kind.__init__).parameters) - {"self", "algorithm_type"}
    return {key: value for key, value in scheduler.config.items() if key in known}

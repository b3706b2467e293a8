"""Kernels of flow-matching models by the names that people know them by."""

import math
from collections.abc import Callable
from typing import Literal

from fklit.pipelines.flow.closed_form import CoefficientPreserving, Precise
from fklit.pipelines.flow.dpmsolver import SDEDPMSolver
from fklit.pipelines.flow.euler_maruyama import DanceGRPO, FlowGRPO
from fklit.pipelines.flow.kernel import FlowKernel

FlowKernelName = Literal["capped_dpmsolver++", "sde-dpmsolver++", "sde", "dance", "cps", "precise"]
DEFAULT_KERNEL: FlowKernelName = "capped_dpmsolver++"

_KERNELS: dict[str, tuple[Callable[[float], FlowKernel], float]] = {
    "capped_dpmsolver++": (lambda level: SDEDPMSolver(level, largest_ratio=1.0), 1.0),
    "sde-dpmsolver++": (lambda level: SDEDPMSolver(level, largest_ratio=math.inf), 1.0),
    "sde": (FlowGRPO, 0.7),
    "dance": (DanceGRPO, 0.3),
    "cps": (CoefficientPreserving, 0.7),
    "precise": (Precise, 1.0),
}


def get_flow_kernel(name: FlowKernelName = DEFAULT_KERNEL, noise_level: float | None = None) -> FlowKernel:
    """Return a kernel by its name.

    Args:
        name: "capped_dpmsolver++" (the default: second order, its step ratio at most 1), "sde-dpmsolver++", "sde"
            (Flow-GRPO), "dance" (DanceGRPO), "cps" (coefficient-preserving) or "precise".
        noise_level: at least 0; None for the kernel's own (1, 1, 0.7, 0.3, 0.7, 1).

    Raises:
        ValueError: for another name, or a noise level that the kernel does not take.
    """
    if name not in _KERNELS:
        raise ValueError(f"expected flow_kernel to be one of {list(_KERNELS)}, got {name!r}; use one of them.")
    build, usual = _KERNELS[name]
    return build(usual if noise_level is None else float(noise_level))

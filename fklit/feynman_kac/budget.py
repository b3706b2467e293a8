"""What a run cost."""

import sys
from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class Budget:
    """What was spent; `a + b` adds counts and seconds and takes the larger peak, and `sum(budgets, Budget())` works.

    Attributes:
        denoiser_calls: evaluations of the denoiser for one sample, whatever the batch they ran in (guidance counts
            twice), those made again for gradients or by a search among them.
        gradient_calls: those of them whose gradient was taken, each at about the cost of two more.
        decodes: decoded samples.
        preview_decodes: samples decoded by a preview decoder on the way, which are not among `decodes`.
        reward_calls: samples scored by the reward.
        latent_reward_calls: samples scored by a latent reward on the way, which are not among `reward_calls`.
        reward_checks: samples scored once more, alone, to check that the reward's scores do not depend on the batch;
            at most one a run, whatever the number of prompts, and so no part of a prompt's share.
        seconds: wall time.
        score_seconds: the part of it that went into scores on the way: decoding predictions and rewarding them.
        peak_memory_bytes: the largest memory in use: of the accelerator if there is one, else of the process.
    """

    denoiser_calls: int = 0
    gradient_calls: int = 0
    decodes: int = 0
    preview_decodes: int = 0
    reward_calls: int = 0
    latent_reward_calls: int = 0
    reward_checks: int = 0
    seconds: float = 0.0
    score_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value < 0:
                raise ValueError(f"{item.name}={value} is negative; a budget counts what was spent, from 0.")

    def __add__(self, other: "Budget") -> "Budget":
        """Return the budget of both."""
        if not isinstance(other, Budget):
            return NotImplemented
        sums = {item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)}
        sums["peak_memory_bytes"] = max(self.peak_memory_bytes, other.peak_memory_bytes)
        return Budget(**sums)


def peak_memory_bytes(device: torch.device | None = None) -> int:
    """Return the peak memory: CUDA's since its statistics were reset, for a CUDA device; else the process's so far.

    On a system that does not report the process's peak (Windows) it is 0.
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024

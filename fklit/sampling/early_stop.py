"""Early stop of scoring: a prompt whose particles are all good, or all alike, is scored no more before the end."""

import torch
from jaxtyping import Bool, Float64
from torch import Tensor


class EarlyStop:
    """Which of B prompts are still scored.

    The decision looks at the past only, and the terminal potential divides out what each path has been weighed by, so
    weights stay properly weighted for the same target and log Z is unbiased as before (as with an adaptive resampling).

    Args:
        threshold: a prompt is scored no more once the rewards of all its living particles are above it, or were all
            equal at two scores in a row; None never stops.
        num_groups: B.

    Attributes:
        active: (B,) bool on the CPU, the prompts that are still scored.
    """

    def __init__(self, threshold: float | None, num_groups: int) -> None:
        self.threshold = threshold
        self.active: Bool[Tensor, " B"] = torch.ones(num_groups, dtype=torch.bool)
        self._flat = torch.zeros(num_groups, dtype=torch.bool)

    def stop(self, groups: Bool[Tensor, " B"]) -> None:
        """Score these prompts no more: a decision about the past, too."""
        self.active = self.active & ~groups.cpu()

    def see(self, rewards: Float64[Tensor, "B K"], living: Bool[Tensor, "B K"]) -> None:
        """Take the rewards of a score and decide about the next ones.

        Args:
            rewards: those of prompts that are not active are ignored.
            living: particles that have a say.
        """
        if self.threshold is None:
            return
        values, counts = rewards.cpu(), living.cpu()
        lowest = torch.where(counts, values, torch.inf).amin(dim=1)
        highest = torch.where(counts, values, -torch.inf).amax(dim=1)
        flat = lowest == highest
        done = (lowest > self.threshold) | (flat & self._flat)
        self._flat = flat
        self.active = self.active & ~done

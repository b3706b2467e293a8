"""What a run cost in time and memory."""

import time
from typing import Any

import torch

from fklit.feynman_kac.budget import peak_memory_bytes


class ResourceMonitor:
    """Measures seconds and peak memory from its creation.

    On a GPU the peak is what the allocator held on the device since the meter was made; elsewhere it is the peak
    resident size of the process since it started, which the operating system does not let us reset.

    Args:
        device: where the pipeline computes.
    """

    def __init__(self, device: Any) -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds since the meter was made; waits for a GPU to finish."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - self._start

    def peak_memory_bytes(self) -> int:
        """Peak memory in bytes, see the class; 0 where it cannot be read."""
        return peak_memory_bytes(self._device)

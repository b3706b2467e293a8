"""The law of one step of a sampler: independent Gaussians, with a density where the step draws noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def as_double(values: Tensor) -> Tensor:
    """Return values in float64, on the CPU where the device has none (MPS)."""
    return values.cpu().double() if values.device.type == "mps" else values.double()


@dataclass(frozen=True)
class Transition:
    """The law of the next sample: independent Gaussians of one standard deviation.

    Attributes:
        mean: (N, ...).
        std: 0 for a deterministic step.
    """

    mean: Tensor
    std: float

    def log_density(self, value: Tensor) -> Tensor:
        """Return the log density of next samples, computed in float64.

        Args:
            value: (N, ...), as `mean`.

        Returns:
            (N,) float64, summed over all axes but the first.

        Raises:
            ValueError: the step is deterministic, or the shape differs.
        """
        if self.std == 0:
            raise ValueError("expected a step with noise, got standard deviation 0, which has no density; skip it.")
        if value.shape != self.mean.shape:
            raise ValueError(f"expected shape {tuple(self.mean.shape)}, got {tuple(value.shape)}; give all samples.")
        distance = ((as_double(value) - as_double(self.mean)) / self.std).square() + math.log(2 * math.pi * self.std**2)
        return -0.5 * distance.flatten(1).sum(dim=1)


def draw(transition: Transition, noise: Tensor) -> Tensor:
    """Return next samples from standard normal noise of the mean's shape."""
    return transition.mean if transition.std == 0 else torch.add(transition.mean, noise, alpha=transition.std)

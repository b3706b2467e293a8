"""The initial law at the noise end, and the weights that make it the target's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.simulation.control import gaussian_target
from fklit.correctors.simulation.proper import ImproperTargetError
from fklit.correctors.targets.expert import Expert
from fklit.correctors.targets.paths.noise_path import NoisePath
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import Tilt
from fklit.feynman_kac.randomness import Generators, normals


@dataclass(frozen=True)
class InitialGaussian:
    """A Gaussian from which particles start, independent in each coordinate.

    Attributes:
        mean: of the shape of an event, or a number.
        variance: likewise, positive.
    """

    mean: Tensor | float = 0.0
    variance: Tensor | float = 1.0

    def __post_init__(self) -> None:
        if not bool((torch.as_tensor(self.variance) > 0).all()):
            raise ValueError(
                f"expected a positive initial variance, got {self.variance}, which is not positive everywhere; pass "
                "positive numbers."
            )

    def sample(
        self, shape: Sequence[int], generator: Generators, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return draws (B, K, *event)."""
        noise = normals(generator, shape, dtype=dtype, device=device)
        deviation = torch.as_tensor(self.variance, dtype=torch.float64).sqrt().to(device, dtype)
        return torch.as_tensor(self.mean, dtype=torch.float64).to(device, dtype) + deviation * noise

    def log_density(self, x: Tensor) -> Float64[Tensor, "B K"]:
        """Return the log density at x, (B, K)."""
        variance = torch.as_tensor(self.variance, dtype=torch.float64, device=x.device).expand(x.shape[2:])
        difference = x.to(torch.float64) - torch.as_tensor(self.mean, dtype=torch.float64, device=x.device)
        log_volume = float((2 * math.pi * variance).log().sum())
        return -0.5 * ((difference.square() / variance).flatten(2).sum(dim=2) + log_volume)


@dataclass(frozen=True)
class InitialLaw:
    """Where a run of a target starts, and the log weights of that.

    With moments of every expert the initial law is the product of their Gaussians; without, that of pure noise,
    `N(0, s^2 / B)`. The weights correct the rest: exactly where log densities exist, else with the experts replaced by
    these Gaussians, which is wrong by a constant.

    Attributes:
        target: the target.
        t: the first time.
        given: the Gaussian to start from; the one described above if None.
    """

    target: Target
    t: float
    given: InitialGaussian | None = None

    @cached_property
    def law(self) -> InitialGaussian:
        """The Gaussian that particles are drawn from.

        Raises:
            ImproperTargetError: if the exponents at the noise end leave no Gaussian.
        """
        if self.given is not None:
            return self.given
        sigma = self.target.path.sigma(self.t)
        if self.target.has_moments:
            precision, mean = gaussian_target(self.target, self.t)
            if bool((precision > 0).all()):
                return InitialGaussian(mean, 1 / precision)
        total = sum(self.target.exponents(self.t))
        if total <= 0:
            raise ImproperTargetError(
                f"expected exponents of positive sum at the noise end, but they sum to {total:g} at the noise end "
                f"(t={self.t:g}), where the target is then no law; let them sum to a positive number there."
            )
        return InitialGaussian(0.0, sigma**2 / total)

    def log_weights(self, x: Tensor) -> Float64[Tensor, "B K"]:
        """Return `log gamma - log initial` at x, (B, K)."""
        target = self.target
        if target.has_log_densities:
            return target.log_gamma(x, self.t) - self.law.log_density(x)
        result = -self.law.log_density(x)
        for expert, exponent in zip(target.experts, target.exponents(self.t), strict=True):
            result = result + exponent * noised_gaussian(expert, target.path, self.t).log_density(x)
        return result + target.tilt.value(x, self.t).detach() if isinstance(target.tilt, Tilt) else result


def noised_gaussian(expert: Expert, path: NoisePath, t: float) -> InitialGaussian:
    """Return the noised Gaussian of the expert's moments at time t, or of pure noise if it has none."""
    scale, sigma = path.scale(t), path.sigma(t)
    moments = getattr(expert, "moments", None)
    if moments is None:
        return InitialGaussian(0.0, sigma**2)
    mean, variance = (torch.as_tensor(part, dtype=torch.float64) for part in moments())
    return InitialGaussian(scale * mean, scale**2 * variance + sigma**2)

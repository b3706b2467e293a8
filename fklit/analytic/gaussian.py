"""Analytic data: Gaussians and their mixtures, noised by any linear process, with exact scores and log densities.

The noised law is a mixture again: where `x = a x_0 + s e`, component k is `N(a m_k, a^2 V_k + s^2 I)`. Ground truth
for tests, benchmarks and pictures: as experts of correctors (`on`), and as a denoiser behind a diffusers scheduler
(`denoised`).
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.feynman_kac.randomness import Generators, normals, uniforms


class HasLevels(Protocol):
    """A noise path: the scale a(t) and the noise s(t) of `x_t = a x_0 + s e`."""

    def scale(self, t: float) -> float:
        """Return `a(t)`."""
        ...

    def sigma(self, t: float) -> float:
        """Return `s(t)`."""
        ...


class GaussianMixture:
    """A mixture of M Gaussians in d dimensions; its parameters are float64, its results have the dtype of the sample.

    Args:
        means: (M, d).
        variances: one number for all; (M,) isotropic; (M, d) diagonal; or (M, d, d) full covariances.
        weights: (M,), at least 0, normalized here; equal if not given.

    Raises:
        ValueError: for shapes that do not fit, weights that are negative or sum to nothing, or covariances that are
            not symmetric and positive definite.
    """

    def __init__(
        self,
        means: Tensor | Sequence[Sequence[float]],
        variances: Tensor | Sequence[Any] | float,
        weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        self.means = torch.as_tensor(means, dtype=torch.float64)
        if self.means.ndim != 2:
            raise ValueError(f"means has shape {tuple(self.means.shape)}; give (components, dimensions).")
        count, self.dim = self.means.shape
        chosen = torch.ones(count) if weights is None else weights
        self.weights = torch.as_tensor(chosen, dtype=torch.float64)
        if self.weights.shape != (count,) or bool((self.weights < 0).any()) or not float(self.weights.sum()) > 0:
            raise ValueError(
                f"weights={self.weights.tolist()} were given for {count} components; give one number of at least 0 "
                "for each, not all 0."
            )
        self.weights = self.weights / self.weights.sum()
        given = torch.as_tensor(variances, dtype=torch.float64)
        if given.ndim <= 1:
            given = given.expand(count).unsqueeze(1) if given.shape in ((), (count,)) else given
        if given.shape not in ((count, 1), (count, self.dim), (count, self.dim, self.dim)) or (
            given.ndim == 2 and given.shape[1] not in (1, self.dim)
        ):
            raise ValueError(
                f"variances has shape {tuple(given.shape)} for {count} components in {self.dim} dimensions; give one "
                "number, (M,), (M, d) or (M, d, d)."
            )
        self._basis: Tensor | None = None  # (M, d, d), columns are the axes of a full covariance
        self._spreads = given  # variances along these axes, (M, d) or (M, 1)
        if given.ndim == 3:
            if not torch.allclose(given, given.transpose(1, 2)):
                raise ValueError("a covariance is not symmetric; give symmetric positive definite matrices.")
            self._spreads, self._basis = torch.linalg.eigh(given)
        if not bool((self._spreads > 0).all()):
            raise ValueError("a variance is not positive; give positive variances (positive definite matrices).")
        self._cache: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor | None, Tensor]] = {}

    def log_density(self, x: Float[Tensor, "*n d"], scale: float = 1.0, sigma: float = 0.0) -> Float[Tensor, "*n"]:
        """Return the log density of `scale x_0 + sigma e` at x."""
        return self._parts(x, scale, sigma)[0]

    def score(self, x: Float[Tensor, "*n d"], scale: float = 1.0, sigma: float = 0.0) -> Float[Tensor, "*n d"]:
        """Return the gradient of `log_density`."""
        return self.score_and_log_density(x, scale, sigma)[0]

    def denoised(self, x: Float[Tensor, "*n d"], scale: float, sigma: float) -> Float[Tensor, "*n d"]:
        """Return `E[x_0 | x]` for `x = scale x_0 + sigma e`."""
        return (x + sigma**2 * self.score(x, scale, sigma)) / scale

    def score_and_log_density(
        self, x: Float[Tensor, "*n d"], scale: float = 1.0, sigma: float = 0.0
    ) -> tuple[Float[Tensor, "*n d"], Float[Tensor, "*n"]]:
        """Return both for little more than the price of one."""
        log_density, logits, pulls = self._parts(x, scale, sigma)
        shares = (logits - log_density.unsqueeze(-1)).exp()
        if pulls is not None:
            return -torch.einsum("...m,...mi->...i", shares, pulls), log_density
        means, spreads, _, _ = self._on(x)
        inverse = 1 / (scale**2 * spreads + sigma**2)
        return (shares @ (scale * means * inverse)) - x * (shares @ inverse), log_density

    def sample(
        self, shape: Sequence[int], generator: Generators = None, *, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*n d"]:
        """Return independent draws of `shape`, (*shape, d).

        Args:
            shape: leading axes; the first is that of the groups if there is one generator for each.
            generator: see `fklit.feynman_kac.randomness`.
            dtype: of the draws.
        """
        points = uniforms(generator, shape)
        noise = normals(generator, (*shape, self.dim), dtype=torch.float64, device=points.device)
        means, spreads, basis, _ = self._on(noise)
        edges = self.weights.to(points.device).cumsum(0)
        component = torch.searchsorted(edges, points, right=True).clamp(max=len(self.weights) - 1)
        noise = noise * spreads[component].sqrt()
        if basis is not None:
            noise = torch.einsum("...ij,...j->...i", basis[component], noise)
        return (means[component] + noise).to(dtype)

    def moments(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """Return mean and variance of each coordinate, float64."""
        mean = self.weights @ self.means
        second = self.weights @ (self._diagonals() + self.means.square())
        return mean, second - mean.square()

    def tail_variance(self) -> Float[Tensor, " d"]:
        """Return the largest variance of a component of positive weight in each coordinate: it rules the tails."""
        return self._diagonals()[self.weights > 0].amax(dim=0)

    def on(self, path: HasLevels) -> "NoisedMixture":
        """Return this law as an expert on a noise path."""
        return NoisedMixture(self, path)

    def _diagonals(self) -> Tensor:
        if self._basis is None:
            return self._spreads.expand(-1, self.dim)
        return torch.einsum("mij,mj->mi", self._basis.square(), self._spreads)

    def _on(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Parameters on the device and in the dtype of x: means, spreads, basis, log weights."""
        key = (x.device, x.dtype)
        if key not in self._cache:
            basis = None if self._basis is None else self._basis.to(x.device, x.dtype)
            parts = (self.means, self._spreads, self.weights.log())
            means, spreads, logs = (part.to(x.device, x.dtype) for part in parts)
            self._cache[key] = (means, spreads, basis, logs)
        return self._cache[key]

    def _parts(self, x: Tensor, scale: float, sigma: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log density, log weight of each component with its density, and for full covariances `V^-1 (x - a m)`."""
        if x.shape[-1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}; its last axis must have {self.dim} entries.")
        means, spreads, basis, logs = self._on(x)
        variances = scale**2 * spreads + sigma**2
        volume = variances.log().expand(-1, self.dim).sum(dim=-1) + self.dim * math.log(2 * math.pi)
        pulls = None
        if basis is None and x.dtype == torch.float64:
            # Expanded squares, by matrix products: nothing of size (n, M, d). Single precision has no digits for that.
            inverse = (1 / variances).expand(-1, self.dim)
            weighted = scale * means * inverse
            distance = x.square() @ inverse.T - 2 * x @ weighted.T + (scale * means * weighted).sum(dim=-1)
        else:
            away = x.unsqueeze(-2) - scale * means
            if basis is not None:
                away = torch.einsum("mij,...mi->...mj", basis, away)
                pulls = torch.einsum("mij,...mj->...mi", basis, away / variances)
            distance = (away.square() / variances).sum(dim=-1)
        logits = logs - 0.5 * (distance + volume)
        return torch.logsumexp(logits, dim=-1), logits, pulls


class NoisedMixture:
    """A mixture on a noise path: an expert with exact scores and log densities.

    Attributes:
        law: the data's law.
        path: the noise path.
        event_shape: shape of one sample.
    """

    def __init__(self, law: GaussianMixture, path: HasLevels) -> None:
        self.law = law
        self.path: Any = path
        self.event_shape = (law.dim,)

    def score(self, x: Tensor, t: float) -> Tensor:
        """Return the score at time t, (..., d)."""
        return self.law.score(x, self.path.scale(t), self.path.sigma(t))

    def log_density(self, x: Tensor, t: float) -> Tensor:
        """Return the log density at time t, (...)."""
        return self.law.log_density(x, self.path.scale(t), self.path.sigma(t))

    def score_and_log_density(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Return both."""
        return self.law.score_and_log_density(x, self.path.scale(t), self.path.sigma(t))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each coordinate of the data."""
        return self.law.moments()

    def tail_variance(self) -> Tensor:
        """Return the variance that rules the tails in each coordinate of the data."""
        return self.law.tail_variance()


def Gaussian(mean: Tensor | Sequence[float], variance: Tensor | Sequence[Any] | float) -> GaussianMixture:  # noqa: N802
    """Return one Gaussian.

    Args:
        mean: (d,).
        variance: one number, (d,), or a covariance (d, d).
    """
    spread = torch.as_tensor(variance, dtype=torch.float64)
    means = torch.as_tensor(mean, dtype=torch.float64).unsqueeze(0)
    return GaussianMixture(means, spread if spread.ndim == 0 else spread.unsqueeze(0))

"""Gaussian mixtures, noised by any linear process, with exact scores and log densities.

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
            raise ValueError(
                f"expected means of shape (components, dimensions), but means has shape {tuple(self.means.shape)}; "
                "wrap a single mean in a list, or use GaussianMixture.single()."
            )
        count, self.dim = self.means.shape
        self._given_weights = torch.ones(count, dtype=torch.float64)
        if weights is not None:
            self._given_weights = torch.as_tensor(weights, dtype=torch.float64)
        self.weights = _normalized(self._given_weights, count)
        self._given_variances = torch.as_tensor(variances, dtype=torch.float64)
        self._axis_variances, self._basis = _axes(self._given_variances, count, self.dim)
        self._cache: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor | None, Tensor]] = {}

    @classmethod
    def single(cls, mean: Tensor | Sequence[float], variance: Tensor | Sequence[Any] | float) -> "GaussianMixture":
        """Return one Gaussian.

        Args:
            mean: (d,).
            variance: one number, (d,), or a covariance (d, d).
        """
        variance = torch.as_tensor(variance, dtype=torch.float64)
        means = torch.as_tensor(mean, dtype=torch.float64).unsqueeze(0)
        return cls(means, variance if variance.ndim == 0 else variance.unsqueeze(0))

    def constructor_arguments(self) -> dict[str, Any]:
        """Return the arguments that build this law again, as plain numbers and lists."""
        given = {"means": self.means, "variances": self._given_variances, "weights": self._given_weights}
        return {name: value.tolist() for name, value in given.items()}

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
        """Return both for little more than the cost of one."""
        log_density, logits, gradients = self._parts(x, scale, sigma)
        posterior = (logits - log_density.unsqueeze(-1)).exp()  # of the components
        if gradients is not None:
            return -torch.einsum("...m,...mi->...i", posterior, gradients), log_density
        means, variances, _, _ = self._on(x)
        inverse = 1 / (scale**2 * variances + sigma**2)
        return (posterior @ (scale * means * inverse)) - x * (posterior @ inverse), log_density

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
        means, variances, basis, _ = self._on(noise)
        edges = self.weights.to(points.device).cumsum(0)
        component = torch.searchsorted(edges, points, right=True).clamp(max=len(self.weights) - 1)
        noise = noise * variances[component].sqrt()
        if basis is not None:
            noise = torch.einsum("...ij,...j->...i", basis[component], noise)
        return (means[component] + noise).to(dtype)

    def moments(self) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """Return mean and variance of each coordinate, float64."""
        mean = self.weights @ self.means
        second = self.weights @ (self._diagonals() + self.means.square())
        return mean, second - mean.square()

    def tail_variance(self) -> Float[Tensor, " d"]:
        """Return the largest variance of a component of positive weight in each coordinate: it determines the tails."""
        return self._diagonals()[self.weights > 0].amax(dim=0)

    def on(self, path: HasLevels) -> "NoisedMixture":
        """Return this law as an expert on a noise path."""
        return NoisedMixture(self, path)

    def _diagonals(self) -> Tensor:
        if self._basis is None:
            return self._axis_variances.expand(-1, self.dim)
        return torch.einsum("mij,mj->mi", self._basis.square(), self._axis_variances)

    def _on(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Parameters on the device and in the dtype of x: means, variances, basis, log weights."""
        key = (x.device, x.dtype)
        if key not in self._cache:
            basis = None if self._basis is None else self._basis.to(x.device, x.dtype)
            parts = (self.means, self._axis_variances, self.weights.log())
            means, variances, logs = (part.to(x.device, x.dtype) for part in parts)
            self._cache[key] = (means, variances, basis, logs)
        return self._cache[key]

    def _parts(self, x: Tensor, scale: float, sigma: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log density, log weight of each component with its density, and for full covariances `V^-1 (x - a m)`."""
        if x.shape[-1] != self.dim:
            raise ValueError(
                f"expected {self.dim} entries in the last axis of x, got shape {tuple(x.shape)}; transpose it."
            )
        means, variances, basis, logs = self._on(x)
        variances = scale**2 * variances + sigma**2
        log_volume = variances.log().expand(-1, self.dim).sum(dim=-1) + self.dim * math.log(2 * math.pi)
        gradients = None
        if basis is None and x.dtype == torch.float64:
            # Expanded squares, by matrix products: nothing of size (n, M, d). Single precision has no digits for that.
            inverse = (1 / variances).expand(-1, self.dim)
            weighted = scale * means * inverse
            distance = x.square() @ inverse.T - 2 * x @ weighted.T + (scale * means * weighted).sum(dim=-1)
        else:
            difference = x.unsqueeze(-2) - scale * means
            if basis is not None:
                difference = torch.einsum("mij,...mi->...mj", basis, difference)
                gradients = torch.einsum("mij,...mj->...mi", basis, difference / variances)
            distance = (difference.square() / variances).sum(dim=-1)
        logits = logs - 0.5 * (distance + log_volume)
        return torch.logsumexp(logits, dim=-1), logits, gradients


def _normalized(weights: Tensor, count: int) -> Tensor:
    if weights.shape != (count,) or bool((weights < 0).any()) or not float(weights.sum()) > 0:
        raise ValueError(
            f"expected {count} weights of at least 0, not all 0, got weights={weights.tolist()}; give one number for "
            "each component."
        )
    return weights / weights.sum()


def _axes(given: Tensor, count: int, dim: int) -> tuple[Tensor, Tensor | None]:
    """Return variances along the axes, (M, d) or (M, 1), and the axes of full covariances as columns, (M, d, d)."""
    if given.shape in ((), (count,)):
        given = given.expand(count).unsqueeze(1)
    if given.shape not in ((count, 1), (count, dim), (count, dim, dim)):
        raise ValueError(
            f"expected one number, (M,), (M, d) or (M, d, d), but variances has shape {tuple(given.shape)} for {count} "
            f"components in {dim} dimensions; give one of these."
        )
    basis = None
    if given.ndim == 3:
        if not torch.allclose(given, given.transpose(1, 2)):
            raise ValueError("expected symmetric covariances, got one that is not symmetric; symmetrize it.")
        given, basis = torch.linalg.eigh(given)
    if not bool((given > 0).all()):
        raise ValueError(
            f"expected positive variances (positive definite matrices), got {float(given.min()):.3g}; raise it."
        )
    return given, basis


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
        """Return the variance that determines the tails in each coordinate of the data."""
        return self.law.tail_variance()

"""Noise schedules of masked diffusion: the probability that a token is not masked at time t."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor


class NoiseSchedule(ABC):
    """`alpha(t)` falls from 1 at t = 0 (text) to 0 at t = 1 (masks)."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The probability that a token is not masked, in [0, 1].

        Args:
            t: Times in [0, 1].
        """

    @abstractmethod
    def alpha_rate(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The derivative of `alpha`, at most 0.

        Args:
            t: Times in [0, 1].
        """

    def weight(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The weight `-alpha'(t) / (1 - alpha(t))` of a masked token in the NELBO (Sahoo et al. 2024, eq. 10).

        Args:
            t: Times in (0, 1].
        """
        return -self.alpha_rate(t) / (1 - self.alpha(t))

    def unmask_probability(self, t: float, s: float) -> float:
        """The probability that a token that is masked at t is not at the earlier time s.

        Args:
            t: In (0, 1].
            s: In [0, t).

        Raises:
            ValueError: s is not before t.
        """
        if not 0 <= s < t <= 1:
            raise ValueError(f"expected 0 <= s < t <= 1, got s={s} and t={t}; time runs from 1 (masks) to 0 (text).")
        if s == 0:
            return 1.0
        before, after = (float(self.alpha(torch.tensor(time, dtype=torch.float64))) for time in (t, s))
        return (after - before) / (1 - before)


class LogLinearSchedule(NoiseSchedule):
    """`alpha(t) = 1 - t`: the total noise `-log alpha` is log-linear (Lou et al. 2024; the default of MDLM)."""

    def alpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`1 - t`."""
        return 1 - t

    def alpha_rate(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """-1."""
        return torch.full_like(t, -1.0)


class CosineSchedule(NoiseSchedule):
    """`alpha(t) = 1 - cos(pi (1 - t) / 2)`, as MaskGIT (Chang et al. 2022): few tokens at first, many at the end."""

    def alpha(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`1 - cos(pi (1 - t) / 2)`."""
        return 1 - torch.cos(math.pi / 2 * (1 - t))

    def alpha_rate(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`-pi / 2 sin(pi (1 - t) / 2)`."""
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))

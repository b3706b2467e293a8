"""What a run returns: weighted particles, the evidence, the trace, and what it cost."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac._checks import check_count, check_matrix
from fklit.feynman_kac.randomness import Generators
from fklit.feynman_kac.resampling import multinomial
from fklit.feynman_kac.trees import select, tree_map
from fklit.feynman_kac.weights import normalize

State = TypeVar("State")


@dataclass(frozen=True)
class Budget:
    """What was spent; `a + b` adds counts and seconds and takes the larger peak, and `sum(budgets, Budget())` works.

    Attributes:
        denoiser_calls: evaluations of the denoiser for one sample, whatever the batch they ran in (guidance counts
            twice).
        decodes: decoded samples.
        reward_calls: samples scored by the reward.
        seconds: wall time.
        peak_memory_bytes: the largest memory in use: of the accelerator if there is one, else of the process.
    """

    denoiser_calls: int = 0
    decodes: int = 0
    reward_calls: int = 0
    seconds: float = 0.0
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


@dataclass(frozen=True)
class ParticleResult(Generic[State]):
    """The finished particles of B groups of K, with their weights.

    Attributes:
        particles: state tree, tensors (B, K, ...).
        log_weights: (B, K) float64, unnormalized; dead particles have `-inf`. Their log-mean is `log_z`.
        log_z: (B,) float64, `exp(log_z)` is unbiased for Z; `-inf` for a degenerate group.
        steps: the step of each row of the traces; -1 stands for initial weights.
        ess: (S, B) float64, at each step before resampling.
        ancestors: for each step the ancestors (B, K), or None if no group resampled; see `genealogy`.
        resampled: (S, B) bool.
        degenerate: (B,) bool, groups without a living particle: their weights are equal and mean nothing.
        dropped: (B,) int64, particles dropped for NaN or `+inf`.
        budget: what it cost.
    """

    particles: State
    log_weights: Float64[Tensor, "B K"]
    log_z: Float64[Tensor, " B"]
    steps: tuple[int, ...]
    ess: Float64[Tensor, "S B"]
    ancestors: tuple[Tensor | None, ...]
    resampled: Bool[Tensor, "S B"]
    degenerate: Bool[Tensor, " B"]
    dropped: Int64[Tensor, " B"]
    budget: Budget = field(default_factory=Budget)

    def best_index(self, scores: Tensor | None = None) -> Int64[Tensor, " B"]:
        """Return the slot of each group's best particle, shape (B,); the first of equals.

        Args:
            scores: (B, K), for example the terminal rewards: the highest among particles of positive weight wins, NaN
                never. None ranks by weight. They differ once a run has resampled: a weight says what the earlier
                potentials did not yet pay.
        """
        ranking = self.log_weights
        if scores is not None:
            check_matrix("scores", scores, (self.log_weights.shape[0], self.log_weights.shape[1]))
            values = scores.detach().to(ranking.device).to(torch.float64)
            values = values.masked_fill(torch.isnan(values), -torch.inf)
            # Below every living score, also one of -inf, come the dead: rank on two keys.
            living = ranking > -torch.inf
            top = values.masked_fill(~living, -torch.inf).amax(dim=1, keepdim=True)
            return (living & (values == top)).int().argmax(dim=1)
        return ranking.argmax(dim=1)

    def best(self, scores: Tensor | None = None) -> State:
        """Return the best particle of each group, tensors (B, ...); see `best_index`."""
        chosen = select(self.particles, self.best_index(scores).unsqueeze(1))
        return tree_map(lambda leaf: leaf.squeeze(1) if isinstance(leaf, Tensor) else leaf, chosen)

    def sample(self, n: int, generator: Generators = None) -> State:
        """Return n independent draws of each group in proportion to the weights, tensors (B, n, ...).

        Args:
            n: draws of each group, with replacement.
            generator: one, or one for each group.
        """
        return select(self.particles, self.sample_index(n, generator))

    def sample_index(self, n: int, generator: Generators = None) -> Int64[Tensor, "B n"]:
        """Return the slots of n independent draws in proportion to the weights, shape (B, n)."""
        check_count("n", n)
        num_particles = self.log_weights.shape[1]
        # Whole rounds of the one multinomial resampler, cut to n: one place knows how to draw.
        rounds = [multinomial(self.log_weights, generator) for _ in range(-(-n // num_particles))]
        return torch.cat(rounds, dim=1)[:, :n]

    def mean(self, function: Callable[[State], Tensor] | None = None) -> Float64[Tensor, "B ..."]:
        """Return the weighted mean of each group, float64, shape (B, ...).

        Args:
            function: maps `particles` to a tensor (B, K, ...); None takes the particles themselves, which must be a
                tensor.

        Raises:
            TypeError, ValueError: if there is no such tensor.
        """
        values: Any = self.particles if function is None else function(self.particles)
        if not isinstance(values, Tensor):
            raise TypeError(
                f"mean() needs a tensor (B, K, ...) but got a {type(values).__name__}; pass a function that returns "
                "one."
            )
        if values.shape[:2] != self.log_weights.shape:
            raise ValueError(
                f"The function gave shape {tuple(values.shape)}; it must begin with {tuple(self.log_weights.shape)}."
            )
        weights = normalize(self.log_weights)
        weights = weights.reshape(*weights.shape, *([1] * (values.ndim - 2)))
        values = values.detach().to(weights.device).to(torch.float64)
        # What a dead particle holds, NaN for example, must not enter through 0 * NaN.
        return torch.where(weights > 0, weights * values, torch.zeros_like(values)).sum(dim=1)

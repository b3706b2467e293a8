"""What every method returns: weighted particles, the evidence, the trace, and what it cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, Generic, Self, TypeVar

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.checks import check_count, check_matrix
from fklit.feynman_kac.genealogy import roots
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.trees import select, tree_map
from fklit.feynman_kac.weights import normalize

State = TypeVar("State")


@dataclass(frozen=True, kw_only=True)
class ParticleResult(Generic[State]):
    """The finished particles of B groups of K, with their weights; nothing is thrown away.

    The results of all methods are subclasses, so that `best()`, `sample(n)`, `mean(f)`, `min_ess`, `unique_roots`,
    `record(b)` and `to(device)` mean the same everywhere.

    Attributes:
        samples: state tree, tensors (B, K, ...).
        log_weights: (B, K) float64, normalized: `logsumexp` over K is 0, a dead particle has `-inf`.
        log_z: (B,) float64, `exp(log_z)` is unbiased for the normalizing constant Z; `-inf` for a degenerate group.
        steps: the step of each of the S rows of `ancestors` and `resampled`; -1 stands for initial weights.
        ess: effective sample size before each resampling, (S, B) float64, or (S + 1, B) with a row for the terminal
            weights where `steps` ends before them.
        ancestors: for each row the slots (B, K) that the particles descend from, None where no group resampled; or all
            of them as one tensor (S, B, K). See `genealogy`.
        resampled: (S, B) bool.
        degenerate: (B,) bool, groups without a living particle: their weights are equal and mean nothing.
        dropped: (B,) int64, particles dropped for NaN or `+inf`.
        rewards: terminal rewards (B, K) float64, by which `best()` ranks; None ranks by weight.
        budget: what it cost.
    """

    samples: State
    log_weights: Float64[Tensor, "B K"]
    log_z: Float64[Tensor, " B"]
    steps: tuple[int, ...]
    ess: Float64[Tensor, "S B"]
    ancestors: tuple[Tensor | None, ...] | Int64[Tensor, "S B K"]
    resampled: Bool[Tensor, "S B"]
    degenerate: Bool[Tensor, " B"]
    dropped: Int64[Tensor, " B"]
    rewards: Float64[Tensor, "B K"] | None = None
    budget: Budget = field(default_factory=Budget)

    @property
    def num_groups(self) -> int:
        """B."""
        return self.log_weights.shape[0]

    @property
    def num_particles(self) -> int:
        """K."""
        return self.log_weights.shape[1]

    @property
    def group_indices(self) -> Sequence[int]:
        """The index of each group, from which with a seed its draws follow."""
        return range(self.num_groups)

    @property
    def min_ess(self) -> Float64[Tensor, " B"]:
        """The smallest effective sample size of each group during the run, (B,)."""
        return self.ess.amin(dim=0)

    @cached_property
    def unique_roots(self) -> Int64[Tensor, " B"]:
        """How many initial particles have a living descendant at the end, (B,)."""
        trace = tuple(self.ancestors)
        slots = torch.arange(self.num_particles).expand(self.num_groups, -1)
        last = roots(trace, num_groups=self.num_groups, num_particles=self.num_particles)[-1].cpu() if trace else slots
        living = (self.log_weights > -math.inf).cpu()
        return torch.tensor([len(set(row[alive].tolist())) for row, alive in zip(last, living, strict=True)])

    def best_index(self, scores: Tensor | None = None) -> Int64[Tensor, " B"]:
        """Return the slot of each group's best particle, (B,); the first of equals.

        Args:
            scores: (B, K): the highest among particles of positive weight wins, NaN never. None takes `rewards`, and
                without rewards the weights. These differ once a run has resampled: a weight holds only what the
                potentials since the last resampling say.
        """
        ranking = self._eligible()
        scores = self.rewards if scores is None else scores
        if scores is None:
            return ranking.argmax(dim=1)
        check_matrix("scores", scores, (self.num_groups, self.num_particles))
        values = scores.detach().to(ranking.device).to(torch.float64)
        values = values.masked_fill(torch.isnan(values), -torch.inf)
        # Below every living score, also one of -inf, come the dead: rank on two keys.
        living = ranking > -torch.inf
        top = values.masked_fill(~living, -torch.inf).amax(dim=1, keepdim=True)
        return (living & (values == top)).int().argmax(dim=1)

    def _eligible(self) -> Float64[Tensor, "B K"]:
        """Log weights, with `-inf` for particles that are never the best."""
        return self.log_weights

    def best(self, scores: Tensor | None = None) -> Any:
        """Return the best sample of each group, tensors (B, ...); see `best_index`."""
        chosen = select(self.samples, self.best_index(scores).unsqueeze(1))
        return tree_map(lambda leaf: leaf.squeeze(1) if isinstance(leaf, Tensor) else leaf, chosen)

    def sample_index(self, n: int = 1, *, seed: int = 0, systematic: bool = False) -> Int64[Tensor, "B n"]:
        """Return the slots of n draws by weight, with replacement, (B, n).

        Args:
            n: at least 1.
            seed: of the draw; with the group's index it determines the draw.
            systematic: whether slot k of weight w is drawn `n w` times, rounded up or down at random, which leaves as
                few copies as the weights allow; else draws are independent of each other given the particles. Each
                single draw has the same law either way.
        """
        check_count("n", n)
        generators = group_generators(seed, self.group_indices, stream="selection")
        weights = self.log_weights.exp().cpu()
        draw = _systematic_draws if systematic else partial(torch.multinomial, replacement=True)
        drawn = [draw(row, n, generator=generator) for row, generator in zip(weights, generators, strict=True)]
        return torch.stack(drawn).to(self.log_weights.device)

    def sample(self, n: int = 1, *, seed: int = 0) -> Any:
        """Return n draws of each group by weight, with replacement, tensors (B, n, ...).

        They are samples of the target as K grows; draws of one group are not independent of each other.

        Args:
            n: at least 1.
            seed: of the draw; with the group's index it determines the draw.
        """
        return select(self.samples, self.sample_index(n, seed=seed))

    def mean(self, function: Callable[[State], Tensor] | None = None) -> Float64[Tensor, "B ..."]:
        """Return the weighted mean of each group, float64, shape (B, ...): an estimate of the mean under the target.

        Args:
            function: maps `samples` to a tensor (B, K, ...); None takes the samples themselves, which must be a tensor.

        Raises:
            TypeError, ValueError: if there is no such tensor.
        """
        values: Any = self.samples if function is None else function(self.samples)
        if not isinstance(values, Tensor):
            raise TypeError(
                f"mean() expected a tensor (B, K, ...), got a {type(values).__name__}; "
                "pass a function that returns one."
            )
        if values.shape[:2] != self.log_weights.shape:
            raise ValueError(
                f"mean() expected a shape that begins with {tuple(self.log_weights.shape)}, got {tuple(values.shape)}; "
                "return one value a particle."
            )
        weights = normalize(self.log_weights)
        weights = weights.reshape(*weights.shape, *([1] * (values.ndim - 2)))
        values = values.detach().to(weights.device).to(torch.float64)
        # What a dead particle holds, NaN for example, must not enter through 0 * NaN.
        return torch.where(weights > 0, weights * values, torch.zeros_like(values)).sum(dim=1)

    def summary(self) -> str:
        """Return a line for each group: what can fail first, the least ESS and the surviving roots, then the rest.

        The ESS at the end says nothing on a run that has resampled: it is that of the weights since then.
        """
        rows = zip(self.min_ess, self.unique_roots, self.log_z, self.ess[-1], strict=True)
        return "\n".join(
            f"group {index}: least ESS {float(least):.3g} and {int(left)} roots of {self.num_particles} particles, "
            f"log Z {float(evidence):.4g}, ESS at the end {float(last):.3g}"
            for index, (least, left, evidence, last) in zip(self.group_indices, rows, strict=True)
        )

    def budget_share(self, b: int) -> float:
        """Return group b's share of the run's cost, in (0, 1]: an equal part."""
        return 1 / self.num_groups

    def record(self, b: int) -> dict[str, Any]:
        """Return what is known of group b except for its samples, JSON-able.

        The budget is the group's share of the run, see `budget_share`.
        """
        share, spent = self.budget_share(b), self.budget
        return {
            "min_ess": json_numbers(self.min_ess[b]),
            "unique_roots": int(self.unique_roots[b]),
            "log_weights": json_numbers(self.log_weights[b]),
            "log_z": json_numbers(self.log_z[b]),
            "steps": list(self.steps),
            "ess": json_numbers(self.ess[:, b]),
            "resampled": self.resampled[:, b].tolist(),
            "degenerate": bool(self.degenerate[b]),
            "dropped": int(self.dropped[b]),
            "best": int(self.best_index()[b]),
            "rewards": None if self.rewards is None else json_numbers(self.rewards[b]),
            "budget": {
                "denoiser_calls": round(spent.denoiser_calls * share),
                "gradient_calls": round(spent.gradient_calls * share),
                "decodes": round(spent.decodes * share),
                "preview_decodes": round(spent.preview_decodes * share),
                "reward_calls": round(spent.reward_calls * share),
                "latent_reward_calls": round(spent.latent_reward_calls * share),
                "seconds": spent.seconds * share,
                "peak_memory_bytes": spent.peak_memory_bytes,
            },
        }

    def to(self, device: torch.device | str) -> Self:
        """Return the result with all its tensors on `device` (Lightning calls it on what `predict_step` returns)."""

        def moved(leaf: Any) -> Any:
            return leaf.to(device) if isinstance(leaf, Tensor) else leaf

        values = {item.name: getattr(self, item.name) for item in fields(self)}
        changed = {name: moved(value) for name, value in values.items() if isinstance(value, Tensor)}
        changed["samples"] = tree_map(moved, self.samples)
        if isinstance(self.ancestors, tuple):
            changed["ancestors"] = tuple(moved(entry) for entry in self.ancestors)
        return replace(self, **changed)


def json_numbers(values: Tensor) -> Any:
    """Return a number or nested lists of numbers; infinities and NaN, which JSON lacks, become None."""

    def plain(item: Any) -> Any:
        if isinstance(item, list):
            return [plain(part) for part in item]
        return item if math.isfinite(item) else None

    return plain(values.tolist())


def _systematic_draws(weights: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """Slots (n,) at equally spaced points of the cumulative weights (K,), with one offset, in random order."""
    edges = weights.to(torch.float64).cumsum(0)
    points = (torch.arange(n) + torch.rand(1, dtype=torch.float64, generator=generator)) / n
    points.clamp_(max=1 - 2**-53)  # the sum above may round to n
    # The last edge is 1 exactly, above every point; a slot of weight 0 has the edge of the one before it.
    slots = torch.searchsorted(edges / edges[-1], points, right=True)
    return slots[torch.randperm(n, generator=generator)]

"""The particle system: carries weights, decides who resamples, and keeps log Z and the family tree."""

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fklit.feynman_kac.checks import check_choice, check_count, check_fraction, check_matrix
from fklit.feynman_kac.randomness import Generators, check_generators
from fklit.feynman_kac.resampling import Resampler, draw_few, systematic
from fklit.feynman_kac.weights import (
    OnDegenerate,
    OnNan,
    apply_degeneracy_policy,
    apply_nan_policy,
    as_float64,
    ess,
    log_mean_exp,
    weight_device,
)


class ParticleSystem:
    """Weights of B groups of K particles through one run. Groups never mix.

    Each `update` multiplies the weights by a potential. A group resamples when it may, its ESS is below
    `ess_threshold * K`, and its log-weights are not all identical (so equal weights consume no randomness); otherwise
    its weights are carried.

    Convention: `log_weights` are unnormalized and carry log Z, that is
    `log_z = log((1/K) sum_k exp(log_weights))` at all times. A resampling therefore leaves all log-weights of the group
    equal to its `log_z`, and `exp(log_z)` is unbiased for Z at every step (Del Moral 2004, chapter 7).

    Args:
        num_groups: B, at least 1.
        num_particles: K, at least 1.
        resampler: see `resampling`.
        ess_threshold: fraction in [0, 1]; 0 never resamples (importance sampling), 1 resamples whenever weights differ.
        generator: one generator, one for each group, or None for torch's global one. With one for each group, a group's
            draws do not depend on its neighbors.
        on_nan: what to do with NaN and `+inf` potentials of living particles: "error", or "drop" (dead, and counted).
        on_degenerate: what to do with a group whose particles are all dead: "error", or "keep" them with equal
            weights, `log_z = -inf`, `ess = 0` and `degenerate` set; such a group takes no further weights.

    Attributes:
        log_weights: (B, K) float64 on the device of the first potential (the CPU where float64 does not exist).
        log_z: (B,) float64.
        ess: (B,) float64, after the last update and before its resampling; K at the start.
        resampled: (B,) bool, at the last update.
        degenerate: (B,) bool.
        dropped: (B,) int64, particles dropped for NaN or `+inf`.
        ancestors: for each update, the ancestors (B, K) or None if no group resampled.
        ess_trace: `ess` of each update, a list of (B,).
        resampled_trace: `resampled` of each update, a list of (B,).
    """

    def __init__(
        self,
        num_groups: int,
        num_particles: int,
        *,
        resampler: Resampler = systematic,
        ess_threshold: float = 0.5,
        generator: Generators = None,
        on_nan: OnNan = "error",
        on_degenerate: OnDegenerate = "error",
    ) -> None:
        self.num_groups = check_count("num_groups", num_groups)
        self.num_particles = check_count("num_particles", num_particles)
        if not callable(resampler):
            raise TypeError(
                f"resampler={resampler!r} is not a function; give one such as fklit.feynman_kac.systematic."
            )
        check_choice("on_nan", on_nan, ("error", "drop"))
        check_choice("on_degenerate", on_degenerate, ("error", "keep"))
        self.resampler = resampler
        self.ess_threshold = check_fraction("ess_threshold", ess_threshold)
        self.generator = check_generators(generator, num_groups)
        self.on_nan: OnNan = on_nan
        self.on_degenerate: OnDegenerate = on_degenerate

        self.log_weights: Float64[Tensor, "B K"] = torch.zeros(num_groups, num_particles, dtype=torch.float64)
        self.log_z: Float64[Tensor, " B"] = torch.zeros(num_groups, dtype=torch.float64)
        self.ess: Float64[Tensor, " B"] = torch.full((num_groups,), float(num_particles), dtype=torch.float64)
        self.resampled: Bool[Tensor, " B"] = torch.zeros(num_groups, dtype=torch.bool)
        self.degenerate: Bool[Tensor, " B"] = torch.zeros(num_groups, dtype=torch.bool)
        self.dropped = torch.zeros(num_groups, dtype=torch.int64)
        self.ancestors: list[Tensor | None] = []
        self.ess_trace: list[Tensor] = []
        self.resampled_trace: list[Tensor] = []

    @property
    def num_updates(self) -> int:
        """How many potentials have been taken."""
        return len(self.ancestors)

    def update(
        self,
        log_potential: Tensor,
        *,
        may_resample: bool = True,
        reduced: Bool[Tensor, " B"] | None = None,
        num_kept: int = 1,
    ) -> Tensor | None:
        """Multiply the weights by a potential and resample the groups that need it.

        Args:
            log_potential: log G, shape (B, K), any real dtype and device; `-inf` kills a particle for good. What
                a dead particle returns is ignored.
            may_resample: False carries the weights in any case; the terminal update of a run must use it, so that no
                finished sample is lost.
            reduced: groups whose slots shall descend from `num_kept` particles, drawn by weight, whatever their ESS,
                each in K / num_kept slots side by side; None for none. That is a resampling, too: over the slots,
                ancestors have the law of the weights, so `log_z` stays as it is and unbiased, and weights stay proper,
                also where the slots of one ancestor then move as one.
            num_kept: a divisor of K.

        Returns:
            Ancestors (B, K), int64, on the device of `log_potential`; slot k now descends from slot `ancestors[b,
            k]`; rows of groups that did not resample are 0 .. K-1. None if no group resampled. Re-index everything
            per particle by them.

        Raises:
            InvalidWeightError, DegenerateGroupError: by policy; the system is then as it was before.
            TypeError, ValueError: for a wrong dtype or shape.
        """
        check_matrix("log_potential", log_potential, (self.num_groups, self.num_particles))
        if self.num_updates == 0:
            self._move(weight_device(log_potential.device))
        context = f"at update {self.num_updates}"
        living = (self.log_weights > -torch.inf) & ~self.degenerate.unsqueeze(1)
        increment, dropped = apply_nan_policy(
            as_float64(log_potential).to(self.log_weights.device), living, on_nan=self.on_nan, context=context
        )
        log_weights = self.log_weights + increment
        # A group that is degenerate already has finite equal weights, so only new ones are found here.
        log_weights, degenerate = apply_degeneracy_policy(
            log_weights, on_degenerate=self.on_degenerate, context=context
        )
        degenerate = degenerate | self.degenerate
        log_z = log_mean_exp(log_weights).masked_fill(degenerate, -torch.inf)
        size = ess(log_weights).masked_fill(degenerate, 0.0)
        chosen = self._chosen(log_weights, size, degenerate) if may_resample else torch.zeros_like(degenerate)
        few = torch.zeros_like(degenerate) if reduced is None else reduced.to(degenerate.device) & ~degenerate
        chosen = chosen & ~few
        ancestors = self._resample(log_weights, chosen)
        if bool(few.any()):
            ancestors, chosen = self._reduce(log_weights, few, num_kept, ancestors), chosen | few
        if ancestors is not None:
            log_weights = torch.where(chosen.unsqueeze(1), log_z.unsqueeze(1), log_weights)
            ancestors = ancestors.to(log_potential.device)

        self.log_weights, self.log_z, self.ess, self.resampled = log_weights, log_z, size, chosen
        self.degenerate, self.dropped = degenerate, self.dropped + dropped
        self.ancestors.append(ancestors)
        self.ess_trace.append(size)
        self.resampled_trace.append(chosen)
        return ancestors

    def _chosen(self, log_weights: Tensor, size: Tensor, degenerate: Tensor) -> Tensor:
        if self.ess_threshold == 0:
            return torch.zeros_like(degenerate)
        differ = log_weights.amax(dim=1) > log_weights.amin(dim=1)
        # At 1 every difference counts, also one too small to move the ESS below K in float64.
        low = size < self.ess_threshold * self.num_particles if self.ess_threshold < 1 else torch.ones_like(differ)
        return low & differ & ~degenerate

    def _resample(self, log_weights: Tensor, chosen: Tensor) -> Tensor | None:
        rows = chosen.nonzero().flatten()
        if rows.numel() == 0:
            return None
        generator = self.generator
        if isinstance(generator, list):
            generator = [generator[row] for row in rows.tolist()]
        drawn = self.resampler(log_weights[rows], generator)
        if drawn.shape != (rows.numel(), self.num_particles) or drawn.dtype != torch.int64:
            raise ValueError(
                f"The resampler returned {drawn.dtype} of shape {tuple(drawn.shape)}; it must return int64 "
                "ancestors of shape "
                f"{(rows.numel(), self.num_particles)}."
            )
        if int(drawn.min()) < 0 or int(drawn.max()) >= self.num_particles:
            raise ValueError(
                f"The resampler returned an ancestor outside 0 .. {self.num_particles - 1}; fix the resampler."
            )
        ancestors = torch.arange(self.num_particles, device=log_weights.device).repeat(self.num_groups, 1)
        ancestors[rows] = drawn.to(log_weights.device)
        return ancestors

    def _reduce(self, log_weights: Tensor, few: Tensor, num_kept: int, ancestors: Tensor | None) -> Tensor:
        """Ancestors with a few particles of each such group, drawn by weight, in all of its slots."""
        copies, rest = divmod(self.num_particles, num_kept)
        if rest:
            raise ValueError(f"expected num_kept to divide {self.num_particles} particles, got {num_kept}; change one.")
        rows = few.nonzero().flatten()
        generator = self.generator
        if isinstance(generator, list):
            generator = [generator[row] for row in rows.tolist()]
        drawn = draw_few(log_weights[rows], num_kept, generator).repeat_interleave(copies, dim=1)
        if ancestors is None:
            ancestors = torch.arange(self.num_particles, device=log_weights.device).repeat(self.num_groups, 1)
        ancestors[rows] = drawn.to(log_weights.device)
        return ancestors

    def _move(self, device: torch.device) -> None:
        self.log_weights, self.log_z, self.ess = self.log_weights.to(device), self.log_z.to(device), self.ess.to(device)
        self.resampled, self.degenerate = self.resampled.to(device), self.degenerate.to(device)
        self.dropped = self.dropped.to(device)

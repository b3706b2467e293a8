"""The corrector as a Feynman-Kac model: it moves and weighs particles, the engine resamples."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.correctors.simulation.control import Control
from fklit.correctors.simulation.euler_maruyama import EulerMaruyama
from fklit.correctors.simulation.increment import Increment, Uncorrected
from fklit.correctors.simulation.initial import InitialGaussian, InitialLaw
from fklit.correctors.simulation.ito import carry_log_densities, check_ito, initial_log_densities
from fklit.correctors.simulation.kernel_weight import KernelWeight
from fklit.correctors.simulation.proper import check_proper, distance_from_experts
from fklit.correctors.simulation.proposal import Proposal
from fklit.correctors.simulation.rate import Rate, rate
from fklit.correctors.simulation.reverse_kernel import ReverseKernel
from fklit.correctors.simulation.tilt_step import StiffTiltError
from fklit.correctors.targets.conversions import to_denoised
from fklit.correctors.targets.evaluation import Evaluation, check_tilt
from fklit.correctors.targets.expert import Expert
from fklit.correctors.targets.paths.noise_path import check_grid, times_of
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import BlackBoxTilt, Tilt
from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.potentials import Potential
from fklit.feynman_kac.randomness import Generators
from fklit.feynman_kac.reward_path import RewardPath
from fklit.feynman_kac.weights import OnNan, normalize


class Corrector:
    """Steps of a target from noise to data with the weights that correct them, for `fklit.feynman_kac.run`.

    Args:
        target: what to sample.
        times: falling times, from noise to data; `target.path.grid(num_steps)`.
        proposal: how particles move.
        increment: how steps are weighed; if None what fits the proposal: `KernelWeight` for `ReverseKernel`, else
            `Rate`.
        control: a drift control, or None.
        event_shape: shape of one sample; the experts' if None.
        initial: the Gaussian to start from; the target's own at the noise end if None.
        clamp: bound on how far an increment may lie from the mean of its group, or None. A bias: what it clamps is
            counted.
        dtype: of the samples.
        device: of the samples.
        on_nan: "error" names the expert whose score is not finite; "drop" lets the engine drop such particles.

    Attributes:
        log_weight_std: for each step the weighted standard deviation of the increments within each group, (B,).
        clamped: increments clamped so far in each group, (B,) int64.
        farthest: of each group the largest distance from the nearest expert so far, in standard deviations, (B,).
        budget: expert evaluations (as denoiser calls) and scores of a black-box reward since `initial`.

    Raises:
        ImproperTargetError, IncompatibleError, ValueError, TypeError: for what does not fit together.
    """

    def __init__(
        self,
        target: Target,
        times: Iterable[float],
        *,
        proposal: Proposal | None = None,
        increment: Increment | None = None,
        control: Control | None = None,
        event_shape: Sequence[int] | None = None,
        initial: InitialGaussian | None = None,
        clamp: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        on_nan: OnNan = "error",
    ) -> None:
        if not isinstance(target, Target):
            raise TypeError(
                f"expected a Target, but target is a {type(target).__name__}; pass for example "
                "Target.annealed(expert, 2.0)."
            )
        for number, expert in enumerate(target.experts):
            if not isinstance(expert, Expert):
                raise TypeError(
                    f"expected experts with score(x, t), but expert {number} is a {type(expert).__name__}; for tokens "
                    "use MaskedCorrector."
                )
        self.target = target
        times = times_of(times)
        self.intervals = check_grid(target.path, times)
        self.num_steps = len(self.intervals)
        self.proposal = EulerMaruyama() if proposal is None else proposal
        default: Increment = KernelWeight() if isinstance(self.proposal, ReverseKernel) else Rate()
        self.increment = default if increment is None else increment
        if self.increment.needs_kernel and isinstance(self.proposal, EulerMaruyama):
            self.proposal = replace(self.proposal, split=False)
        self.control = control
        if clamp is not None and not clamp > 0:
            raise ValueError(f"expected a positive bound, got clamp={clamp}; pass None for no clamp.")
        self.clamp = clamp
        shape = target.event_shape if event_shape is None else tuple(event_shape)
        if shape is None:
            raise ValueError(
                "expected the shape of a sample, but no expert has an event_shape; give event_shape=, for example (2,)."
            )
        self.event_shape = shape
        self.dtype, self.device = dtype, torch.device(device)
        check_choice("on_nan", on_nan, ("error", "drop"))
        self.on_nan = on_nan
        self.proposal.check(target, self.intervals)
        self.increment.check(target, self.proposal, control)
        if control is not None:
            control.check(target)
        if not isinstance(self.increment, Uncorrected):
            check_proper(target, times, shape)
        self._densities = self.increment.needs_log_densities(target.exponents_change(times))
        self._ito = self._densities and (target.log_density == "ito" or not target.has_log_densities)
        if self._ito:
            check_ito(target, self.proposal, self.intervals)
        self.law = InitialLaw(target, self.intervals[0].t, initial)
        _ = self.law.law  # raises here, not when the run begins
        self.log_weight_std: list[Tensor] = []
        self.clamped = torch.zeros(0, dtype=torch.int64)
        self.farthest = torch.zeros(0, dtype=torch.float64)
        self.budget = Budget()

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> dict[str, Any]:
        """Draw the particles of the noise end."""
        self.log_weight_std, self.budget = [], Budget()
        self.clamped = torch.zeros(num_groups, dtype=torch.int64, device=self.device)
        self.farthest = torch.zeros(num_groups, dtype=torch.float64)
        shape = (num_groups, num_particles, *self.event_shape)
        x = self.law.law.sample(shape, generator, dtype=self.dtype, device=self.device)
        state: dict[str, Any] = {"x": x, "log_q": None, "path": None, "previous_dispersion": None}
        if self._ito:
            state["log_q"] = initial_log_densities(self.target, x, self.intervals[0].t)
        if isinstance(self.target.tilt, BlackBoxTilt):
            potential = self.target.tilt.potential
            assert isinstance(potential, Potential)
            points = self.num_steps if potential.scores_intermediate else 0
            state["path"] = RewardPath(potential, num_groups, num_particles, num_points=points)
        return state

    def initial_log_weights(self, state: dict[str, Any]) -> Tensor:
        """Return the log weights of the start, (B, K)."""
        x: Tensor = state["x"]
        if isinstance(self.increment, Uncorrected):
            return torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)
        tilt = self.target.tilt
        if isinstance(tilt, Tilt) and self.on_nan == "error":
            check_tilt(*tilt.reward_and_gradient(x, self.intervals[0].t), self.intervals[0].t)
        return self.law.log_weights(x)

    def step(
        self, state: dict[str, Any], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[dict[str, Any], Tensor]:
        """Move from the t-th time of the grid to the next and weigh the step."""
        interval = self.intervals[t]
        x, denoising_interval = self.proposal.prepare(self.target, state["x"], interval, generator)
        before = self._evaluate(x, denoising_interval.t, state["log_q"])
        shift, shift_weight = None, None
        if self.control is not None:
            plain = rate(self.target, before, interval)
            shift, shift_weight = self.control.shift(self.target, before, interval, plain, log_weights)
        move = self.proposal.move(self.target, before, interval, denoising_interval, shift, generator)
        if move.after is not None:
            self._count(x)
        move = replace(move, shift_weight=shift_weight, previous_dispersion=state["previous_dispersion"])
        if self._ito and move.limited is not None and bool(move.limited.any()):
            raise StiffTiltError(
                f"expected a tilt that bears zeta = 1, which the Ito log densities need, got one too curved for the "
                f"step from t={interval.t:g} to {interval.s:g}; take more steps, or experts with log_density(x, t)."
            )
        increment = self._clamp(self.increment.log_weight(self.target, move), log_weights)
        log_q = state["log_q"]
        if self._ito:
            assert before.log_densities is not None
            log_q = carry_log_densities(before, before.log_densities, interval, move.x)
        away = distance_from_experts(self.target, move.x, interval.s, normalize(log_weights))
        self.farthest = torch.maximum(self.farthest, away)
        potential = increment
        if state["path"] is not None:
            potential = increment + self._reward(state["path"], before, move.x, t)
        dispersion = None if move.after is None else move.after.score_dispersion
        return {"x": move.x, "log_q": log_q, "path": state["path"], "previous_dispersion": dispersion}, potential

    def _evaluate(self, x: Tensor, t: float, carried: tuple[Tensor, ...] | None) -> Evaluation:
        self._count(x)
        exact = self._densities and not self._ito
        before = self.target.evaluate(x, t, log_densities=exact, finite=self.on_nan == "error")
        return replace(before, log_densities=carried) if self._ito else before

    def _count(self, x: Tensor) -> None:
        calls = x.shape[0] * x.shape[1] * len(self.target.experts)
        self.budget = replace(self.budget, denoiser_calls=self.budget.denoiser_calls + calls)

    def _clamp(self, increment: Tensor, log_weights: Tensor) -> Tensor:
        """Record the standard deviation of the increments, and bound their distance from the mean."""
        weights = normalize(log_weights).to(increment.device)
        values = torch.where(weights > 0, increment, 0.0)
        mean = (weights * values).sum(dim=1, keepdim=True)
        deviation = values - mean
        self.log_weight_std.append((weights * deviation.square()).sum(dim=1).sqrt())
        if self.clamp is None:
            return increment
        self.clamped = self.clamped + (deviation.abs() > self.clamp).sum(dim=1)
        return mean + (increment - mean).clamp(-self.clamp, self.clamp)

    def _reward(self, path: RewardPath, before: Evaluation, new: Tensor, t: int) -> Tensor:
        """Score the parents' denoised prediction and, at the last step, the final samples."""
        tilt = self.target.tilt
        assert isinstance(tilt, BlackBoxTilt) and isinstance(tilt.potential, Potential)
        interval = self.intervals[t]
        total = torch.zeros(new.shape[:2], dtype=torch.float64, device=new.device)
        scored = 0
        if tilt.potential.scores_intermediate:
            sample = before.x
            if tilt.reward_input == "denoised":
                scale, sigma = self.target.path.scale(before.t), self.target.path.sigma(before.t)
                sample = to_denoised("score", before.score, before.x, scale=scale, sigma=sigma)
            total = total + path.update(tilt.score(sample), tilt.scale_at(interval.t)).to(new.device)
            scored += 1
        if t == self.num_steps - 1:
            total = total + path.terminal(tilt.score(new), tilt.scale_at(interval.s)).to(new.device)
            scored += 1
        calls = self.budget.reward_calls + scored * new.shape[0] * new.shape[1]
        self.budget = replace(self.budget, reward_calls=calls)
        return total

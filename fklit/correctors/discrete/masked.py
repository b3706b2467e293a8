"""Correctors of masked (absorbing) diffusion over tokens.

A token survives to time t with probability `alpha(t)` and is the mask otherwise. An expert gives `log p_i(v | x)` at
every masked site. Per step from t to s the experts' kernels unmask a site with probability `(alpha_s - alpha_t) / (1 -
alpha_t)`; the corrector draws from their normalized product with the forward kernel to the power `1 - B`, site by site,
and weighs by the log normalizer. As steps shrink that is the exit-rate weight of `ctmc`: one log-sum-exp over the
vocabulary a site, and no divergence. Without a grid one site is unmasked a step (`one_site`), which has no such limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.discrete.masked_weights import masked_weight
from fklit.correctors.discrete.one_site import unmask_one
from fklit.correctors.targets.target import Target
from fklit.correctors.targets.tilt import BlackBoxTilt
from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.potentials import Potential
from fklit.feynman_kac.randomness import Generators, uniforms
from fklit.feynman_kac.reward_path import RewardPath


@dataclass(frozen=True)
class MaskedPath:
    """The absorbing process with `alpha(t) = (1 - t)^power`.

    Attributes:
        mask: id of the mask token.
        length: number of sites.
        power: exponent of the schedule; 1 is linear.
    """

    mask: int
    length: int
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.length < 1 or not self.power > 0:
            raise ValueError(
                f"expected at least 1 site and a positive power, got length={self.length} and power={self.power}; "
                "power 1 is the linear schedule."
            )

    def alpha(self, t: float) -> float:
        """Return the probability that a token is not masked at time t."""
        return float((1.0 - t) ** self.power)

    def grid(self, num_steps: int) -> tuple[float, ...]:
        """Return `num_steps + 1` falling times from 1 to 0."""
        return (*(1.0 - k / num_steps for k in range(num_steps)), 0.0)

    def one_by_one(self) -> tuple[float, ...]:
        """Return `length + 1` falling times at which as many sites are masked in the mean as are left then."""
        return tuple(1.0 - (k / self.length) ** (1 / self.power) for k in range(self.length + 1))


@runtime_checkable
class MaskedExpert(Protocol):
    """A masked model, known by its predictions.

    Attributes:
        path: the absorbing process; experts of one target share it.
    """

    path: Any

    def log_probs(self, tokens: Tensor, t: float) -> Tensor:
        """Return `log p(v | tokens)`, (B, K, L, V), normalized over v; only masked sites count.

        Args:
            tokens: (B, K, L) int64, in which `path.mask` marks masked sites.
            t: the time.
        """
        ...


@runtime_checkable
class JointExpert(MaskedExpert, Protocol):
    """A masked expert that can be asked together with others, such as one network under several conditions.

    Attributes:
        shared: what experts that are asked together have in common, compared by `==`.
    """

    shared: Any

    def joint_log_probs(self, experts: Sequence[Any], tokens: Tensor, t: float) -> Sequence[Tensor]:
        """Return `log_probs(tokens, t)` of each of the experts, which share `shared` with this one.

        Args:
            experts: this one and others.
            tokens: see `MaskedExpert`.
            t: the time.
        """
        ...


class MaskedCorrector:
    """Steps of a target of masked experts from all masks to tokens, for `fklit.feynman_kac.run`.

    The state is `{"x": tokens (B, K, L) int64, ...}`. With log Z 0 at the start (one state), `log_z` estimates the
    log of the sum of `prod_i p_i(x)^beta_i exp(reward)` over all sequences.

    Args:
        target: experts are `MaskedExpert`; exponents constant, with a positive sum; a tilt is a `BlackBoxTilt`, whose
            "denoised" prediction is the likeliest token of the combined experts at every masked site.
        times: falling times, such as `path.grid(num_steps)`, of more steps than sites, since sites of one step are
            independent. None unmasks one site a step, in `path.length` steps: exact, whatever the experts.
        corrected: False gives the heuristic sampler with weights of 0.
        device: of the tokens.

    Raises:
        TypeError, ValueError: for targets that do not fit.
    """

    def __init__(
        self,
        target: Target,
        times: Sequence[float] | None = None,
        *,
        corrected: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        for number, expert in enumerate(target.experts):
            if not isinstance(expert, MaskedExpert):
                raise TypeError(
                    f"expected experts with log_probs(tokens, t), but expert {number} is a {type(expert).__name__}; "
                    "use Corrector for scores."
                )
        path: Any = target.path
        if not isinstance(path, MaskedPath):
            raise TypeError(f"expected experts on a MaskedPath, got {path!r}; give them one.")
        self.one_by_one = times is None
        times = path.one_by_one() if times is None else times
        if target.exponents_change(times):
            raise ValueError(
                "expected constant exponents, but one changes in time, for which masked experts have no density; give "
                "numbers."
            )
        total = sum(target.exponents(times[0]))
        if total <= 0:
            raise ValueError(f"expected exponents of positive sum, got exponents that sum to {total:g}; raise one.")
        if target.tilt is not None and not isinstance(target.tilt, BlackBoxTilt):
            raise ValueError(
                "expected a black-box tilt, but tokens have no gradient; use Target.tilted(..., gradient=False)."
            )
        if len(times) < 2 or any(not 0 <= s < t <= 1 for t, s in pairwise(times)):
            raise ValueError(
                f"expected at least two times that fall from at most 1 to 0, got times={tuple(times)}; use "
                "path.grid(num_steps)."
            )
        if path.alpha(times[-1]) != 1.0:
            raise ValueError(
                f"expected a grid that ends at 0, but it ends at t={times[-1]:g} with sites still masked; end it at 0."
            )
        self.target, self.path, self.times = target, path, tuple(times)
        self.num_steps = len(times) - 1
        self.corrected = corrected
        self.device = torch.device(device)
        self.budget = Budget()

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> dict[str, Any]:
        """Return all masks."""
        self.budget = Budget()
        shape = (num_groups, num_particles, self.path.length)
        tokens = torch.full(shape, self.path.mask, dtype=torch.int64, device=self.device)
        history = None
        if isinstance(self.target.tilt, BlackBoxTilt):
            potential = self.target.tilt.potential
            assert isinstance(potential, Potential)
            points = self.num_steps if potential.scores_intermediate else 0
            history = RewardPath(potential, num_groups, num_particles, num_points=points)
        return {"x": tokens, "path": history}

    def step(
        self, state: dict[str, Any], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[dict[str, Any], Tensor]:
        """Unmask from the t-th time of the grid to the next, or one site, and weigh the step."""
        tokens: Tensor = state["x"]
        combined = self._combined(tokens, self.times[t])
        weight, new = (self._one_site if self.one_by_one else self._to_next)(tokens, combined, t, generator)
        log_potential = weight if self.corrected else torch.zeros_like(weight)
        if state["path"] is not None:
            log_potential = log_potential + self._reward(state["path"], tokens, combined, new, t)
        return {"x": new, "path": state["path"]}, log_potential

    def _one_site(self, tokens: Tensor, combined: Tensor, t: int, generator: Generators) -> tuple[Tensor, Tensor]:
        weight, site, token = unmask_one(tokens == self.path.mask, combined, generator)
        new = tokens.scatter(2, site.unsqueeze(-1), token.unsqueeze(-1))
        return weight, torch.where(weight.isneginf().unsqueeze(-1), tokens, new)  # nothing goes on at a weight of 0

    def _to_next(self, tokens: Tensor, combined: Tensor, t: int, generator: Generators) -> tuple[Tensor, Tensor]:
        noisy, clean = self.times[t], self.times[t + 1]
        weight, unmask = masked_weight(
            tokens == self.path.mask,
            torch.logsumexp(combined, dim=-1),
            total=sum(self.target.exponents(noisy)),
            alpha_from=self.path.alpha(noisy),
            alpha_to=self.path.alpha(clean),
        )
        # One uniform a site says whether it is unmasked and, stretched, to which token.
        points = uniforms(generator, tokens.shape, device=tokens.device)
        drawn = points / unmask.clamp(min=1e-300)
        edges = torch.softmax(combined, dim=-1).cumsum(dim=-1)
        values = torch.searchsorted(edges, (drawn * edges[..., -1]).unsqueeze(-1), right=True).squeeze(-1)
        values = values.clamp(max=combined.shape[-1] - 1)
        return weight, torch.where((tokens == self.path.mask) & (points < unmask), values, tokens)

    def _combined(self, tokens: Tensor, t: float) -> Float64[Tensor, "B K L V"]:
        total: Tensor | None = None
        for log_probs, exponent in zip(self._log_probs(tokens, t), self.target.exponents(t), strict=True):
            if log_probs.shape[:-1] != tokens.shape:
                raise ValueError(
                    f"expected log_probs of shape (B, K, L, V), got {tuple(log_probs.shape)} for tokens "
                    f"{tuple(tokens.shape)}; return one number for each value of each site."
                )
            part = exponent * log_probs.to(torch.float64)
            total = part if total is None else total + part
        assert total is not None
        calls = tokens.shape[0] * tokens.shape[1] * len(self.target.experts)
        self.budget = replace(self.budget, denoiser_calls=self.budget.denoiser_calls + calls)
        return total

    def _log_probs(self, tokens: Tensor, t: float) -> list[Tensor]:
        """Predictions of each expert; those that can be asked together are."""
        found: dict[int, Tensor] = {}
        for expert in self.target.experts:
            if id(expert) in found:
                continue
            if isinstance(expert, JointExpert):
                others = [one for one in self.target.experts if isinstance(one, JointExpert)]
                together = [one for one in others if one.shared == expert.shared]
                answers = expert.joint_log_probs(together, tokens, t)
                found |= {id(one): answer for one, answer in zip(together, answers, strict=True)}
            else:
                assert isinstance(expert, MaskedExpert)
                found[id(expert)] = expert.log_probs(tokens, t)
        return [found[id(expert)] for expert in self.target.experts]

    def _reward(self, history: RewardPath, tokens: Tensor, combined: Tensor, new: Tensor, t: int) -> Tensor:
        tilt = self.target.tilt
        assert isinstance(tilt, BlackBoxTilt) and isinstance(tilt.potential, Potential)
        total = torch.zeros(tokens.shape[:2], dtype=torch.float64, device=tokens.device)
        if tilt.potential.scores_intermediate:
            likeliest = torch.where(tokens == self.path.mask, combined.argmax(dim=-1), tokens)
            sample = likeliest if tilt.reward_input == "denoised" else tokens
            total = total + history.update(tilt.score(sample), tilt.scale_at(self.times[t])).to(new.device)
        if t == self.num_steps - 1:
            total = total + history.terminal(tilt.score(new), tilt.scale_at(self.times[-1])).to(new.device)
        return total

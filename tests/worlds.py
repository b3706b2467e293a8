"""Small worlds whose targets, evidences and marginals are known exactly."""

import itertools
import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from fklit.feynman_kac import (
    Difference,
    Generators,
    Potential,
    RewardPath,
    Tempering,
    normals,
    uniforms,
)


def parabola(x: Tensor) -> Tensor:
    return -0.5 * (x - 1.5).square()


class GaussianChain:
    """N(0, 1) under the exact reverse kernel of 20 noising steps of beta = 0.2, with r = -(x - 1.5)^2 / 2 by default.

    The target at scale 2 is N(1, 1/3) with log Z = -1.299306. Step t makes the sample with `19 - t` steps left and, if
    scheduled, scores the reward of its denoised mean; the last step scores the sample itself.
    """

    num_steps = 20

    def __init__(
        self,
        potential: Potential | None = None,
        *,
        reward_scale: float = 2.0,
        score_steps: Collection[int] = range(19),
        reward: Callable[[Tensor], Tensor] = parabola,
        predict: Callable[[Tensor, float], Tensor] | None = None,
        tempering: Tempering | None = None,
    ) -> None:
        self.potential = Difference() if potential is None else potential
        self.reward_scale = reward_scale
        self.score_steps = sorted(score_steps)
        self.reward = reward
        self.predict = predict
        self.tempering = tempering
        self.reward_calls = 0

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> dict[str, object]:
        self.reward_calls = 0
        x = normals(generator, (num_groups, num_particles), dtype=torch.float64)
        return {"x": x, "path": RewardPath(self.potential, num_groups, num_particles, steps=self.score_steps)}

    def step(
        self, state: dict[str, object], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[dict[str, object], Tensor]:
        x, path = state["x"], state["path"]
        x = self.move(x, t, generator)
        alpha_bar = 0.8 ** (self.num_steps - 1 - t)
        if t == self.num_steps - 1:
            self.reward_calls += 1
            log_potential = path.terminal(self.reward(x), self.reward_scale)
        elif t in self.score_steps:
            self.reward_calls += 1
            value = self.predict(x, alpha_bar) if self.predict else self.reward(self.denoised(x, alpha_bar))
            scale: float | Tensor = self.reward_scale
            if self.tempering is not None:
                scale = self.tempering.scale(
                    path,
                    value,
                    log_weights=log_weights,
                    reward_scale=self.reward_scale,
                    point=self.score_steps.index(t),
                    num_points=len(self.score_steps),
                )
            log_potential = path.update(value, scale)
        else:
            log_potential = torch.zeros_like(x)
        return {"x": x, "path": path}, log_potential

    def move(self, x: Tensor, t: int, generator: Generators) -> Tensor:
        """The sample with one step less left."""
        return math.sqrt(0.8) * x + math.sqrt(0.2) * normals(generator, x.shape, dtype=torch.float64)

    def denoised(self, x: Tensor, alpha_bar: float) -> Tensor:
        return math.sqrt(alpha_bar) * x


class MixtureChain(GaussianChain):
    """0.7 N(-2, 1/4) + 0.3 N(3, 1/4) under its exact reverse kernel; r = -(x - 2)^2 / 2 and scale 1 for known numbers.

    The target is 0.005750 N(-1.2, 0.2) + 0.994250 N(2.8, 0.2), with log Z = -1.709777.
    """

    MEANS = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    WEIGHTS = torch.tensor([0.7, 0.3], dtype=torch.float64)
    VARIANCE = 0.25

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> dict[str, object]:
        state, alpha_bar = super().initial(num_groups, num_particles, generator), 0.8**self.num_steps
        centers = self.MEANS[(uniforms(generator, (num_groups, num_particles)) >= self.WEIGHTS[0]).long()]
        variance = alpha_bar * self.VARIANCE + 1 - alpha_bar
        return {**state, "x": math.sqrt(alpha_bar) * centers + math.sqrt(variance) * state["x"]}

    def _shares(self, x: Tensor, alpha_bar: float) -> Tensor:
        """Probability of each component given the noisy sample (..., 2)."""
        variance = alpha_bar * self.VARIANCE + 1 - alpha_bar
        gaps = x.unsqueeze(-1) - math.sqrt(alpha_bar) * self.MEANS
        return torch.softmax(self.WEIGHTS.log() - 0.5 * gaps.square() / variance, dim=-1)

    def move(self, x: Tensor, t: int, generator: Generators) -> Tensor:
        # From alpha_bar_t to alpha_bar_s: one component is drawn, then the Gaussian that it leaves.
        left = self.num_steps - t
        now, then = 0.8**left, 0.8 ** (left - 1)
        kept = uniforms(generator, x.shape).to(x) < self._shares(x, now)[..., 0]
        center = torch.where(kept, self.MEANS[0], self.MEANS[1])
        mean, prior = math.sqrt(then) * center, then * self.VARIANCE + 1 - then
        gain = prior * math.sqrt(0.8) / (0.8 * prior + 0.2)
        posterior = prior * 0.2 / (0.8 * prior + 0.2)
        drawn = normals(generator, x.shape, dtype=torch.float64)
        return mean + gain * (x - math.sqrt(0.8) * mean) + math.sqrt(posterior) * drawn

    def denoised(self, x: Tensor, alpha_bar: float) -> Tensor:
        variance = alpha_bar * self.VARIANCE + 1 - alpha_bar
        gain = math.sqrt(alpha_bar) * self.VARIANCE / variance
        each = self.MEANS + gain * (x.unsqueeze(-1) - math.sqrt(alpha_bar) * self.MEANS)
        return (self._shares(x, alpha_bar) * each).sum(dim=-1)


def exact_value(scale: float) -> Callable[[Tensor, float], Tensor]:
    """The optimal intermediate reward `log E[exp(scale r(x_0)) | x_t] / scale` of the parabola."""

    def value(x: Tensor, alpha_bar: float) -> Tensor:
        mean, variance = math.sqrt(alpha_bar) * x, 1.0 - alpha_bar
        spread = 1.0 + scale * variance
        return (-0.5 * math.log(spread) - 0.5 * scale * (mean - 1.5).square() / spread) / scale

    return value


class MaskedWorld:
    """Four tokens of three values, unmasked in four steps; all 256 states enumerated, so everything is exact.

    `p_data ~ exp(-(1/2) sum_i (x_i - x_{i+1})^2)`, `r = -|sum x - 6|`, scale 1.5. With tau = 4 .. 1 steps left each
    masked position unmasks with probability 1/tau to its marginal given the visible tokens.
    """

    mask = 3

    def __init__(self, scale: float = 1.5) -> None:
        self.scale = scale
        self.states = torch.tensor(list(itertools.product(range(4), repeat=4)))
        clean = (self.states != self.mask).all(dim=1)
        weight = torch.where(clean, torch.exp(-0.5 * self.states.diff(dim=1).square().sum(dim=1).double()), 0.0)
        self.p_data = weight / weight.sum()
        # compatible[s, x]: clean x agrees with the visible tokens of s
        visible = self.states != self.mask
        compatible = ((self.states[:, None] == self.states[None]) | ~visible[:, None]).all(dim=2)
        posterior = compatible * self.p_data
        posterior = posterior / posterior.sum(dim=1, keepdim=True)
        one_hot = torch.nn.functional.one_hot(self.states, 4)[..., :3].double()
        self.marginal = torch.einsum("sx,xiv->siv", posterior, one_hot)
        self.kernels = [self._kernel(tau) for tau in (4, 3, 2, 1)]
        self.start = int(self.index(torch.full((4,), self.mask)))
        mean_sum = (self.marginal * torch.arange(3)).sum(dim=(1, 2))
        self.predicted_reward = -(mean_sum - 6).abs()  # of a clean state: its reward
        law = torch.zeros(256, dtype=torch.float64)
        law[self.start] = 1.0
        for kernel in self.kernels:
            law = law @ kernel
        self.p_model = law
        values = torch.where(clean, torch.exp(self.scale * self.predicted_reward), 0.0)
        self.psi = [values]  # psi[t]: E[exp(scale r) | state before step t], with psi[4] the terminal tilt
        for kernel in reversed(self.kernels):
            self.psi.insert(0, kernel @ self.psi[0])
        self.z = float(self.psi[0][self.start])
        self.target = law * values / self.z

    def _kernel(self, tau: int) -> Tensor:
        stay = torch.nn.functional.one_hot(self.states, 4).double()
        leave = torch.cat([self.marginal / tau, torch.full((256, 4, 1), 1 - 1 / tau, dtype=torch.float64)], dim=2)
        local = torch.where((self.states == self.mask)[..., None], leave, stay)  # (s, position, new value)
        return torch.stack([local[:, i][:, self.states[:, i]] for i in range(4)]).prod(dim=0)

    def index(self, tokens: Tensor) -> Tensor:
        return (tokens * torch.tensor([64, 16, 4, 1])).sum(dim=-1)


class MaskedChain:
    """The world's base sampler, scored at the conditional mean of the sum, or its optimally twisted sampler."""

    num_steps = 4

    def __init__(self, world: MaskedWorld, potential: Potential, *, intermediate: Collection[int] = (0, 1, 2)) -> None:
        self.world, self.potential, self.intermediate = world, potential, intermediate

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> tuple[Tensor, RewardPath]:
        states = torch.full((num_groups, num_particles), self.world.start)
        return states, RewardPath(self.potential, num_groups, num_particles, steps=sorted(self.intermediate))

    def step(
        self, state: tuple[Tensor, RewardPath], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[tuple[Tensor, RewardPath], Tensor]:
        states, path = state
        cumulative = self.world.kernels[t].cumsum(dim=1)
        draws = uniforms(generator, (*states.shape, 1))
        new = torch.searchsorted(cumulative[states], draws * cumulative[states][..., -1:], right=True).squeeze(-1)
        reward = self.world.predicted_reward[new]
        if t == 3:
            return (new, path), path.terminal(reward, self.world.scale)
        if t in self.intermediate:
            return (new, path), path.update(reward, self.world.scale)
        return (new, path), torch.zeros(new.shape)


class TwistedMaskedChain:
    """The optimal proposal with the exact value as intermediate reward: every weight is Z."""

    num_steps = 4

    def __init__(self, world: MaskedWorld) -> None:
        self.world = world

    def _value(self, t: int, states: Tensor) -> Tensor:
        return self.world.psi[t][states].log() / self.world.scale

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> tuple[Tensor, RewardPath]:
        states = torch.full((num_groups, num_particles), self.world.start)
        return states, RewardPath(Difference(), num_groups, num_particles)

    def initial_log_weights(self, state: tuple[Tensor, RewardPath]) -> Tensor:
        return state[1].update(self._value(0, state[0]), self.world.scale)

    def step(
        self, state: tuple[Tensor, RewardPath], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[tuple[Tensor, RewardPath], Tensor]:
        old, path = state
        proposal = self.world.kernels[t] * self.world.psi[t + 1]
        proposal = proposal / proposal.sum(dim=1, keepdim=True).clamp(min=1e-300)
        cumulative = proposal.cumsum(dim=1)
        draws = uniforms(generator, (*old.shape, 1))
        new = torch.searchsorted(cumulative[old], draws * cumulative[old][..., -1:], right=True).squeeze(-1)
        ratio = self.world.kernels[t][old, new].log() - proposal[old, new].log()
        if t == 3:
            return (new, path), ratio + path.terminal(self.world.predicted_reward[new], self.world.scale)
        return (new, path), ratio + path.update(self._value(t + 1, new), self.world.scale)

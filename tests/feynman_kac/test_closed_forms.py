"""Acceptance C: three targets in closed form."""

import math

import pytest
import torch
from torch import Tensor
from worlds import GaussianChain

from fklit.feynman_kac import Difference, Generators, RewardPath, normals, run, uniforms


class SeparableTokens:
    """Sixteen independent Bernoulli(0.2) tokens, shown one a step; r = their sum, scored at its conditional mean."""

    num_steps = 16

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> tuple[Tensor, RewardPath]:
        return torch.zeros(num_groups, num_particles, 16), RewardPath(Difference(), num_groups, num_particles)

    def step(
        self, state: tuple[Tensor, RewardPath], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[tuple[Tensor, RewardPath], Tensor]:
        tokens, path = state
        tokens = tokens.clone()
        tokens[..., t] = (uniforms(generator, tokens.shape[:2]) < 0.2).float()
        expected = tokens.sum(dim=2) + 0.2 * (15 - t)
        score = path.terminal if t == 15 else path.update
        return (tokens, path), score(expected, 1.5)


def test_separable_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    result = run(SeparableTokens(), num_particles=200_000, generator=generator)
    share = math.exp(1.5) * 0.2 / (0.8 + 0.2 * math.exp(1.5))
    assert share == pytest.approx(0.528396, abs=1e-6)
    tokens = result.mean(lambda state: state[0])[0]
    assert float((tokens - share).abs().max()) < 0.03
    assert float(tokens.sum()) == pytest.approx(8.454333, abs=0.06)
    assert float(result.log_z) == pytest.approx(8.455547, abs=0.03)


class MixtureChain:
    """0.7 N(-2, 1/4) + 0.3 N(3, 1/4) under its exact reverse kernel; r = -(x - 2)^2 / 2, scored at the denoised
    mean."""

    num_steps = 30
    share = torch.tensor([0.7, 0.3], dtype=torch.float64)
    center = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    variance, keep = 0.25, 0.8  # of a mode; of the signal's variance in a noising step

    def _responsibility(self, x: Tensor, alpha_bar: float) -> Tensor:
        spread = alpha_bar * self.variance + 1 - alpha_bar
        scores = self.share.log() - 0.5 * (x[..., None] - math.sqrt(alpha_bar) * self.center).square() / spread
        return scores.softmax(dim=-1)

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> tuple[Tensor, RewardPath]:
        shape = (num_groups, num_particles)
        alpha_bar = self.keep**self.num_steps
        mode = (uniforms(generator, shape) >= 0.7).long()
        spread = alpha_bar * self.variance + 1 - alpha_bar
        x = math.sqrt(alpha_bar) * self.center[mode]
        return x + math.sqrt(spread) * normals(generator, shape, dtype=torch.float64), RewardPath(Difference(), *shape)

    def step(
        self, state: tuple[Tensor, RewardPath], t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[tuple[Tensor, RewardPath], Tensor]:
        x, path = state
        before, after = self.keep ** (self.num_steps - t), self.keep ** (self.num_steps - 1 - t)
        mode = (uniforms(generator, x.shape) >= self._responsibility(x, before)[..., 0]).long()
        # Given the mode, the previous state is Gaussian and the noising step linear: a Kalman update.
        mean, variance = math.sqrt(after) * self.center[mode], after * self.variance + 1 - after
        gain = math.sqrt(self.keep) * variance / (self.keep * variance + 1 - self.keep)
        mean = mean + gain * (x - math.sqrt(self.keep) * mean)
        variance = variance * (1 - gain * math.sqrt(self.keep))
        x = mean + math.sqrt(variance) * normals(generator, x.shape, dtype=torch.float64)
        if t == self.num_steps - 1:
            return (x, path), path.terminal(-0.5 * (x - 2).square(), 1.0)
        spread = after * self.variance + 1 - after
        pull = math.sqrt(after) * self.variance / spread
        clean = self.center + pull * (x[..., None] - math.sqrt(after) * self.center)
        predicted = (self._responsibility(x, after) * clean).sum(dim=-1)
        return (x, path), path.update(-0.5 * (predicted - 2).square(), 1.0)


def test_the_base_mixture_is_itself() -> None:
    chain = MixtureChain()
    state = chain.initial(1, 100_000, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    for t in range(chain.num_steps):
        state, _ = chain.step(state, t, torch.zeros(1), generator)
    x = state[0]
    assert float((x > 0.5).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(x[x < 0.5].mean()) == pytest.approx(-2.0, abs=0.02)
    assert float(x[x < 0.5].var()) == pytest.approx(0.25, abs=0.01)


def test_gaussian_mixture() -> None:
    result = run(MixtureChain(), num_particles=50_000, generator=torch.Generator().manual_seed(0))

    def mean(function: object) -> float:
        return float(result.mean(lambda state: function(state[0]).double()))

    assert float(result.log_z) == pytest.approx(-1.709777, abs=0.03)
    low = mean(lambda x: x < 0.8)
    assert low == pytest.approx(0.005750, abs=0.003)
    assert mean(lambda x: x) == pytest.approx(2.776998, abs=0.03)
    assert mean(lambda x: x.square()) - mean(lambda x: x) ** 2 == pytest.approx(0.291479, abs=0.05)
    high_mean = mean(lambda x: x * (x > 0.8)) / (1 - low)
    assert high_mean == pytest.approx(2.8, abs=0.02)
    assert mean(lambda x: (x > 0.8) * (x - 2.8).square()) / (1 - low) == pytest.approx(0.2, abs=0.01)


def test_gaussian_mixture_in_groups_of_128_has_the_right_density() -> None:
    """4096 samples in 32 groups: mean absolute error of the density on a grid below 0.05."""
    generator = torch.Generator().manual_seed(3)
    result = run(MixtureChain(), num_groups=32, num_particles=128, generator=generator)
    share = result.log_z.softmax(dim=0).unsqueeze(1)  # groups count by their evidence
    weights = share * result.log_weights.exp()
    edges = torch.linspace(-4, 6, 51, dtype=torch.float64)
    slot = torch.bucketize(result.samples[0].flatten(), edges)
    density = torch.zeros(52, dtype=torch.float64).scatter_add(0, slot, weights.flatten())[1:-1] / 0.2

    def mass(mean: float) -> Tensor:
        return 0.5 * torch.erf((edges - mean) / math.sqrt(0.4)).diff()

    exact = (0.005750 * mass(-1.2) + 0.994250 * mass(2.8)) / 0.2
    assert float((density - exact).abs().mean()) < 0.05


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_linear_reward_shifts_the_gaussian(scale: float) -> None:
    model = GaussianChain(reward_scale=scale, reward=lambda x: x)
    result = run(model, num_particles=100_000, generator=torch.Generator().manual_seed(4))
    mean = float(result.mean(lambda state: state["x"]))
    assert mean == pytest.approx(scale, abs=0.02)
    assert float(result.mean(lambda state: state["x"].square())) - mean**2 == pytest.approx(1.0, abs=0.03)
    assert float(result.log_z) == pytest.approx(scale**2 / 2, abs=0.03)

"""Proposals on case B: the gradient tilt is exact and varies less, the optimal twist has constant weights."""

import math

import pytest
import torch
from enumerable_text import Rewarded, ancestral, lean
from worlds import MaskedWorld

from fklit.feynman_kac import Difference, RewardPath, normalize, particle_gibbs, run
from fklit.text import GradientProposal, TwistedProposal
from fklit.text.ancestral import TextState


@pytest.fixture(scope="module")
def world():
    return MaskedWorld()


def gradient(world, **given):
    """The reward at the mean of the sum, which is differentiable."""

    def log_value(probabilities):
        total = (probabilities[..., :3] * torch.arange(3.0)).sum(dim=(1, 2))
        return -world.scale * (total - 6).abs()

    return GradientProposal(log_value, **given)


class Valued(Rewarded):
    """With the exact value in place of the reward: what the optimal twist goes with."""

    def step(self, state, t, log_weights, generator):
        text, ratio = self.model.step(state["text"], t, log_weights, generator)
        value = self.world.psi[t + 1][self.world.index(text.tokens)].log() / self.world.scale
        weigh = state["path"].terminal if t == 3 else state["path"].update
        return {"text": text, "path": state["path"]}, ratio + weigh(value, self.world.scale)


def twist(world):
    return TwistedProposal(lambda texts, t: world.psi[t + 1][world.index(texts)].log(), (0, 1, 2, 3))


def distance(world, result):
    states = world.index(result.samples["text"].tokens).flatten()
    share = normalize(result.log_weights).flatten() / result.num_groups
    law = torch.zeros(256, dtype=torch.float64).scatter_add(0, states, share)
    return float((law - world.target).abs().sum() / 2)


def test_gradient_tilt_converges_to_the_target(world):
    generator = torch.Generator().manual_seed(1)
    model = Rewarded(ancestral(world, gradient(world)), world)
    result = run(model, num_particles=20_000, ess_threshold=1.0, generator=generator)
    found, error = distance(world, result), abs(float(result.log_z) - math.log(world.z))
    print(f"total variation {found:.4f}, error of log Z {error:.4f}")
    assert found < 0.06 and error < 0.04


def test_gradient_tilt_is_unbiased_and_varies_less(world):
    spread = []
    for proposal in (None, gradient(world)):
        model = ancestral(world, proposal)
        model.start = model.start.expand(4000, -1)
        draws = torch.Generator().manual_seed(3)
        result = run(Rewarded(model, world), num_groups=4000, num_particles=4, ess_threshold=0.0, generator=draws)
        ratio = result.log_z.exp() / world.z
        spread.append(float(ratio.std()))
        assert abs(float(ratio.mean()) - 1) < 3 * spread[-1] / math.sqrt(4000) < 0.1
    print(f"standard deviation of the evidence over Z: base {spread[0]:.3f}, tilted {spread[1]:.3f}")
    assert spread[1] < 0.93 * spread[0]


def test_gradient_is_that_of_finite_differences(world):
    proposal, model = gradient(world), ancestral(world)
    tokens = torch.tensor([[[3, 1, 3, 3], [3, 3, 0, 2]]])
    state = model.predict(TextState(tokens))
    log_probs = model.log_probs(state)
    tilt = proposal.tilt(tokens, log_probs)
    start, small = log_probs.exp().flatten(0, 1), 1e-5
    for row, place, value in ((0, 0, 0), (0, 2, 2), (1, 1, 1)):
        moved = [start.clone() for _ in range(2)]
        moved[0][row, place, value] += small
        moved[1][row, place, value] -= small
        slope = (proposal.log_value(moved[0]) - proposal.log_value(moved[1]))[row] / (2 * small)
        others = [(proposal.tilt(tokens, log_probs)[0, row, place, v], v) for v in range(3)]
        mean = sum(float(t) * float(start[row, place, v]) for t, v in others)
        assert mean == pytest.approx(0.0, abs=1e-9)  # centered: differences are what counts
        assert float(tilt[0, row, place, value] - tilt[0, row, place, 0]) == pytest.approx(
            float(slope) - float(_slope(proposal, start, row, place, 0)), abs=1e-5
        )


def _slope(proposal, start, row, place, value, small=1e-5):
    up, down = start.clone(), start.clone()
    up[row, place, value] += small
    down[row, place, value] -= small
    return (proposal.log_value(up) - proposal.log_value(down))[row] / (2 * small)


def test_gradient_works_in_inference_mode_and_is_bounded(world):
    with torch.inference_mode():
        model = Rewarded(ancestral(world, gradient(world, largest=0.5)), world)
        result = run(model, num_particles=2000, ess_threshold=1.0, generator=torch.Generator().manual_seed(1))
    assert abs(float(result.log_z) - math.log(world.z)) < 0.15
    tokens = torch.full((1, 1, 4), 3)
    bounded = ancestral(world)
    log_probs = bounded.log_probs(bounded.predict(TextState(tokens)))
    assert float(gradient(world, largest=0.5).tilt(tokens, log_probs).abs().max()) <= 0.5 + 1e-12


@pytest.mark.parametrize(
    "log_value", [lambda p: p.sum(), lambda p: p.detach().sum(dim=(1, 2))], ids=["one number", "no gradient"]
)
def test_values_without_a_gradient_are_refused(world, log_value):
    with pytest.raises(ValueError, match="expected 1 differentiable values, got"):
        run(ancestral(world, GradientProposal(log_value)), num_particles=1)
    with pytest.raises(ValueError, match="expected largest above 0"):
        GradientProposal(log_value, largest=0.0)


@pytest.mark.parametrize("particles", [1, 3, 50])
def test_the_optimal_twist_has_constant_weights(world, particles):
    model = Valued(ancestral(world, twist(world)), world)
    result = run(model, num_particles=particles, ess_threshold=1.0, generator=torch.Generator().manual_seed(0))
    assert (result.log_weights + math.log(particles)).abs().max() < 1e-10
    assert float(result.log_z) == pytest.approx(math.log(world.z), abs=1e-10)
    assert torch.allclose(result.ess, torch.tensor(float(particles), dtype=torch.float64), atol=1e-9)


def test_the_optimal_twist_samples_the_target_without_weights(world):
    model = Valued(ancestral(world, twist(world)), world)
    result = run(model, num_particles=20_000, ess_threshold=0.0, generator=torch.Generator().manual_seed(0))
    assert distance(world, result) < 0.03
    # Predictions move with particles: there are at most 256 texts to ask for in each of 4 steps.
    assert model.model.budget.denoiser_calls <= 4 * 256


def test_a_flat_value_leaves_the_model_as_it_is(world):
    model = ancestral(world, TwistedProposal(lambda texts, t: torch.zeros(len(texts)), (0, 1, 2, 3)))
    result = run(model, num_particles=20_000, generator=torch.Generator().manual_seed(0))
    assert (result.log_weights + math.log(20_000)).abs().max() < 1e-9
    counts = world.index(result.samples.tokens).flatten().bincount(minlength=256) / 20_000
    assert (counts - world.p_model).abs().sum() / 2 < 0.03


def test_particle_gibbs_of_the_text_model_is_exact(world):
    """Base, tilted and gradient proposals: four particles and a dozen sweeps through this model class."""
    for proposal in (None, lean(world), gradient(world)):
        model = ancestral(world, proposal)
        model.start = model.start.expand(1500, -1)
        result = particle_gibbs(
            Rewarded(model, world), num_sweeps=12, num_groups=1500, num_particles=4, ess_threshold=1.0,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        assert distance(world, result) < 0.06


def test_steps_that_cannot_be_enumerated_are_refused(world):
    with pytest.raises(ValueError, match=r"expected at most 100000 texts to enumerate, got 40 \*\* 4"):
        run(ancestral(world, TwistedProposal(lambda texts, t: texts[:, 0], tuple(range(40)))), num_particles=1)
    nothing = TwistedProposal(lambda texts, t: torch.full((len(texts),), -math.inf), (0, 1, 2, 3))
    with pytest.raises(ValueError, match="expected a text of positive value after each step"):
        run(ancestral(world, nothing), num_particles=1)
    assert RewardPath(Difference(), 1, 1).joined(RewardPath(Difference(), 1, 2)).shape == (1, 3)

"""Whatever the calibration, the target is exact: evidence and moments over many small runs, in every cell."""

import math

import pytest
import torch
from calibrations import of_chain, of_masked
from torch import Tensor
from worlds import GaussianChain, MaskedChain, MaskedWorld, MixtureChain, parabola

from fklit.feynman_kac import (
    Adaptive,
    Constant,
    Difference,
    Geometric,
    Linear,
    Potential,
    Tempering,
    get_resampler,
    run,
)
from fklit.steering.calibration import Calibrated, Calibration

POINTS = (3, 7, 11, 15)
TEMPERINGS = (None, Linear(), Geometric(), Adaptive(0.7))
RESAMPLERS = ("systematic", "multinomial", "stratified", "residual", "ssp", "birth_death")


def _gaussian(tempering: Tempering | None, curve: str) -> tuple[GaussianChain, float, float, float]:
    chain = GaussianChain(score_steps=POINTS, tempering=tempering)
    potential = Calibrated(of_chain(chain), curve=curve)
    chain.potential = potential.prepare(POINTS, num_steps=20, reward_scale=2.0)
    return chain, math.sqrt(math.exp(-1.5) / 3), 1.0, 1.0 + 1 / 3


def _mixture(tempering: Tempering | None, curve: str) -> tuple[GaussianChain, float, float, float]:
    chain = MixtureChain(
        reward=lambda x: -0.5 * (x - 2).square(), reward_scale=1.0, score_steps=POINTS, tempering=tempering
    )
    potential = Calibrated(of_chain(chain), curve=curve)
    chain.potential = potential.prepare(POINTS, num_steps=20, reward_scale=1.0)
    return chain, math.exp(-1.709777), 2.776998, 2.776998**2 + 0.291479


def _check(values: Tensor, exact: float) -> None:
    """A mean over independent runs, within 4 standard errors."""
    error = float(values.std() / math.sqrt(len(values)))
    assert abs(float(values.mean()) - exact) < 4 * error + 1e-12, (float(values.mean()), exact, error)
    assert error < 0.1 * abs(exact)  # the test must be able to see something


def _hold(chain: GaussianChain, z: float, mean: float, square: float, *, resampler: str, threshold: float) -> None:
    """`E[Z_hat]` is Z, and `E[Z_hat * weighted mean of f]` is Z times the target's mean of f, at any K."""
    result = run(
        chain,
        num_groups=8000,
        num_particles=4,
        resampler=get_resampler(resampler),
        ess_threshold=threshold,
        generator=torch.Generator().manual_seed(5),
    )
    evidence, weights, x = result.log_z.exp(), result.log_weights.exp(), result.samples["x"]
    _check(evidence / z, 1.0)
    _check(evidence / z * (weights * x).sum(dim=1), mean)
    _check(evidence / z * (weights * x.square()).sum(dim=1), square)


@pytest.mark.parametrize("tempering", TEMPERINGS, ids=repr)
@pytest.mark.parametrize("world", [_gaussian, _mixture])
def test_temperings_keep_the_target(world, tempering):
    _hold(*world(tempering, "auto"), resampler="systematic", threshold=1.0)


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_resamplers_keep_the_target(resampler):
    _hold(*_mixture(None, "linear"), resampler=resampler, threshold=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("curve", ["logistic", "linear"])
@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("tempering", (*TEMPERINGS, Constant(), Geometric(0.5), Linear(0.5)), ids=repr)
@pytest.mark.parametrize("world", [_gaussian, _mixture])
def test_every_cell_keeps_the_target(world, tempering, resampler, curve, threshold):
    _hold(*world(tempering, curve), resampler=resampler, threshold=threshold)


@pytest.mark.parametrize("curve", ["logistic", "linear"])
@pytest.mark.parametrize("resampler", ["systematic", "multinomial", "birth_death"])
def test_the_enumerable_world_keeps_its_law(curve, resampler):
    world = MaskedWorld()
    potential = Calibrated(of_masked(world), curve=curve).prepare((0, 1, 2), num_steps=4, reward_scale=world.scale)
    result = run(
        MaskedChain(world, potential),
        num_groups=12_000,
        num_particles=4,
        resampler=get_resampler(resampler),
        ess_threshold=1.0,
        generator=torch.Generator().manual_seed(3),
    )
    share = result.log_z.exp() / world.z
    _check(share, 1.0)
    # The law itself: each state's expected share of Z, of which 4 in 100,000 may be off by more than 4 s.e.
    states, weights = result.samples[0], result.log_weights.exp()
    for state in world.target.topk(12).indices.tolist():
        _check(share * (weights * (states == state)).sum(dim=1), float(world.target[state]))


def test_a_wrong_calibration_costs_variance_only():
    """Scores of another law, and the finished rewards shuffled: the curves are nonsense, the target is not."""
    chain, z, mean, square = _gaussian(None, "auto")
    made = of_chain(chain)
    order = torch.randperm(made.rewards.numel(), generator=torch.Generator().manual_seed(0))
    shuffled = Calibration(
        scores=made.scores.flip(2) - 3,
        rewards=made.rewards.flatten()[order].reshape(made.rewards.shape),
        steps=made.steps,
        num_steps=20,
        prompts=made.prompts,
        upper_bound=0.0,
    )
    chain.potential = Calibrated(shuffled, curve="logistic").prepare(POINTS, num_steps=20, reward_scale=2.0)
    _hold(chain, z, mean, square, resampler="systematic", threshold=1.0)


def _noisy(x: Tensor, alpha_bar: float) -> Tensor:
    """The reward of the noisy sample itself: it says nothing early, and parts the particles as much as late."""
    return parabola(1.5 * x)


@pytest.mark.parametrize("curve", ["logistic", "linear"])
def test_uninformative_early_scores_cost_less_than_half_of_the_variance(curve):
    points = tuple(range(2, 19, 3))

    def variance(potential: Potential) -> float:
        chain = GaussianChain(potential, score_steps=points, predict=_noisy)
        result = run(
            chain,
            num_groups=4000,
            num_particles=16,
            ess_threshold=1.0,
            generator=torch.Generator().manual_seed(1),
        )
        return float(result.log_z.var())

    made = of_chain(GaussianChain(score_steps=points, predict=_noisy))
    calibrated = Calibrated(made, curve=curve).prepare(points, num_steps=20, reward_scale=2.0)
    ratio = variance(calibrated) / variance(Difference())
    assert ratio < 0.5, ratio
    print(f"var log Z, calibrated {curve} over plain: {ratio:.3f}")


@pytest.mark.parametrize(
    ("predict", "at_most"), [(None, 0.3), (_noisy, 0.15)], ids=["informative", "uninformative early"]
)
def test_many_particles_vary_less_than_a_third_of_the_published_setting(predict, at_most):
    """K = 64, scored at every step: multinomial resampling each time with plain difference, and what fklit does."""
    points = tuple(range(19))

    def variance(potential: Potential, resampler: str, ess_threshold: float) -> float:
        chain = GaussianChain(potential, score_steps=points, predict=predict)
        settings = {"resampler": get_resampler(resampler), "ess_threshold": ess_threshold}
        generator = torch.Generator().manual_seed(3)
        return float(run(chain, num_groups=2000, num_particles=64, generator=generator, **settings).log_z.var())

    made = of_chain(GaussianChain(score_steps=points, predict=predict))
    calibrated = Calibrated(made).prepare(points, num_steps=20, reward_scale=2.0)
    published = variance(Difference(), "multinomial", 1.0)
    assert variance(calibrated, "systematic", 0.5) < at_most * published
    assert variance(Difference(), "systematic", 0.3) < at_most * published

"""Acceptance B: a masked diffusion with 256 states, where every law is a matrix product."""

import math

import pytest
import torch
from worlds import MaskedChain, MaskedWorld, TwistedMaskedChain

from fklit.feynman_kac import (
    Difference,
    Max,
    Potential,
    Resampler,
    Sum,
    Terminal,
    multinomial,
    normalize,
    residual,
    run,
    ssp,
    stratified,
    systematic,
)

RESAMPLERS = [multinomial, stratified, systematic, residual, ssp]


@pytest.fixture(scope="module")
def world() -> MaskedWorld:
    return MaskedWorld()


@pytest.fixture(scope="module")
def mild_world() -> MaskedWorld:
    return MaskedWorld(scale=0.4)


def _pooled_law(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.zeros(256, dtype=torch.float64).scatter_add(0, states.flatten(), weights.flatten())


def test_the_enumeration_is_the_world_of_the_research(world: MaskedWorld) -> None:
    reward, total = world.predicted_reward, world.states.double().sum(dim=1)
    assert math.log(world.z) == pytest.approx(-1.622040, abs=1e-6)
    assert float(world.p_model @ reward) == pytest.approx(-2.294226, abs=1e-6)
    assert float(world.target @ reward) == pytest.approx(-0.422744, abs=1e-6)
    assert float(world.p_model @ total) == pytest.approx(4, abs=1e-9)
    assert float(world.target @ total) == pytest.approx(5.792876, abs=1e-6)
    assert float((world.p_model - world.p_data).abs().sum() / 2) == pytest.approx(0.081563, abs=1e-6)
    point = int(world.index(torch.tensor([1, 1, 2, 2])))
    assert float(world.target[point]) == pytest.approx(0.127570, abs=1e-6)


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_converges_to_the_target(world: MaskedWorld, resampler: Resampler) -> None:
    generator = torch.Generator().manual_seed(1)
    result = run(
        MaskedChain(world, Difference()),
        num_particles=20_000,
        resampler=resampler,
        ess_threshold=1.0,
        generator=generator,
    )
    law = _pooled_law(result.samples[0], normalize(result.log_weights))
    assert float((law - world.target).abs().sum() / 2) < 0.06
    assert abs(float(result.log_z) - math.log(world.z)) < 0.04


@pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")  # of the sum: known, see the docstring
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize(
    "potential", [Difference(), Max(), Difference("statistic"), Max("statistic"), Sum("statistic")]
)
def test_evidence_and_weighted_moments_are_unbiased(
    world: MaskedWorld, mild_world: MaskedWorld, potential: Potential, resampler: Resampler, threshold: float
) -> None:
    """4000 runs of four particles: E[Z hat] = Z, and E[Z hat * weighted mean of r] = Z * E_target r.

    The statistic forms get a small scale: at 1.5 their tails are so heavy that 4000 runs do not estimate a standard
        error.
    """
    world = mild_world if potential.form == "statistic" else world
    generator = torch.Generator().manual_seed(2)
    result = run(
        MaskedChain(world, potential),
        num_groups=4000,
        num_particles=4,
        resampler=resampler,
        ess_threshold=threshold,
        generator=generator,
    )
    evidence = result.log_z.exp()
    for values, truth in (
        (evidence, world.z),
        (
            evidence * result.mean(lambda state: world.predicted_reward[state[0]]),
            world.z * float(world.target @ world.predicted_reward),
        ),
    ):
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - truth) < 4 * error


def test_evidence_is_unbiased_to_two_percent(world: MaskedWorld) -> None:
    generator = torch.Generator().manual_seed(3)
    result = run(
        MaskedChain(world, Difference()), num_groups=4000, num_particles=4, ess_threshold=1.0, generator=generator
    )
    ratio = result.log_z.exp() / world.z
    assert abs(float(ratio.mean()) - 1) < 3 * float(ratio.std()) / math.sqrt(4000)
    assert float(ratio.std()) / math.sqrt(4000) < 0.03


@pytest.mark.parametrize("num_particles", [1, 2, 7])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_optimal_twist_has_no_variance(world: MaskedWorld, num_particles: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(4)
    result = run(
        TwistedMaskedChain(world),
        num_groups=50,
        num_particles=num_particles,
        ess_threshold=threshold,
        generator=generator,
    )
    assert result.steps == (-1, 0, 1, 2, 3)
    assert float((result.log_z - math.log(world.z)).abs().max()) < 1e-10
    assert float((result.ess - num_particles).abs().max()) < 1e-10


@pytest.mark.parametrize("resampler", [multinomial, systematic])
@pytest.mark.parametrize(("num_particles", "best_of_n"), [(4, -0.757079), (8, -0.353342)])
def test_beats_best_of_n_by_five_standard_errors(
    world: MaskedWorld, num_particles: int, best_of_n: float, resampler: Resampler
) -> None:
    generator = torch.Generator().manual_seed(5)
    result = run(
        MaskedChain(world, Difference()),
        num_groups=3000,
        num_particles=num_particles,
        resampler=resampler,
        ess_threshold=1.0,
        generator=generator,
    )
    rewards = world.predicted_reward[result.samples[0]]
    best = world.predicted_reward[result.best(rewards)[0]]
    assert torch.equal(best, rewards.amax(dim=1))
    error = float(best.std()) / math.sqrt(3000)
    assert float(best.mean()) - best_of_n > 5 * error


def test_terminal_potential_is_importance_sampling_and_its_best_is_best_of_n(world: MaskedWorld) -> None:
    generator = torch.Generator().manual_seed(6)
    result = run(
        MaskedChain(world, Terminal()), num_groups=20_000, num_particles=4, ess_threshold=1.0, generator=generator
    )
    rewards = world.predicted_reward[result.samples[0]]
    assert not result.resampled.any()
    torch.testing.assert_close(result.log_weights, (world.scale * rewards).log_softmax(dim=1))
    best = world.predicted_reward[result.best()[0]]
    assert torch.equal(best, rewards.amax(dim=1))
    assert abs(float(best.mean()) - -0.757079) < 4 * float(best.std()) / math.sqrt(20_000)

"""Properties of whole runs (research 7.3 D), on the Gaussian chain."""

import itertools
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from worlds import GaussianChain, parabola

from fklit.feynman_kac import (
    Adaptive,
    Budget,
    DegenerateGroupError,
    Difference,
    Generators,
    InvalidWeightError,
    Linear,
    Max,
    ParticleResult,
    Potential,
    Resampler,
    Sum,
    Terminal,
    group_generators,
    iterate,
    lineages,
    log_mean_exp,
    multinomial,
    normals,
    residual,
    run,
    ssp,
    stratified,
    systematic,
    unique_roots,
)

INF = math.inf
RESAMPLERS = [multinomial, stratified, systematic, residual, ssp]
RULES = [Difference(), Max(), Sum(), Difference("statistic"), Max("statistic"), Sum("statistic"), Terminal()]
pytestmark = pytest.mark.filterwarnings("ignore::fklit.feynman_kac.HighVarianceWarning")  # all forms on long schedules


def _run(model: GaussianChain, num_groups: int = 3, num_particles: int = 6, **settings: object) -> ParticleResult:
    generators = group_generators(0, num_groups)
    return run(model, num_groups=num_groups, num_particles=num_particles, generator=generators, **settings)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("points", [(), (9,), (3, 7, 11, 15), range(19)], ids=["none", "one", "four", "all"])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_along_every_surviving_line_the_potentials_multiply_to_the_target(
    rule: Potential, points: tuple[int, ...], threshold: float
) -> None:
    for tempering in (None, Linear(), Adaptive()) if points else (None,):
        model = GaussianChain(rule, score_steps=points, tempering=tempering)
        generators = group_generators(0, 3)
        records = list(iterate(model, num_groups=3, num_particles=6, ess_threshold=threshold, generator=generators))
        lines = lineages([record.ancestors for record in records], num_groups=3, num_particles=6)
        total = sum(record.log_potential.gather(1, lines[row]) for row, record in enumerate(records))
        expected = 2.0 * parabola(records[-1].state["x"])
        assert float((total - expected).abs().max()) < 1e-5
        assert records[-1].ancestors is None


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_scale_of_zero_is_the_base_sampler_bit_for_bit(rule: Potential, resampler: Resampler) -> None:
    model = GaussianChain(rule, reward_scale=0.0)
    result = _run(model, resampler=resampler, ess_threshold=1.0)
    for group, generator in enumerate(group_generators(0, 3)):
        x = torch.randn(6, generator=generator, dtype=torch.float64)
        for _ in range(20):
            x = math.sqrt(0.8) * x + math.sqrt(0.2) * torch.randn(6, generator=generator, dtype=torch.float64)
        assert torch.equal(result.samples["x"][group], x)
    assert not result.resampled.any()
    assert result.log_z.tolist() == [0.0] * 3


def test_one_particle_is_the_base_sampler_bit_for_bit() -> None:
    steered, base = _run(GaussianChain(), num_particles=1), _run(GaussianChain(reward_scale=0.0), num_particles=1)
    assert torch.equal(steered.samples["x"], base.samples["x"])
    torch.testing.assert_close(steered.log_z, 2.0 * parabola(base.samples["x"])[:, 0])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_constant_added_to_the_reward_changes_only_log_z(rule: Potential, threshold: float) -> None:
    """Fails on the reference for the maximum and the adaptive sum."""
    points = (3, 7, 11, 15)
    plain = _run(GaussianChain(rule, score_steps=points), ess_threshold=threshold)
    shifted = _run(GaussianChain(rule, score_steps=points, reward=lambda x: parabola(x) + 8.0), ess_threshold=threshold)
    assert torch.equal(plain.samples["x"], shifted.samples["x"])
    for one, other in zip(plain.ancestors, shifted.ancestors, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    torch.testing.assert_close(shifted.log_z, plain.log_z + 16.0, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_huge_rewards_give_finite_weights(rule: Potential, size: float) -> None:
    result = _run(GaussianChain(rule, reward=lambda x: size * torch.tanh(x)))
    assert torch.isfinite(result.log_weights).all()
    assert torch.isfinite(result.log_z).all()
    assert (result.ess >= 1).all()


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_groups_may_be_permuted_and_split(resampler: Resampler) -> None:
    def shard(groups: list[int]) -> ParticleResult:
        return run(
            GaussianChain(),
            num_groups=len(groups),
            num_particles=6,
            resampler=resampler,
            generator=group_generators(0, groups),
        )

    together = shard([0, 1, 2, 3])
    for groups in ([3, 1], [2], [0], [3, 2, 1, 0]):
        part = shard(groups)
        assert torch.equal(part.samples["x"], together.samples["x"][groups])
        assert torch.equal(part.log_weights, together.log_weights[groups])
        assert torch.equal(part.log_z, together.log_z[groups])
        assert torch.equal(part.resampled, together.resampled[:, groups])


@pytest.mark.parametrize("points", [(), (9,), (3, 7, 11, 15), tuple(range(19))])
def test_the_reward_is_called_once_a_scheduled_step_and_once_at_the_end(points: tuple[int, ...]) -> None:
    model = GaussianChain(score_steps=points)
    result = _run(model, ess_threshold=1.0)
    assert model.reward_calls == len(points) + 1
    resampled = result.resampled.any(dim=1)
    assert [step for step in range(20) if resampled[step]] == list(points)


def test_resample_steps_restrict_where_a_run_resamples() -> None:
    result = _run(GaussianChain(), ess_threshold=1.0, resample_steps=(4, 9))
    assert [step for step in range(20) if result.resampled[step].any()] == [4, 9]


def test_the_last_step_never_resamples_so_no_finished_sample_is_lost() -> None:
    result = _run(GaussianChain(score_steps=()), ess_threshold=1.0)
    assert not result.resampled.any()
    unnormalized = 2.0 * parabola(result.samples["x"])
    torch.testing.assert_close(result.log_weights, unnormalized.log_softmax(dim=1))
    torch.testing.assert_close(result.log_z, log_mean_exp(unnormalized))


def test_records_are_what_run_returns() -> None:
    records = list(iterate(GaussianChain(), num_groups=3, num_particles=6, generator=group_generators(0, 3)))
    result = _run(GaussianChain())
    assert result.steps == tuple(record.t for record in records) == tuple(range(20))
    assert torch.equal(result.ess, torch.stack([record.ess for record in records]))
    assert torch.equal(result.resampled, torch.stack([record.resampled for record in records]))
    assert torch.equal(result.samples["x"], records[-1].state["x"])
    assert torch.equal(result.log_z, records[-1].log_z)
    roots = unique_roots(result.ancestors, num_groups=3, num_particles=6)
    assert (roots.diff(dim=0) <= 0).all()


def test_iteration_may_stop_early_and_checks_its_settings_at_once() -> None:
    for record in itertools.islice(iterate(GaussianChain(), num_particles=4), 5):
        last = record.t
    assert last == 4
    with pytest.raises(ValueError, match=r"num_particles=0"):
        iterate(GaussianChain(), num_particles=0)
    with pytest.raises(ValueError, match=r"resample_steps \[20\] are outside the run; give steps from -1"):
        iterate(GaussianChain(), num_particles=2, resample_steps=[20])


@dataclass
class Walk:
    """A two-step chain with a scripted reward, for faults."""

    rewards: Tensor
    num_steps: int = 2
    budget: Budget = field(default_factory=Budget)

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> Tensor:
        self.budget = Budget(denoiser_calls=num_groups * num_particles * self.num_steps)
        return normals(generator, (num_groups, num_particles))

    def step(self, state: Tensor, t: int, log_weights: Tensor, generator: Generators) -> tuple[Tensor, Tensor]:
        return state, self.rewards if t == 0 else torch.zeros(state.shape)


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_faulty_rewards(bad: float) -> None:
    rewards = torch.zeros(2, 3, dtype=torch.float16)
    rewards[1, 0] = bad
    with pytest.raises(InvalidWeightError, match=r"group 1, particle 0"):
        run(Walk(rewards), num_groups=2, num_particles=3)
    result = run(Walk(rewards), num_groups=2, num_particles=3, on_nan="drop", ess_threshold=0.0)
    assert result.dropped.tolist() == [0, 1]
    assert result.log_weights[1].tolist() == pytest.approx([-INF, math.log(0.5), math.log(0.5)])
    assert result.log_z[1].item() == pytest.approx(math.log(2 / 3))


def test_one_dead_group_among_healthy_ones() -> None:
    rewards = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    rewards[1] = -INF
    with pytest.raises(DegenerateGroupError):
        run(Walk(rewards), num_groups=3, num_particles=4)
    kept = run(Walk(rewards), num_groups=3, num_particles=4, on_degenerate="keep", generator=group_generators(0, 3))
    healthy = run(Walk(rewards[[0, 2]]), num_groups=2, num_particles=4, generator=group_generators(0, [0, 2]))
    assert kept.degenerate.tolist() == [False, True, False]
    assert kept.log_z[1] == -INF
    assert torch.equal(kept.samples[[0, 2]], healthy.samples)
    assert torch.equal(kept.log_z[[0, 2]], healthy.log_z)
    assert torch.isfinite(kept.best()).all()


def test_the_models_budget_is_reported_with_time_and_memory() -> None:
    result = run(Walk(torch.zeros(2, 3)), num_groups=2, num_particles=3)
    assert result.budget.denoiser_calls == 12
    assert result.budget.seconds > 0
    assert result.budget.peak_memory_bytes > 10_000_000


def test_a_state_or_potential_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"log_potential has shape \(2, 3\) but the run has 2 groups of 4 particles"):
        run(Walk(torch.zeros(2, 3)), num_groups=2, num_particles=4)
    model = Walk(torch.zeros(2, 3))
    model.initial = lambda num_groups, num_particles, generator: torch.zeros(num_particles)
    with pytest.raises(ValueError, match=r"leading axes must be \(groups, particles\) = \(2, 3\)"):
        run(model, num_groups=2, num_particles=3)
    with pytest.raises(ValueError, match=r"num_steps of the model=0 is too small"):
        run(Walk(torch.zeros(1, 1), num_steps=0), num_particles=1)


def test_a_million_particles() -> None:
    result = run(GaussianChain(score_steps=(9,)), num_particles=1_000_000, generator=torch.Generator().manual_seed(0))
    assert float(result.mean(lambda state: state["x"])) == pytest.approx(1.0, abs=0.01)
    assert float(result.log_z) == pytest.approx(-1.299306, abs=0.01)


@pytest.mark.slow
def test_calibration_of_ranks() -> None:
    """Simulation-based calibration: the rank of the true x among draws from its posterior is uniform.

    The reward is the log-likelihood of `y ~ N(x, 1/2)` at scale 2.
    """
    runs, draws = 500, 19
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(runs, 1, generator=generator, dtype=torch.float64)
    data = truth + math.sqrt(0.5) * torch.randn(runs, 1, generator=generator, dtype=torch.float64)
    model = GaussianChain(reward=lambda x: -0.5 * (x - data).square(), score_steps=(3, 7, 11, 15))
    result = run(model, num_groups=runs, num_particles=2000, generator=generator)
    ranks = (result.sample(draws, seed=1)["x"] < truth).sum(dim=1)
    observed = torch.bincount(ranks, minlength=draws + 1).double()
    chi_square = float(((observed - runs / (draws + 1)).square() / (runs / (draws + 1))).sum())
    assert chi_square < 43.8  # the 99.9 % point of chi^2 with 19 degrees of freedom

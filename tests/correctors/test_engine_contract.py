"""What the corrector keeps of the engine's promises: plain samplers bit for bit, groups on their own, whole states."""

import math
from itertools import pairwise

import pytest
import torch
from mixtures import errors, experts, truth

from fklit.correctors import (
    Corrector,
    EulerMaruyama,
    FittedControl,
    GaussianControl,
    Heun,
    Ramp,
    ReverseKernel,
    SplitNoise,
    Target,
    Uncorrected,
    VariancePreserving,
    simulate,
)
from fklit.feynman_kac import Schedule, group_generators, normals

FIRST, SECOND, THIRD = experts()
TARGET = Target.guided(SECOND, FIRST, 2.0)
PROPOSALS = [EulerMaruyama(), EulerMaruyama(0.5), EulerMaruyama("ode"), Heun(0.1), ReverseKernel(), SplitNoise()]


@pytest.mark.parametrize("proposal", PROPOSALS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_particle_or_no_resampling_is_the_plain_sampler_bit_for_bit(proposal, dtype):
    settings = {"num_groups": 5, "num_steps": 30, "proposal": proposal, "dtype": dtype, "seed": 3}
    for particles, threshold in ((1, 1.0), (16, 0.0)):
        plain = simulate(TARGET, num_particles=particles, increment=Uncorrected(), **settings)
        weighed = simulate(TARGET, num_particles=particles, ess_threshold=threshold, **settings)
        assert plain.samples.dtype == dtype and weighed.log_weights.dtype == torch.float64
        assert torch.equal(plain.samples, weighed.samples)
        assert particles == 1 or not torch.equal(plain.log_weights, weighed.log_weights)


def test_the_plain_sampler_is_euler_maruyama_by_hand():
    path, times = VariancePreserving(), VariancePreserving().grid(20)
    found = simulate(TARGET, num_particles=1, num_groups=4, times=times, dtype=torch.float64, seed=1).samples
    generators = group_generators(1, 4)
    start = Corrector(TARGET, times, dtype=torch.float64).law.law
    x = start.sample((4, 1, 1), generators, dtype=torch.float64, device=torch.device("cpu"))
    for t, s in pairwise(times):
        noise = path.noise(t, s)
        score = 2.0 * SECOND.score(x, t) - FIRST.score(x, t)
        mean = x + (path.log_scale(s) - path.log_scale(t)) * x + noise * score
        x = mean + math.sqrt(noise) * normals(generators, x.shape, dtype=torch.float64)
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)


def test_a_group_does_not_depend_on_its_neighbors():
    settings = {"num_particles": 32, "num_steps": 20, "dtype": torch.float64, "control": FittedControl()}
    together = simulate(TARGET, num_groups=3, generator=group_generators(0, 3), **settings)
    alone = simulate(TARGET, num_groups=1, generator=group_generators(0, [1]), **settings)
    torch.testing.assert_close(together.samples[1:2], alone.samples)
    torch.testing.assert_close(together.log_weights[1:2], alone.log_weights)


def test_the_fit_of_pooled_groups_serves_groups_of_one_particle():
    target = Target.annealed(FIRST, 2.0)
    settings = {"num_particles": 1, "num_groups": 400, "num_steps": 100, "dtype": torch.float64}
    settings["generator"] = torch.Generator().manual_seed(0)
    plain = simulate(target, **settings).log_z.std()
    settings["generator"] = torch.Generator().manual_seed(0)
    assert simulate(target, control=FittedControl(pool_groups=True), **settings).log_z.std() < 0.5 * plain
    settings["generator"] = torch.Generator().manual_seed(0)
    assert simulate(target, control=GaussianControl(), **settings).log_z.std() < 0.5 * plain


def test_weights_are_carried_outside_of_the_window_and_the_clean_end_counts():
    settings = {"num_particles": 1000, "num_groups": 4, "num_steps": 100, "dtype": torch.float64, "ess_threshold": 1.0}
    run = simulate(TARGET, resample_schedule=Schedule(start=0.2, stop=0.8), **settings)
    steps = torch.tensor(run.steps)
    assert not run.resampled[(steps >= 0) & (steps < 20)].any() and not run.resampled[steps > 80].any()
    assert run.resampled[(steps >= 20) & (steps <= 80)].all()
    assert errors(run, truth(TARGET)).w1.mean() < 0.12


def test_everything_of_a_particle_moves_with_it():
    """Ito log densities and reward histories follow their particles through resampling."""
    target = Target.annealed(FIRST, Ramp(1.0, 2.0), log_density="ito")
    target = Target.tilted(target, lambda x: x[..., 0], 1.0, gradient=False)
    model = Corrector(target, VariancePreserving().grid(5), dtype=torch.float64)
    from fklit.feynman_kac import select

    state = model.initial(2, 4, group_generators(0, 2))
    state, _ = model.step(state, 0, torch.zeros(2, 4, dtype=torch.float64), group_generators(1, 2))
    ancestors = torch.tensor([[1, 1, 3, 0], [2, 0, 2, 2]])
    moved = select(state, ancestors)
    for before, after in (
        (state["x"][..., 0], moved["x"][..., 0]),
        (state["log_q"][0], moved["log_q"][0]),
        (state["path"].total, moved["path"].total),
    ):
        assert torch.equal(before.gather(1, ancestors), after)


@pytest.mark.parametrize("resampler", ["systematic", "stratified", "residual", "multinomial", "ssp", "birth_death"])
def test_every_resampler_serves(resampler):
    run = simulate(TARGET, num_particles=500, num_groups=4, num_steps=60, resampler=resampler, dtype=torch.float64)
    assert errors(run, truth(TARGET)).w1.mean() < 0.15


def test_a_clamp_counts_what_it_bounds():
    settings = {"num_particles": 500, "num_groups": 2, "num_steps": 60, "dtype": torch.float64}
    free, loose, tight = (simulate(TARGET, clamp=c, **settings) for c in (None, 1e6, 0.05))
    assert free.clamped.tolist() == loose.clamped.tolist() == [0, 0]
    assert torch.equal(free.samples, loose.samples)
    assert (tight.clamped > 100).all()
    assert free.log_weight_std.shape == (60, 2) and (free.log_weight_std > 0).all()


def test_the_budget_counts_every_expert_once():
    run = simulate(Target.guided(SECOND, FIRST, 2.0), num_particles=8, num_groups=2, num_steps=10)
    assert run.budget.denoiser_calls == 2 * 8 * 2 * 10
    twice = simulate(Target.guided(SECOND, FIRST, 2.0), num_particles=8, num_groups=2, num_steps=10, proposal=Heun(0.0))
    assert twice.budget.denoiser_calls == 2 * 8 * 2 * (10 + 9)  # the last step ends at level 0, where Heun is Euler
    scored = simulate(Target.tilted(FIRST, lambda x: x[..., 0], gradient=False), num_particles=8, num_steps=10)
    assert scored.budget.reward_calls == 8 * 11

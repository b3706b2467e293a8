"""The particle system: when a group resamples, what it carries, and what it does with the dead."""

import math

import pytest
import torch
from torch import Tensor

from fklit.feynman_kac import (
    DegenerateGroupError,
    InvalidWeightError,
    ParticleSystem,
    group_generators,
    log_mean_exp,
    multinomial,
    systematic,
)

INF, NAN = math.inf, math.nan


def _potential(seed: int, num_groups: int = 4, num_particles: int = 8, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_groups, num_particles, generator=generator, dtype=torch.float64)


def _system(num_groups: int = 4, num_particles: int = 8, **settings: object) -> ParticleSystem:
    return ParticleSystem(num_groups, num_particles, generator=group_generators(0, num_groups), **settings)


def _draws_spent(system: ParticleSystem) -> list[bool]:
    """Whether each group's generator has moved since it was made."""
    fresh = group_generators(0, system.num_groups)
    return [
        not torch.equal(used.get_state(), new.get_state()) for used, new in zip(system.generator, fresh, strict=True)
    ]


def test_the_start() -> None:
    system = _system()
    assert system.log_weights.dtype == torch.float64
    assert system.log_z.tolist() == [0.0] * 4
    assert system.ess.tolist() == [8.0] * 4
    assert system.num_updates == 0


def test_threshold_zero_only_carries() -> None:
    system = _system(ess_threshold=0.0)
    for seed in range(5):
        assert system.update(_potential(seed)) is None
    torch.testing.assert_close(system.log_weights, sum(_potential(seed) for seed in range(5)))
    torch.testing.assert_close(system.log_z, log_mean_exp(system.log_weights))
    assert not any(_draws_spent(system))


def test_threshold_one_resamples_whenever_weights_differ() -> None:
    system = _system(ess_threshold=1.0)
    values = torch.zeros(4, 8, dtype=torch.float64)
    values[1, 3] = 1e-13  # too small to move the ESS in float64
    values[2] = 5.0
    ancestors = system.update(values)
    assert ancestors is not None
    assert system.resampled.tolist() == [False, True, False, False]
    assert torch.equal(ancestors[[0, 2, 3]], torch.arange(8).expand(3, 8))
    assert _draws_spent(system) == [False, True, False, False]
    assert system.log_z[2] == 5.0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_each_group_decides_by_its_own_ess(threshold: float) -> None:
    system = _system(num_groups=200, ess_threshold=threshold)
    values = _potential(1, 200) * torch.linspace(0, 2, 200).unsqueeze(1)
    before = _system(num_groups=200, ess_threshold=0.0)
    before.update(values)
    system.update(values)
    assert torch.equal(system.resampled, before.ess < threshold * 8)
    assert 0 < int(system.resampled.sum()) < 200
    assert torch.equal(system.ess, before.ess)
    kept = ~system.resampled
    assert torch.equal(system.log_weights[kept], before.log_weights[kept])


def test_after_a_resampling_weights_are_equal_and_carry_log_z() -> None:
    system = _system(ess_threshold=1.0)
    for seed in range(6):
        system.update(_potential(seed))
        assert torch.equal(system.log_weights, system.log_z.unsqueeze(1).expand(4, 8))
    torch.testing.assert_close(log_mean_exp(system.log_weights), system.log_z)
    expected = sum(log_mean_exp(_potential(seed)) for seed in range(6))
    torch.testing.assert_close(system.log_z, expected)


def test_a_skipped_resampling_then_one_is_one_with_the_product() -> None:
    first, second = _potential(1), _potential(2)
    skipped, single = _system(ess_threshold=1.0), _system(ess_threshold=1.0)
    assert skipped.update(first, may_resample=False) is None
    ancestors = skipped.update(second)
    assert torch.equal(ancestors, single.update(first + second))
    assert torch.equal(skipped.log_z, single.log_z)


def test_groups_do_not_depend_on_their_neighbors() -> None:
    together = _system(6)
    order = [5, 0, 3]
    apart = ParticleSystem(3, 8, generator=group_generators(0, order))
    for seed in range(8):
        values = _potential(seed, 6)
        one, other = together.update(values), apart.update(values[order])
        one = torch.arange(8).expand(6, 8) if one is None else one
        other = torch.arange(8).expand(3, 8) if other is None else other
        assert torch.equal(one[order], other)
        assert torch.equal(together.log_weights[order], apart.log_weights)
    assert torch.stack(together.resampled_trace).any()


def test_extreme_potentials_stay_finite() -> None:
    system = _system(ess_threshold=0.5)
    for value in (1e4, -1e4, 1e4):
        values = value * torch.linspace(-1, 1, 32).reshape(4, 8)
        system.update(values)
        assert torch.isfinite(system.log_weights).all()
        assert torch.isfinite(system.log_z).all()
    assert (system.ess >= 1).all()


def test_a_dead_particle_never_comes_back() -> None:
    system = ParticleSystem(1, 3, ess_threshold=0.0)
    system.update(torch.tensor([[-INF, 0.0, 0.0]]))
    for revival in (INF, NAN, 5.0):
        system.update(torch.tensor([[revival, 1.0, 1.0]]))
        assert system.log_weights[0, 0] == -INF
    assert float(system.ess) == 2.0
    assert float(system.log_z) == pytest.approx(3 + math.log(2 / 3))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_nan_policy(bad: float) -> None:
    values = torch.zeros(2, 3)
    values[1, 2] = bad
    strict = ParticleSystem(2, 3)
    strict.update(torch.ones(2, 3))
    before = strict.log_weights.clone()
    with pytest.raises(InvalidWeightError, match=r"at update 1 .*group 1, particle 2"):
        strict.update(values)
    assert torch.equal(strict.log_weights, before)
    assert strict.num_updates == 1
    lenient = ParticleSystem(2, 3, on_nan="drop", ess_threshold=0.0)
    lenient.update(values)
    assert lenient.log_weights[1].tolist() == [0.0, 0.0, -INF]
    assert lenient.dropped.tolist() == [0, 1]
    lenient.update(values)
    assert lenient.dropped.tolist() == [0, 1]  # a particle dies once


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_degenerate_policy(threshold: float) -> None:
    values = _potential(3, 3)
    values[1] = -INF
    strict = _system(3, ess_threshold=threshold)
    with pytest.raises(DegenerateGroupError, match=r"All 8 particles of 1 of 3 groups have weight zero at update 0"):
        strict.update(values)
    assert strict.num_updates == 0
    kept = _system(3, ess_threshold=threshold, on_degenerate="keep")
    healthy = ParticleSystem(2, 8, ess_threshold=threshold, generator=group_generators(0, [0, 2]))
    for step in range(3):
        kept.update(values if step == 0 else _potential(step, 3))
        healthy.update((values if step == 0 else _potential(step, 3))[[0, 2]])
    assert kept.degenerate.tolist() == [False, True, False]
    assert kept.log_weights[1].tolist() == [0.0] * 8
    assert float(kept.log_z[1]) == -INF
    assert float(kept.ess[1]) == 0.0
    assert not torch.stack(kept.resampled_trace)[:, 1].any()
    assert torch.equal(kept.log_weights[[0, 2]], healthy.log_weights)
    assert torch.equal(kept.log_z[[0, 2]], healthy.log_z)


def test_half_and_integer_potentials_are_cast_up_once() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int64):
        system = ParticleSystem(1, 2, ess_threshold=0.0)
        system.update(torch.tensor([[1, 3]], dtype=dtype))
        assert system.log_weights.dtype == torch.float64
        assert system.log_weights.tolist() == [[1.0, 3.0]]


def test_gradients_do_not_leak_into_the_weights() -> None:
    system = ParticleSystem(1, 2)
    system.update(torch.zeros(1, 2, requires_grad=True))
    assert not system.log_weights.requires_grad


def test_one_particle_never_resamples() -> None:
    system = ParticleSystem(3, 1, ess_threshold=1.0, generator=group_generators(0, 3))
    assert system.update(_potential(0, 3, 1)) is None
    assert not any(_draws_spent(system))


def test_the_resampler_sees_only_the_groups_that_resample() -> None:
    seen = []

    def spy(log_weights: Tensor, generators: object = None, /) -> Tensor:
        seen.append((log_weights.shape, len(generators)))
        return multinomial(log_weights, generators)

    values = torch.zeros(4, 8)
    values[2, 0] = 50.0
    system = _system(resampler=spy)
    ancestors = system.update(values)
    assert seen == [((1, 8), 1)]
    assert (ancestors[2] == 0).all()


@pytest.mark.parametrize(
    "broken",
    [
        lambda log_weights, generators=None: torch.zeros(log_weights.shape),
        lambda log_weights, generators=None: torch.zeros(1, 1, dtype=torch.int64),
        lambda log_weights, generators=None: torch.full(log_weights.shape, log_weights.shape[1]),
    ],
)
def test_a_broken_resampler_is_named(broken: object) -> None:
    with pytest.raises(ValueError, match=r"The resampler returned"):
        ParticleSystem(2, 8, resampler=broken, ess_threshold=1.0).update(_potential(0, 2))


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_particles=0 is too small; give a whole number of at least 1"):
        ParticleSystem(1, 0)
    with pytest.raises(ValueError, match=r"ess_threshold=1.5 is outside \[0, 1\]"):
        ParticleSystem(1, 2, ess_threshold=1.5)
    with pytest.raises(ValueError, match=r"expected 3 generators, one a group, got 2"):
        ParticleSystem(3, 2, generator=group_generators(0, 2))
    with pytest.raises((ValueError, TypeError), match=r"on_nan"):
        ParticleSystem(1, 2, on_nan="ignore")
    with pytest.raises(TypeError, match=r"resampler"):
        ParticleSystem(1, 2, resampler="systematic")
    system = ParticleSystem(2, 3, resampler=systematic)
    with pytest.raises(ValueError, match=r"log_potential has shape \(6,\) but the run has 2 groups of 3 particles"):
        system.update(torch.zeros(6))
    with pytest.raises(TypeError, match=r"dtype torch.complex64"):
        system.update(torch.zeros(2, 3, dtype=torch.complex64))


def test_neighboring_seeds_and_groups_have_their_own_streams() -> None:
    states = {generator.initial_seed() for seed in range(20) for generator in group_generators(seed, 20)}
    assert len(states) == 400
    first = group_generators(7, [3])[0]
    assert first.initial_seed() == group_generators(7, 5)[3].initial_seed()

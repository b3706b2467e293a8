"""Parallel tempering, polish and quench against closed forms; the data module and the comparison."""

import math

import pytest
import torch

from fklit.molecules import (
    ClusterComparison,
    ClusterDataModule,
    ClusterReference,
    HarmonicCluster,
    LangevinPolish,
    LennardJones,
    cluster_distances,
    occupation,
    occupation_distance,
    parallel_tempering,
    quench,
    radial_distribution,
)

SPRINGS = [[0.0, 2.0, 0.5], [2.0, 0.0, 0.0], [0.5, 0.0, 0.0]]


def within(found, wanted, errors):
    """All within three standard errors, of which a share of the many may miss by chance."""
    assert float(((found - wanted).abs() / errors).max()) < 3.0


@pytest.fixture(scope="module")
def tempered():
    return parallel_tempering(
        HarmonicCluster(SPRINGS, 2), [0.5, 1.0, 2.0], num_chains=64, num_steps=1500, burn_in=300, seed=1
    )


def test_parallel_tempering_samples_the_harmonic_law_at_every_temperature(tempered):
    system = HarmonicCluster(SPRINGS, 2)
    assert tempered.samples.shape == (3, 120, 64, 4) and tempered.energies.shape == (3, 120, 64)
    assert bool(((tempered.acceptance > 0.4) & (tempered.acceptance < 0.75)).all())
    assert bool(((tempered.swaps > 0.3) & (tempered.swaps < 1)).all())
    for number, temperature in enumerate(tempered.temperatures):
        x = tempered.samples[number]  # (S, C, d); the means of chains are independent
        products = torch.einsum("sci,scj->cij", x, x) / len(x)
        wanted = temperature * torch.linalg.inv(system.stiffness)
        within(products.mean(0), wanted, products.std(0) / 8)
        within(x.mean(dim=(0, 1)), torch.zeros(4), x.mean(0).std(0) / 8)
        energies = tempered.energies[number].mean(0)  # E / T is Gamma distributed with d / 2
        within(energies.mean(), 2 * temperature, energies.std() / 8)
    torch.testing.assert_close(tempered.energies, system.energy(tempered.samples))


def test_the_same_seed_is_the_same_chains_and_ladders_are_checked():
    system = HarmonicCluster(SPRINGS, 2)
    short = {"num_chains": 2, "num_steps": 20, "burn_in": 10, "every": 5}
    one, two = (parallel_tempering(system, [1.0, 2.0], seed=4, **short) for _ in range(2))
    assert torch.equal(one.samples, two.samples) and one.at(2.0).shape == (4, 4)
    with pytest.raises(ValueError, match="rising, positive temperatures"):
        parallel_tempering(system, [2.0, 1.0])
    with pytest.raises(ValueError, match="rising, positive temperatures"):
        parallel_tempering(system, [1.0, math.inf])
    with pytest.raises(ValueError, match="burn_in of 0 to num_steps - 1"):
        parallel_tempering(system, [1.0], num_steps=5, burn_in=5)
    with pytest.raises(ValueError, match="expected samples, got none"):
        parallel_tempering(system, [1.0], num_steps=5, burn_in=0, every=9)
    with pytest.raises(ValueError, match=r"expected one of the temperatures 1, 2, got 1\.5"):
        one.at(1.5)


def test_two_particles_of_lennard_jones_have_the_density_of_their_distance():
    """By quadrature: on the line the law of r is `exp(-E(r) / T)`, and particles never pass each other."""
    system, temperature = LennardJones(2, 1), 0.4
    found = parallel_tempering(system, [temperature, 1.0], num_chains=64, num_steps=1500, burn_in=300)
    r = torch.linspace(0.6, 6.0, 20001, dtype=torch.float64)
    y = system.space.to_coordinates(torch.stack([torch.zeros_like(r), r], dim=1).unsqueeze(2))
    mass = torch.softmax(-system.energy(y) / temperature, dim=0)
    distances = system.space.pair_distances(found.samples[0]).squeeze(-1)  # (S, C)
    for power in (1, 2):
        chains = distances.pow(power).mean(0)
        within(chains.mean(), mass @ r**power, chains.std() / 8)


def test_the_polish_keeps_the_law_and_repairs_what_is_not_of_it():
    system = HarmonicCluster(SPRINGS, 2)
    polish = LangevinPolish(system, 0.5, num_steps=150, step_size=0.35)
    start = system.law(0.5).sample((1, 4000), torch.Generator().manual_seed(0), dtype=torch.float64)
    for x in (start, 1.4 * start):
        moved = polish(x, torch.Generator().manual_seed(1))
        assert moved.shape == x.shape and moved.dtype == x.dtype and not torch.equal(moved, x)
        energy = system.energy(moved[0])
        within(energy.mean(), 2 * 0.5, energy.std() / math.sqrt(4000))
        within(energy.var(), 2 * 0.5**2, (energy - energy.mean()).square().std() / math.sqrt(4000))
    assert polish(start.float(), torch.Generator().manual_seed(1)).dtype == torch.float32
    with pytest.raises(ValueError, match="positive temperature and step_size, got 0"):
        LangevinPolish(system, 0.0)
    with pytest.raises(ValueError, match=r"positive temperature and step_size, got 1\.0 and inf; give finite ones"):
        LangevinPolish(system, 1.0, step_size=math.inf)


def test_small_steps_in_turn_free_particles_that_are_too_close():
    """Two particles that are much too close have a gradient that has every usual step rejected, for ever."""
    system, generator = LennardJones(2, 1), torch.Generator().manual_seed(0)
    close = system.space.to_coordinates(torch.tensor([[0.0], [0.65]], dtype=torch.float64)).expand(1, 200, 1).double()
    with pytest.warns(UserWarning, match=r"200 of 200 samples were moved by none of 100 steps .*\[0\.05, 0\.005\]"):
        stuck = LangevinPolish(system, 1.0, num_steps=100, step_size=0.05)(close, generator)
    assert torch.equal(stuck, close)
    freed = LangevinPolish(system, 1.0, num_steps=2000, step_size=[0.05, 0.005])(close, generator)
    reference = LangevinPolish(system, 1.0, num_steps=2000, step_size=0.05)(2 * close, generator)
    energies = [system.energy(x)[0] for x in (freed, reference)]
    within(*(values.mean() for values in energies), (energies[0].var() / 100).sqrt())


def test_quenched_clusters_are_the_known_minima():
    """Four particles have one minimum, the tetrahedron of six bonds, and seven have four (Hoare and Pal 1971)."""
    free = {"trap": 1e-9}
    start = torch.randn(60, 9, generator=torch.Generator().manual_seed(0))
    found = quench(LennardJones(4, **free), start)
    assert float(found.energy.min()) == pytest.approx(-6, abs=1e-6)
    system = LennardJones(7, **free)
    deep = quench(system, torch.randn(60, 18, generator=torch.Generator().manual_seed(0)))
    lowest = {round(float(level), 2) for level in deep.energy[deep.energy < -15.4]}
    assert -16.51 in lowest and lowest <= {-16.51, -15.94, -15.59, -15.53}
    again = system.energy_and_gradient(deep.coordinates)
    assert float(again[1].norm(dim=-1)[deep.converged].max()) < 1e-5 and bool(deep.converged.any())
    shares = occupation(deep.energy)
    assert sum(shares.values()) == pytest.approx(1) and list(shares) == sorted(shares)
    assert occupation_distance({-1.0: 0.75, 0.0: 0.25}, {-1.0: 0.5, 1.0: 0.5}) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="expected energies and a positive resolution"):
        occupation(torch.zeros(0))


def test_distances_of_known_laws():
    system = HarmonicCluster([[0.0, 0.0], [0.0, 0.0]], 1)  # one coordinate y, one pair of distance sqrt(2) |y|
    y = torch.linspace(-1, 1, 4001).unsqueeze(1)
    found = cluster_distances(system, y, 2 * y)
    assert found["distance_w2"] == pytest.approx(math.sqrt(2 / 3), rel=1e-3)
    assert found["energy_w1"] == pytest.approx((4 - 1) / 6, rel=1e-3) and found["mean_energy"] == pytest.approx(
        1 / 6, 1e-3
    )
    assert found["energy_w2"] == pytest.approx(1.5 / math.sqrt(5), rel=1e-3)
    middles, density = radial_distribution(system.space, y, bins=20, highest=1.0)
    assert middles[0] == 0.025
    torch.testing.assert_close(density, torch.full((20,), 1 / math.sqrt(2), dtype=torch.float64), rtol=2e-2, atol=0)
    with pytest.raises(ValueError, match="expected samples, at least one bin"):
        radial_distribution(system.space, y[:0])


def test_a_reference_is_made_once_and_feeds_training_and_comparison(tmp_path):
    system = HarmonicCluster(SPRINGS, 2)
    settings = {
        "num_chains": 8,
        "num_steps": 60,
        "burn_in": 20,
        "every": 5,
        "file": str(tmp_path / "a" / "kept.safetensors"),
    }
    reference = ClusterReference(system, [1.0, 2.0], **settings)
    data = ClusterDataModule(reference, temperature=2.0, batch_size=8, val_fraction=0.25)
    data.prepare_data()
    assert (tmp_path / "a" / "kept.safetensors").is_file()
    train, val = (torch.cat(list(loader)) for loader in (data.train_dataloader(), data.val_dataloader()))
    both = torch.cat([train, val])
    assert train.shape == (48, 4) and val.shape == (16, 4) and both.dtype == torch.float32
    scored = ClusterDataModule(reference, temperature=2.0, batch_size=8, val_fraction=0.25, scores=True)
    for plain, batch in zip(data.val_dataloader(), scored.val_dataloader(), strict=True):
        assert torch.equal(plain, batch["x"])
        x = plain.double().requires_grad_()
        gradient = torch.autograd.grad(-reference.system.energy(x).sum() / 2.0, x)[0]
        torch.testing.assert_close(batch["score"], gradient.float())
    assert set(next(iter(scored.train_dataloader()))) == {"x", "score"}
    again = ClusterReference(HarmonicCluster(SPRINGS, 2), [1.0, 2.0], **settings)
    torch.testing.assert_close(both.sort(dim=0).values, again.at(2.0).sort(dim=0).values)
    other = ClusterReference(system, [1.0, 2.0], **{**settings, "num_steps": 61})
    with pytest.raises(ValueError, match=r"expected samples of these settings, got .*name another file"):
        other.at(1.0)
    comparison = ClusterComparison(again, 1.0, modes=True)
    figures = comparison.figures(again.at(1.0), 0)
    assert set(figures) == set(comparison.names) and figures["energy_w1"] == 0 and figures["mode_tv"] == 0
    assert comparison.figures(again.at(2.0), 0)["energy_w1"] > 0.3
    with pytest.raises(ValueError, match="expected one of the temperatures 1, 2, got 3"):
        ClusterDataModule(reference, temperature=3.0)
    with pytest.raises(ValueError, match="at least 256 samples to train on"):
        ClusterDataModule(reference, temperature=2.0).train_dataloader()

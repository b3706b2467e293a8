"""Mean-free coordinates are an isometry, and the energies' gradients are those of autograd and finite differences."""

import pytest
import torch

from fklit.molecules import HarmonicCluster, LennardJones, MeanFreeSpace, mean_free_basis


def test_the_basis_is_orthonormal_and_free_of_the_mean():
    for n in (2, 3, 13):
        basis = mean_free_basis(n)
        torch.testing.assert_close(basis.T @ basis, torch.eye(n - 1, dtype=torch.float64))
        assert float(basis.sum(dim=0).abs().max()) < 1e-14


def test_coordinates_are_an_isometry_of_positions_without_their_center():
    space = MeanFreeSpace(13)
    positions = torch.randn(5, 2, 13, 3, dtype=torch.float64) + 7.0
    coordinates = space.to_coordinates(positions)
    assert coordinates.shape == (5, 2, 36) and space.dim == 36 and space.num_pairs == 78
    centered = positions - positions.mean(dim=-2, keepdim=True)
    torch.testing.assert_close(space.to_positions(coordinates), centered)
    torch.testing.assert_close(coordinates.square().sum(dim=-1), centered.square().sum(dim=(-1, -2)))
    assert float(space.to_positions(coordinates.float()).mean(dim=-2).abs().max()) < 1e-6
    pairs = [(i, j) for i in range(13) for j in range(i + 1, 13)]
    by_hand = torch.stack([positions[..., i, :] - positions[..., j, :] for i, j in pairs], dim=-1)
    torch.testing.assert_close(space.pair_vectors(coordinates), by_hand)
    torch.testing.assert_close(space.pair_distances(coordinates), by_hand.norm(dim=-2))


def test_noise_in_coordinates_is_projected_noise_of_positions():
    space = MeanFreeSpace(4, 2)
    noise = space.to_positions(torch.randn(200_000, 6, generator=torch.Generator().manual_seed(0)))
    covariance = torch.einsum("bis,bjs->ij", noise, noise) / (2 * len(noise))
    torch.testing.assert_close(covariance, torch.eye(4) - 0.25, atol=0.01, rtol=0)


def by_hand(x, epsilon, r_min, trap):
    """A second implementation, by loops over particles."""
    total = 0.5 * trap * (x - x.mean(dim=0)).square().sum()
    for i in range(len(x)):
        for j in range(i):
            s = r_min / (x[i] - x[j]).norm()
            total = total + epsilon * (s**12 - 2 * s**6)
    return total


@pytest.mark.parametrize(("n", "space_dim"), [(13, 3), (4, 2), (2, 1)])
def test_lennard_jones_is_the_sum_over_pairs_and_its_gradient_autograds(n, space_dim):
    torch.manual_seed(1)
    system = LennardJones(n, space_dim, epsilon=1.3, r_min=0.9, trap=0.7)
    positions = 1.5 * torch.randn(6, n, space_dim, dtype=torch.float64)
    y = system.space.to_coordinates(positions).requires_grad_(True)
    energy, gradient = system.energy_and_gradient(y)
    wanted = torch.stack([by_hand(x, 1.3, 0.9, 0.7) for x in positions])
    torch.testing.assert_close(energy, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(energy.sum(), y)[0], rtol=1e-9, atol=1e-9)
    step = 1e-6 * torch.randn_like(y)
    with torch.no_grad():
        change = system.energy(y + step) - system.energy(y - step)
        torch.testing.assert_close(change, 2 * (gradient * step).sum(dim=-1), rtol=1e-5, atol=1e-10)


def test_a_pair_has_its_minimum_at_r_min_and_coinciding_particles_infinite_energy():
    system = LennardJones(2, 1, trap=1e-12)
    y = system.space.to_coordinates(torch.tensor([[[0.0], [1.0]], [[0.0], [0.0]]], dtype=torch.float64))
    energy, gradient = system.energy_and_gradient(y)
    assert float(energy[0]) == pytest.approx(-1) and float(gradient[0].abs()) < 1e-9
    assert float(energy[1]) == float("inf")


def test_the_harmonic_cluster_is_its_springs():
    springs = [[0.0, 2.0, 0.5, 1.0], [2.0, 9.0, 0.0, 0.3], [0.5, 0.0, 0.0, 0.0], [1.0, 0.3, 0.0, 0.0]]
    system = HarmonicCluster(springs, 2, trap=0.4)
    x = torch.randn(5, 4, 2, dtype=torch.float64)
    y = system.space.to_coordinates(x).requires_grad_(True)
    energy, gradient = system.energy_and_gradient(y)
    centered = x - x.mean(dim=1, keepdim=True)
    wanted = 0.2 * centered.square().sum(dim=(1, 2))
    for i in range(4):
        for j in range(i):
            wanted = wanted + 0.5 * springs[i][j] * (x[:, i] - x[:, j]).square().sum(dim=1)
    torch.testing.assert_close(energy, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(energy.sum(), y)[0])
    law = system.law(0.7)
    torch.testing.assert_close(law.score(y.detach()), -gradient.detach() / 0.7)


def test_odd_inputs_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"num_particles of at least 2, got 1"):
        LennardJones(1)
    with pytest.raises(ValueError, match="expected a positive trap, got 0"):
        LennardJones(trap=0.0)
    with pytest.raises(ValueError, match=r"expected coordinates \(\.\.\., 36\), got \(2, 39\)"):
        LennardJones().energy(torch.zeros(2, 39))
    with pytest.raises(ValueError, match=r"expected coordinates \(\.\.\., 3\), got \(2, 6\)"):
        HarmonicCluster([[0.0, 1.0], [1.0, 0.0]]).energy(torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"expected positions \(\.\.\., 13, 3\), got \(2, 12, 3\)"):
        LennardJones().space.to_coordinates(torch.zeros(2, 12, 3))
    with pytest.raises(ValueError, match="symmetric matrix of springs"):
        HarmonicCluster([[0.0, 1.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="springs of at least 0 and a positive trap"):
        HarmonicCluster([[0.0, -1.0], [-1.0, 0.0]])

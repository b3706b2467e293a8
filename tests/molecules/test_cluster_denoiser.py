"""The denoiser turns, reflects and permutes with its input, is trained by the task, and comes back from its folder."""

import json

import pytest
import torch

from fklit.correctors import EDM, Denoiser, DenoiserMLP, TrainedExpert
from fklit.molecules import ClusterDenoiser, MeanFreeSpace


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    return ClusterDenoiser(7, width=16, depth=2, num_radial=8, data_std=1.2).requires_grad_(False)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 6.0])
def test_it_is_equivariant_and_free_of_the_mean(denoiser, sigma):
    space, generator = MeanFreeSpace(7), torch.Generator().manual_seed(3)
    x = 1.5 * torch.randn(8, 7, 3, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    turn[:, 0] *= torch.linalg.det(turn)  # a rotation
    mirror = turn @ torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    order = torch.randperm(7, generator=generator)
    levels = torch.full((8,), sigma)

    denoiser.double()

    def denoised(positions):
        return space.to_positions(denoiser(space.to_coordinates(positions), levels))

    plain = denoised(x)
    assert float((plain - x).abs().max()) > 1e-3
    assert float(plain.mean(dim=1).abs().max()) < 1e-6
    for moved, wanted in (
        (x @ turn, plain @ turn),
        (x @ mirror, plain @ mirror),
        (x[:, order], plain[:, order]),
        (x + 3.0, plain),
    ):
        assert float((denoised(moved) - wanted).abs().max()) < 1e-5


def test_in_single_precision_the_errors_are_of_rounding(denoiser):
    space = MeanFreeSpace(7)
    x = torch.randn(8, 7, 3)
    turn, levels = torch.linalg.qr(torch.randn(3, 3))[0], torch.full((8,), 0.3)
    plain, turned = (space.to_positions(denoiser(space.to_coordinates(y), levels)) for y in (x, x @ turn))
    assert float((turned - plain @ turn).abs().max()) < 1e-5


def test_messages_depend_on_more_than_their_own_distance(denoiser):
    """A third particle changes the force between two: the network is no sum of pair potentials."""
    space, levels = MeanFreeSpace(7), torch.full((1,), 0.5)
    x = torch.randn(1, 7, 3)

    def output(positions):
        y = space.to_coordinates(positions)
        return denoiser.network(y, levels).unflatten(1, (3, 6))

    moved = x.clone()
    moved[0, 6] += 1.0
    first, second = ((torch.cdist(p, p) ** 2)[0, :6, :6] for p in (x, moved))
    torch.testing.assert_close(first, second)
    assert float((output(x) - output(moved)).abs().max()) > 1e-4


def test_it_comes_back_from_its_folder_as_an_expert(denoiser, tmp_path):
    denoiser.save(tmp_path / "folder")
    kept = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert kept["class"].endswith("ClusterDenoiser") and kept["num_particles"] == 7
    again = Denoiser.load(tmp_path / "folder")
    x, levels = torch.randn(3, 18), torch.full((3,), 0.4)
    assert isinstance(again, ClusterDenoiser) and torch.equal(again(x, levels), denoiser(x, levels))
    expert = TrainedExpert(str(tmp_path / "folder"), EDM(0.02, 6.0, 3.0))
    assert expert.event_shape == (18,)
    score = expert.score(x.unsqueeze(0), 0.5)
    sigma = expert.path.sigma(0.5)
    wanted = (denoiser(x, torch.full((3,), sigma)) - x) / sigma**2
    torch.testing.assert_close(score[0], wanted)
    with pytest.raises(ValueError, match=r"expected a DenoiserMLP, got .* with a ClusterDenoiser; call"):
        DenoiserMLP.load(tmp_path / "folder")


def test_folders_without_a_class_are_of_the_perceptron_and_unknown_classes_are_named(tmp_path):
    DenoiserMLP(2, 4, 1).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for path, problem in (("no.such.Class", "can be imported, got 'no.such.Class'"), ("json.dumps", "a subclass of")):
        (tmp_path / "config.json").write_text(json.dumps({**config, "class": path}))
        with pytest.raises(ValueError, match=problem):
            Denoiser.load(tmp_path)
    del config["class"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert isinstance(Denoiser.load(tmp_path), DenoiserMLP)


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="expected width and depth of at least 1"):
        ClusterDenoiser(4, width=0)
    with pytest.raises(ValueError, match="expected positive numbers"):
        ClusterDenoiser(4, data_std=0.0)

"""A ladder of temperatures: samples that a run has annealed become the training data of the next network."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fklit.cli import main
from fklit.correctors.targets.score_model_task import ScoreModelTask
from fklit.molecules import ClusterDataModule, ClusterDenoiser, HarmonicCluster, LennardJones, SimulatedSamples

DEBUG = Path(__file__).parents[2] / "configs" / "debug"
SYSTEM = HarmonicCluster([[0.0, 2.0, 0.5], [2.0, 0.0, 0.0], [0.5, 0.0, 0.0]], 2)


def write(folder, index, samples, log_weights, *, complete=True, settings="a"):
    """A group as SimulationWriter writes it."""
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{index:05d}.npz", samples=samples.numpy(), log_weights=log_weights.numpy())
    if complete:
        (folder / f"{index:05d}.json").write_text(json.dumps({"settings": settings}))


def test_particles_are_drawn_as_often_as_their_weights_say(tmp_path):
    x = torch.arange(4.0).unsqueeze(1).expand(4, 4).contiguous()
    write(tmp_path, 0, x, torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64).log())
    write(tmp_path, 1, 10 + x, torch.full((4,), 0.25, dtype=torch.float64).log())
    write(tmp_path, 2, x, torch.zeros(4, dtype=torch.float64), complete=False)  # it was being written
    found = SimulatedSamples(SYSTEM, 1.5, str(tmp_path)).at(1.5)
    assert found.dtype == torch.float32 and found[:, 0].sort().values.tolist() == [0, 0, 1, 2, 10, 11, 12, 13]


def test_they_have_the_law_of_the_weights(tmp_path):
    """Hot samples with the exact weights of a colder law are training data of that law, forces included."""
    law, hot, cold, groups = SYSTEM.law(2.0), 2.0, 1.5, 100
    for index in range(groups):
        x = law.sample((200,), torch.Generator().manual_seed(index), dtype=torch.float64)
        write(tmp_path, index, x, torch.log_softmax((1 / hot - 1 / cold) * SYSTEM.energy(x), dim=0))
    reference = SimulatedSamples(SYSTEM, cold, str(tmp_path))
    energies = SYSTEM.energy(reference.at(cold).double()).view(groups, -1).mean(dim=1)
    assert abs(float(energies.mean()) - 2 * cold) < 4 * float(energies.std()) / math.sqrt(groups)
    data = ClusterDataModule(reference, temperature=cold, batch_size=256, scores=True)
    data.prepare_data()
    batch = next(iter(data.train_dataloader()))
    _, gradient = SYSTEM.energy_and_gradient(batch["x"].double())
    torch.testing.assert_close(batch["score"], (-gradient / cold).float())
    held_out = torch.cat([rows["x"] for rows in data.val_dataloader()])
    torch.testing.assert_close(held_out, reference.at(cold)[-2000:])  # of the last groups, which were not trained on


def test_folders_that_are_of_something_else_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected groups of SimulationWriter, .* run `fklit predict`"):
        SimulatedSamples(SYSTEM, 1.5, str(tmp_path)).at(1.5)
    write(tmp_path, 0, torch.zeros(4, 36), torch.zeros(4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expected particles of 4 mean-free .*, got \(4, 36\) in .*00000.npz"):
        SimulatedSamples(SYSTEM, 1.5, str(tmp_path)).at(1.5)
    write(tmp_path / "mixed", 0, torch.zeros(4, 4), torch.full((4,), 0.25, dtype=torch.float64).log())
    write(tmp_path / "mixed", 1, torch.zeros(4, 4), torch.full((4,), 0.25, dtype=torch.float64).log(), settings="b")
    with pytest.raises(ValueError, match=r"expected groups of one run, got some of other settings in .*; empty"):
        SimulatedSamples(SYSTEM, 1.5, str(tmp_path / "mixed")).at(1.5)
    weights = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64).log()
    for broken, place in ((3, "dead"), (0, "alive")):  # NaN, without and with weight
        x = torch.zeros(4, 4)
        x[broken] = math.nan
        write(tmp_path / place, 0, x, weights)
    assert bool((SimulatedSamples(SYSTEM, 1.5, str(tmp_path / "dead")).at(1.5) == 0).all())
    with pytest.raises(ValueError, match=r"expected finite coordinates of particles that have weight, got NaN"):
        SimulatedSamples(SYSTEM, 1.5, str(tmp_path / "alive")).at(1.5)
    write(tmp_path / "weightless", 0, torch.zeros(4, 4), torch.full((4,), math.nan, dtype=torch.float64))
    with pytest.raises(ValueError):
        SimulatedSamples(SYSTEM, 1.5, str(tmp_path / "weightless")).at(1.5)
    with pytest.raises(ValueError, match="rising, positive temperatures"):
        SimulatedSamples(SYSTEM, 0.0, str(tmp_path))
    with pytest.raises(ValueError, match=r"expected one of the temperatures 1\.5, got 2"):
        ClusterDataModule(SimulatedSamples(SYSTEM, 1.5, str(tmp_path)), temperature=2.0)
    with pytest.raises(ValueError, match=r"expected the temperature of the run, 1\.5, got 2; give the same"):
        SimulatedSamples(SYSTEM, 1.5, str(tmp_path)).at(2.0)


def test_training_starts_from_the_network_above(tmp_path):
    def denoiser(width=8):
        return ClusterDenoiser(5, width=width, depth=1, num_radial=4, data_std=1.3)

    above = denoiser()
    above.save(tmp_path / "above")
    task = ScoreModelTask(denoiser(), start_from=str(tmp_path / "above"))
    task.setup("validate")
    first = {name: value.clone() for name, value in task.denoiser.state_dict().items()}
    assert any(not torch.equal(value, above.state_dict()[name]) for name, value in first.items())
    task.setup("fit")
    assert all(torch.equal(value, above.state_dict()[name]) for name, value in task.denoiser.state_dict().items())
    with pytest.raises(ValueError, match=r"expected the denoiser in .*above to have the settings .*16.*, got .*8"):
        ScoreModelTask(denoiser(16), start_from=str(tmp_path / "above")).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"expected a folder with a config\.json or a checkpoint"):
        ScoreModelTask(denoiser(), start_from=str(tmp_path / "nothing")).setup("fit")


@pytest.mark.slow
# A network of twenty steps puts particles too close.
@pytest.mark.filterwarnings("ignore:.* samples were moved by none")
def test_the_debug_configurations_go_down_the_ladder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    main(["fit", "--config", str(DEBUG / "lj13_hot.yaml")])
    main(["predict", "--config", str(DEBUG / "lj13_anneal.yaml")])
    main(["fit", "--config", str(DEBUG / "lj13_ladder.yaml")])
    shape = json.loads(Path("outputs/debug/lj13/folder-1.5/config.json").read_text())
    assert shape == json.loads(Path("outputs/debug/lj13/folder/config.json").read_text())
    samples = SimulatedSamples(LennardJones(5), 1.5, "outputs/debug/lj13/anneal").at(1.5)
    assert samples.shape == (120, 12) and bool(samples.isfinite().all())

"""What `fklit fit` trains is an expert of a target in YAML: by the exported folder, or by a checkpoint."""

import json
import sys
from pathlib import Path

import pytest
import torch

from fklit.analytic import GaussianMixture
from fklit.cli import main
from fklit.correctors import EDM, ScoreModel, Target, TrainedExpert, VariancePreserving, simulate
from fklit.correctors.targets.denoiser import DenoiserMLP

DEBUG = Path(__file__).parents[3] / "configs" / "debug"


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    DenoiserMLP(2, 16, 1, data_std=0.5).save(tmp_path / "folder")
    return str(tmp_path / "folder")


def test_it_is_the_score_model_of_its_network(folder):
    path = VariancePreserving()
    network = DenoiserMLP.load(folder)
    by_hand = ScoreModel(network, path, prediction="edm", event_shape=(2,)).given()
    settings = {"num_particles": 50, "num_groups": 2, "num_steps": 10, "dtype": torch.float64}
    expert = TrainedExpert(folder, path, max_batch=64)
    assert expert.event_shape == (2,)
    one, two = (simulate(Target.annealed(model, 2.0), **settings) for model in (expert, by_hand))
    torch.testing.assert_close(one.samples, two.samples)
    torch.testing.assert_close(one.log_weights, two.log_weights)
    law = GaussianMixture([[0.0, 0.0]], 1.0).on(path)  # with an analytic expert of the same path
    assert simulate(Target.guided(expert, law, 1.5), **settings).samples.isfinite().all()


def test_weights_are_read_when_needed_and_said_to_be_missing(folder, tmp_path):
    expert = TrainedExpert(str(tmp_path / "none"), EDM())
    with pytest.raises(FileNotFoundError, match=r"is none \(looked for .*train a denoiser with ScoreModelTask"):
        simulate(Target.annealed(expert, 2.0), num_particles=4)
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"a checkpoint of ScoreModelTask, got .*other\.ckpt"):
        DenoiserMLP.load(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="max_batch"):
        TrainedExpert(folder, EDM(), max_batch=0)


@pytest.mark.slow
def test_the_debug_configurations_train_an_expert_and_sample_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])
    quiet = ("--trainer.enable_progress_bar", "false")
    learned = ("--config", str(DEBUG / "correctors_learned.yaml"), *quiet)
    with pytest.raises(FileNotFoundError, match="train a denoiser"):
        main(["test", *learned])
    main(["fit", "--config", str(DEBUG / "score_model.yaml"), *quiet])
    exported = DenoiserMLP.load("outputs/debug/score_model/folder").state_dict()
    saved = DenoiserMLP.load("outputs/debug/score_model/checkpoints/last.ckpt").state_dict()
    averaged = [torch.equal(exported[name], saved[name]) for name in exported]
    assert all(averaged) and exported.keys() == saved.keys()
    raw = torch.load("outputs/debug/score_model/checkpoints/last.ckpt", weights_only=True)["current_model_state"]
    assert not torch.equal(raw["denoiser.layers.0.weight"], exported["layers.0.weight"]), "these are averages"
    by_folder = main(["test", *learned]).trainer.callback_metrics
    assert {"test/w1", "test/w2", "test/mode_tv", "test/tv", "test/ess"} <= set(by_folder)
    model = "--model.init_args.target.init_args.model.init_args"
    by_file = main(["test", *learned, f"{model}.checkpoint", "outputs/debug/score_model/checkpoints/last.ckpt"])
    assert by_file.trainer.callback_metrics == by_folder
    main(["predict", *learned])
    record = json.loads(Path("outputs/debug/learned/00002.json").read_text())
    assert record["num_steps"] == 40

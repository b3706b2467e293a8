"""`fklit calibrate`: one configuration before and after, and what it refuses."""

import json
import sys
import warnings
from pathlib import Path

import html_page
import pytest
from tiny import tiny_stable_diffusion

from fklit.cli import main
from fklit.steering.calibration import Calibration, CalibrationWarning

PROMPTS = ["a cat", "two cats", "a dog", "a blue book", "a red apple"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])  # Lightning warns if words are given twice


@pytest.fixture
def config(model):
    """A configuration that names a calibration that is not there yet."""
    path = Path("config.yaml")
    content = {
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "default_root_dir": "out",
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "SampleWriter", "init_args": {"output_dir": "out"}}],
        },
        "model": {
            "class_path": "SteeringTask",
            "init_args": {
                "source": {"class_path": "PipelineSource", "init_args": {"path": model}},
                "reward": {"class_path": "Function", "init_args": {"fn": "steering_rewards:redness"}},
                "goal": "sample",
                "calibration": "kept/mine.json",
                "reward_scale": 5.0,
                "reward_schedule": {"start": 1, "stop": 4, "every": 1},
                "num_particles": 2,
                "pipeline_kwargs": {"num_inference_steps": 6, "guidance_scale": 3.0, "eta": 1.0},
            },
        },
        "data": {"class_path": "PromptDataModule", "init_args": {"prompts": PROMPTS, "batch_size": 2}},
    }
    path.write_text(json.dumps(content))
    return str(path)


def test_one_configuration_before_and_after(config, capsys):
    with pytest.raises(ValueError, match=r"expected a calibration in kept/mine.json, got no file; make one with"):
        main(["predict", "--config", config])
    main(["calibrate", "--config", config, "--num_prompts", "3", "--num_samples", "4"])
    said = capsys.readouterr().out
    assert "3 prompts x 4 samples" in said and "calibration: kept/mine.json" in said
    made = Calibration.load("kept/mine.json")
    assert made.prompts == (PROMPTS[0], PROMPTS[1], PROMPTS[3])  # spread over the data
    assert made.num_steps == 6 and made.scores.shape[:2] == (3, 4)
    html_page.parse(Path("kept/mine.html"))
    assert not Path("out").exists()
    with warnings.catch_warnings(record=True) as seen:  # pytest.warns would raise what pyproject.toml ignores
        warnings.simplefilter("always")
        main(["predict", "--config", config, "--model.reward_scale", "100000"])
    said = [str(warning.message) for warning in seen if issubclass(warning.category, CalibrationWarning)]
    assert said and "effective samples beyond one a prompt" in said[0]
    record = json.loads(Path("out/00000/record.json").read_text())
    assert record["potential"].startswith("Calibrated(") and record["ess_threshold"] == 1.0


def test_options(config, capsys):
    potential = {"class_path": "fklit.steering.calibration.Calibrated", "init_args": {"calibration": "kept/b.json"}}
    words = ["calibrate", "--config", config, "--num_prompts", "null", "--num_samples", "3"]
    words += ["--model.goal", "null", "--model.calibration", "null", "--model.potential", json.dumps(potential)]
    words += ["--schedule.indices", "[2, 4]", "--effective", "2", "--output_dir", "moved", "--upper_bound", "1"]
    cli = main(words)
    made = Calibration.load("moved/b.json")
    assert made.steps == (2, 4) and made.num_prompts == 5 and made.upper_bound == 1.0
    assert cli.trainer.callbacks is not None and Path("moved/b.html").is_file()
    main([*words[:7], "--path", "x/y.json", "--model.goal", "null", "--model.calibration", "null"])
    assert Path("x/y.json").is_file()
    assert "page: x/y.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_prompts", "0"], "expected num_prompts of at least 1 or null, got 0"),
        (["--num_samples", "1"], "num_samples=1 is too small"),
        (["--trainer.devices", "2", "--trainer.strategy", "ddp"], "expected one process, got 2"),
        (["--upper_bound", "-5"], r"of at most upper_bound=-5, got"),
    ],
)
def test_what_is_refused(config, words, message):
    with pytest.raises(ValueError, match=message):
        main(["calibrate", "--config", config, *words])


def test_other_tasks_are_refused(config):
    content = json.loads(Path(config).read_text())
    arguments = content["model"]["init_args"]
    for name in ("goal", "calibration"):
        del arguments[name]
    content["model"]["class_path"] = "GuidanceTask"
    del arguments["pipeline_kwargs"]["guidance_scale"]
    Path(config).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected a SteeringTask to calibrate, got a GuidanceTask"):
        main(["calibrate", "--config", config])

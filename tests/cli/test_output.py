"""Where a run writes to, from the command line: one option for everything, and never nowhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import Namespace
from tiny import tiny_stable_diffusion

from fklit.cli import configs, main
from fklit.cli.environment import expand_paths, resolve
from fklit.cli.ranks import speaks_first
from fklit.cli.writers import set_output_dir

CONFIGS = Path(__file__).parents[2] / "configs"
REWARD = '{"class_path": "Function", "init_args": {"fn": "steering_rewards:redness"}}'
SMALL = (
    *("--model.source.path", "sd", "--model.reward_scale", "30", "--model.reward", REWARD),
    *("--data.prompts", '["a green heart"]', "--trainer.enable_progress_bar", "false"),
)
DEBUG = ("predict", "--config", str(CONFIGS / "debug" / "steering.yaml"), *SMALL)


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    tiny_stable_diffusion(tmp_path / "sd")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])


def written():
    return {path.parent.parent.as_posix() for path in Path().rglob("record.json")}


def test_output_dir_reaches_everything_wherever_it_stands_and_the_results_are_named(capsys):
    steps = '{"num_inference_steps": 4, "eta": 1.0}'
    emoji = ("predict", "--config", str(CONFIGS / "steering" / "emoji.yaml"), *SMALL, "--data.path", "null")
    main([*emoji, "--model.pipeline_kwargs", steps, "--output_dir", "runs/a"])
    assert written() == {"runs/a"} and {path.name for path in Path().iterdir()} == {"runs", "sd"}
    assert {"report.html", "config.yaml", "run.json"} <= {path.name for path in Path("runs/a").iterdir()}
    assert "1 prompt: runs/a\nreport: runs/a/report.html\n" in capsys.readouterr().out


@pytest.mark.slow
def test_output_dir_in_yaml_and_the_command_line_wins(monkeypatch):
    monkeypatch.setenv("PLACE", "from_environment")
    Path("more.yaml").write_text("output_dir: ${oc.env:PLACE}/x\n")
    main([*DEBUG, "--config", "more.yaml"])
    assert written() == {"from_environment/x"}
    main([*DEBUG, "--config", "more.yaml", "--output_dir", "$PLACE/y"])
    assert written() == {"from_environment/x", "from_environment/y"}


@pytest.mark.slow
def test_predict_without_a_writer_writes(capsys):
    main([*DEBUG, "--trainer.callbacks", "null", "--trainer.default_root_dir", "root"])
    assert written() == {"root"} and "1 prompt: root" in capsys.readouterr().out
    main([*DEBUG, "--trainer.callbacks", "null", "--trainer.default_root_dir", "null"])
    assert written() == {"root", "outputs"}
    main([*DEBUG, "--trainer.callbacks", "TensorBoardParticles", "--output_dir", "other"])
    assert written() == {"root", "outputs", "other"}


def test_predict_of_a_task_without_a_writer_is_refused_before_anything_is_loaded():
    boring = "lightning.pytorch.demos.boring_classes"
    words = ("predict", f"--model={boring}.BoringModel", f"--data={boring}.BoringDataModule")
    with pytest.raises(ValueError, match=r"expected a callback that writes what .*BoringModel predicts, got none; add"):
        main([*words, "--trainer.logger=false"])
    assert (
        main([*words, "--trainer.logger=false", "--return_predictions=true", "--trainer.accelerator=cpu"]) is not None
    )


def test_output_dir_of_loggers_checkpoints_and_files():
    def item(name, /, **arguments):
        return Namespace(class_path=name, init_args=Namespace(**arguments))

    callbacks = [
        item("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="outputs/x/checkpoints"),
        item("fklit.callbacks.ClassificationWriter", path="outputs/x/classes.pt"),
        item("fklit.callbacks.SimulationWriter", output_dir="outputs/x"),
        item("fklit.callbacks.Report", output_dir="outputs/x"),
    ]
    logger = item("lightning.pytorch.loggers.CSVLogger", save_dir="outputs/x", name="n")
    trainer = Namespace(callbacks=callbacks, logger=logger, default_root_dir="outputs/x")
    set_output_dir(Namespace(output_dir="new", trainer=trainer))
    found = [next(iter(callback.init_args.values())) for callback in callbacks]
    assert found == ["new/checkpoints", "new/classes.pt", "new", None]
    assert (trainer.default_root_dir, logger.init_args.save_dir, logger.init_args.name) == ("new", "new", "n")


def test_environment_in_values_and_paths(monkeypatch):
    monkeypatch.setenv("COUNT", "3")
    monkeypatch.setenv("HOME", "/home/me")
    given = {"a": ["${oc.env:COUNT}", "x${oc.env:COUNT}y"], "b": "${oc.env:NOT_SET,0.5}", "c": "$COUNT of ${a}"}
    assert resolve(given) == {"a": [3, "x3y"], "b": 0.5, "c": "$COUNT of ${a}"}
    settings = Namespace(
        data=Namespace(path="~/p.txt", prompt="$HOME ~"), output_dir="$HOME/${COUNT}", class_path="a.B"
    )
    expand_paths(settings)
    assert (settings.data.path, settings.output_dir) == ("/home/me/p.txt", "/home/me/3")
    assert (settings.data.prompt, settings.class_path) == ("$HOME ~", "a.B")


def test_configurations_are_listed_and_copied_with_what_they_name(capsys):
    main(["configs", "list"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == set(configs.names()) >= {"steering/emoji", "eqprop/digits"}
    assert all(line.split(maxsplit=1)[1] for line in lines)
    main(["configs", "copy", "configs/steering/sd15.yaml", "mine"])
    assert capsys.readouterr().out.split() == ["mine/steering/sd15.yaml", "mine/steering/sd15_prompts.txt"]
    assert "path: mine/steering/sd15_prompts.txt" in Path("mine/steering/sd15.yaml").read_text()
    assert len(Path("mine/steering/sd15_prompts.txt").read_text().splitlines()) >= 64
    with pytest.raises(FileExistsError, match=r"mine/steering/sd15\.yaml, got one"):
        configs.copy("steering/sd15", "mine")


def test_what_is_laid_over_a_configuration_is_copied_with_it(tmp_path):
    copied = configs.copy("steering/fk_paper", tmp_path)
    assert len(copied) == 9 and copied[0] == tmp_path / "steering" / "fk_paper.yaml"
    assert f"--config {tmp_path}/steering/fk_paper/sdxl.yaml" in copied[0].read_text()
    assert configs.copy("steering/fk_paper/sdxl", tmp_path / "one") == [tmp_path / "one/steering/fk_paper/sdxl.yaml"]
    (tmp_path / "two/steering/fk_paper").mkdir(parents=True)
    (tmp_path / "two/steering/fk_paper/sd14.yaml").write_text("mine")
    with pytest.raises(FileExistsError, match=r"fk_paper/sd14\.yaml, got one"):
        configs.copy("steering/fk_paper", tmp_path / "two")
    assert not (tmp_path / "two/steering/fk_paper.yaml").exists()


def test_processes_of_one_run_say_a_thing_once(monkeypatch):
    assert speaks_first("x") and speaks_first("x")
    monkeypatch.setenv("MASTER_PORT", str(os.getpid()))
    monkeypatch.setenv("LOCAL_RANK", "1")
    message = f"{Path.cwd()}"
    assert speaks_first(message) and not speaks_first(message) and speaks_first(f"{message}, too")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_processes_give_the_files_of_one_for_two_prompts():
    """One of them idles."""
    prompts = ("--data.prompts", json.dumps(["a green heart", "two cats"]))
    main([*DEBUG, *prompts, "--output_dir", "one"])
    settings = {**os.environ, "PYTHONPATH": f"{CONFIGS.parent}:{CONFIGS.parent / 'tests'}", "OMP_NUM_THREADS": "1"}
    several = ("--trainer.devices", "3", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")
    for subcommand in ("predict", "test"):
        command = [sys.executable, "-m", "fklit", subcommand, *DEBUG[1:], *prompts, "--output_dir", "three", *several]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    pictures = {path.relative_to("one"): path.read_bytes() for path in Path("one").rglob("*.png")}
    assert len(pictures) == 6
    assert {path.relative_to("three"): path.read_bytes() for path in Path("three").rglob("*.png")} == pictures

"""Two processes of the correctors' tasks write and report what one does, with uneven numbers of prompts and groups."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_stable_diffusion

from fklit.cli import main
from fklit.data import SimulationDataModule

REPOSITORY = Path(__file__).parents[2]
DEBUG = REPOSITORY / "configs" / "debug"
TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")
REPORT = """
import json
from pathlib import Path
from fklit.cli import main
from fklit.data import SimulationDataModule
trainer = main().trainer
if trainer.is_global_zero:
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    Path("metrics.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_stable_diffusion(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])


def words(subcommand, config, out, *more):
    writer = "SampleWriter" if "emoji" in config else "SimulationWriter"
    return [
        *(subcommand, "--config", str(DEBUG / config), "--trainer.default_root_dir", out),
        *("--trainer.callbacks", json.dumps([{"class_path": writer, "init_args": {"output_dir": out}}])),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false"),
        *more,
    ]


def prompts(model):
    given = ["a green heart", "two cats", "a red apple", "a dog", "a blue book"]
    return (
        *("--model.init_args.source.init_args.path", model, "--model.init_args.ess_threshold", "1.0"),
        *("--data.init_args.prompts", json.dumps(given), "--data.init_args.batch_size", "2"),
    )


GROUPS = ("--data.init_args.num_groups", "5", "--data.init_args.batch_size", "2")


def run(command):
    """A command of its own, whose processes must not be those of pytest."""
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
    settings.pop("OMP_NUM_THREADS", None)  # threads are for Lightning and the tasks to set
    result = subprocess.run(
        [sys.executable, *command], env=settings, capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Starting with 2 processes" in result.stderr + result.stdout


def reported(command):
    # To a file: both processes print to one stream, and their lines may run into each other.
    Path("report.py").write_text(REPORT)
    run(["report.py", *command])
    return json.loads(Path("metrics.json").read_text())


def contents(out):
    """Every file, without what depends on the clock, the command's words or the number of processes."""
    found = {}
    for path in sorted(Path(out).rglob("*")):
        if path.is_dir() or path.name == "config.yaml":
            continue
        content = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                content = {name: array.tobytes() for name, array in arrays.items()}
        elif path.suffix == ".json":
            content = json.loads(content)
            clock = content.get("budget", content)
            for name in ("seconds", "peak_memory_bytes"):
                clock.pop(name, None)
        found[str(path.relative_to(out))] = content
    return found


def same_files(one, two, count):
    first, second = contents(one), contents(two)
    assert len([name for name in first if name[0].isdigit() and name.endswith(".json")]) == count
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def same_figures(command):
    one = {name: float(value) for name, value in main(command).trainer.callback_metrics.items()}
    two = reported([*command, *TWO])
    assert {**two, "test/seconds": 0.0} == {**one, "test/seconds": 0.0}
    return one


@pytest.mark.slow
def test_prompts_are_corrected_alike(model):
    config, more = "correctors_emoji.yaml", prompts(model)
    main(words("predict", config, "one", *more))
    run(["-m", "fklit", *words("predict", config, "two", *more), *TWO])
    same_files("one", "two", 5)


@pytest.mark.slow
def test_figures_of_prompts_are_alike(model):
    figures = same_figures(words("test", "correctors_emoji.yaml", "out", *prompts(model)))
    assert figures["test/denoiser_calls"] == 6 * 2 * 2


@pytest.mark.slow
def test_groups_are_alike():
    """Sums over so many particles are rounded by the number of threads, which differs: Lightning shares the cores."""
    control = json.dumps({"class_path": "fklit.correctors.FittedControl"})
    more = (
        *("--model.init_args.num_particles", "40001", "--model.init_args.num_steps", "5"),
        *("--model.init_args.control", control, "--model.init_args.ess_threshold", "0.5", *GROUPS),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        main(words("predict", "correctors_mixtures.yaml", "one", *more))
    finally:
        torch.set_num_threads(before)
    run(["-m", "fklit", *words("predict", "correctors_mixtures.yaml", "two", *more), *TWO])
    same_files("one", "two", 5)


@pytest.mark.slow
def test_figures_of_groups_are_alike():
    figures = same_figures(words("test", "correctors_gmm40.yaml", "out", *GROUPS))
    assert {"test/w1", "test/log_z", "test/ess"} <= set(figures)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_every_group_is_on_exactly_one_rank(world):
    seen = []
    for rank in range(world):
        data = SimulationDataModule(5, batch_size=2)
        data.trainer = type("Ranks", (), {"world_size": world, "global_rank": rank})()
        for loader in (data.predict_dataloader(), data.test_dataloader()):
            indices = [index for batch in loader for index in batch["indices"]]
            assert len(loader.sampler) == len(indices)
        seen += indices
    assert sorted(seen) == list(range(5))


@pytest.mark.slow
def test_processes_without_a_group_idle():
    one = [*words("test", "correctors_gmm40.yaml", "out"), "--data.init_args.num_groups", "1"]
    assert "test/log_z" in same_figures(one)
    main([*words("predict", "correctors_gmm40.yaml", "one"), *one[-2:]])
    run(["-m", "fklit", *words("predict", "correctors_gmm40.yaml", "two"), *one[-2:], *TWO])
    same_files("one", "two", 1)


def test_a_process_without_a_group_gets_an_empty_batch():
    found = []
    for rank in range(3):
        data = SimulationDataModule(1)
        data.trainer = type("Ranks", (), {"world_size": 3, "global_rank": rank})()
        found.append(list(data.test_dataloader()))
    assert found == [[{"indices": [0]}], [{"indices": []}], [{"indices": []}]]

"""Names of version 0.1 are answered with the name they have now."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import fklit
from fklit.cli import main
from fklit.renamed import KEYS, MODULES, NAMES, renamed_path

CONFIG = Path(__file__).parents[2] / "configs" / "debug" / "steering.yaml"


def resolve(path):
    module, names = path, []
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            names.insert(0, name)
    for name in names:
        found = getattr(found, name)
    return found


def test_every_new_name_exists():
    assert [old for old, new in (*NAMES, *MODULES) if resolve(new) is None] == []


def test_no_old_name_exists():
    packages = [resolve(f"fklit.{name}") for name in fklit._MODULES]
    exported = {name for package in packages for name in getattr(package, "__all__", ())} | set(fklit.__all__)
    assert exported & set(dict(NAMES)) == {"Product"}, "of rewards today; of targets before"
    assert renamed_path("fklit.Product") == renamed_path("fklit.correctors.Product") == "fklit.Target.product"
    assert renamed_path("fklit.rewards.Product") is None


def test_paths_of_moved_modules_are_found():
    assert renamed_path("fklit.models.source.PipelineSource") == "fklit.pipelines.source.PipelineSource"
    assert renamed_path("fklit.models.source") == "fklit.pipelines.source"
    assert renamed_path("torchvision.datasets.CIFAR10") is None
    assert renamed_path("fklit.correctors.targets.target.Targt") is None, "a typo in a name of today"
    assert renamed_path("fklit.pipelines.source.PipelineSource") is None


@pytest.fixture(autouse=True)
def _away_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])


def refused(capsys, *words):
    with pytest.raises(SystemExit):
        main(["predict", f"--config={CONFIG}", *words])
    line, _ = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("word", "new"),
    [
        ("--trainer.callbacks=SteeringWriter", "'SteeringWriter' was renamed to 'fklit.callbacks.SampleWriter'"),
        ("--trainer.callbacks=fklit.callbacks.SteeringWriter", "was renamed to 'fklit.callbacks.SampleWriter'"),
        ("--model=CorrectorTask", "was renamed to 'fklit.correctors.guidance.task.GuidanceTask'"),
        ("--data=fklit.data.Digits", "was renamed to 'fklit.data.DigitsDataModule'"),
        ("--model.source=fklit.models.source.PipelineSource", "was renamed to 'fklit.pipelines.source.PipelineSource'"),
    ],
)
def test_old_class_paths_on_the_command_line(word, new, capsys):
    assert new in refused(capsys, word)


@pytest.mark.parametrize(
    ("word", "new"),
    [
        ("--model.call=1", "model: 'call' of SteeringTask was renamed to 'pipeline_kwargs'."),
        (
            "--model.metrics=null",
            "'metrics' of SteeringTask is now of the callback MetricsCallback, which",
        ),
        ("--model.schedule.start=1", "model: 'schedule' of SteeringTask was renamed to 'reward_schedule'."),
    ],
)
def test_old_keys_on_the_command_line(word, new, capsys):
    assert new in refused(capsys, word)


def test_old_keys_in_a_configuration(capsys):
    schedule = {"start": 1, "stop": 4, "every": 1}
    Path("old.yaml").write_text(
        json.dumps({"model": {"class_path": "SteeringTask", "init_args": {"schedule": schedule}}})
    )
    assert "'schedule' of SteeringTask was renamed to 'reward_schedule'" in refused(capsys, "--config=old.yaml")


def test_a_key_that_the_class_never_had_is_no_old_key(capsys):
    assert "expected an argument of SteeringTask, got 'weigh'" in refused(capsys, "--model.weigh=1")


def test_old_class_paths_in_a_configuration(capsys):
    old = {"model": {"class_path": "fklit.correctors.CorrectorTask", "init_args": {"weigh": None}}}
    Path("old.yaml").write_text(json.dumps(old))
    assert "'fklit.correctors.CorrectorTask' was renamed to" in refused(capsys, "--config=old.yaml")


def test_old_attributes_say_where_they_are():
    with pytest.raises(AttributeError, match=r"no attribute 'models'; it was renamed to 'fklit\.pipelines'"):
        fklit.models  # noqa: B018
    with pytest.raises(AttributeError, match=r"renamed to 'fklit\.data\.DigitsDataModule'"):
        fklit.Digits  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        fklit.nothing  # noqa: B018
    assert all(isinstance(old, str) and "-" not in old for old in dict((*KEYS, *NAMES, *MODULES)))

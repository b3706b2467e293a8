"""Hyperparameters as plain data: what is described, what is not, and checkpoints that load without arguments."""

import copy
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from torch import nn

from fklit.hyperparameters import RecordsArguments, describe, save_hyperparameters


class Level(Enum):
    LOW = "low"


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 2.0
    total: float = field(init=False, default=0.0)


class Kept:
    def __init__(self, size: int, points: list[Point] | None = None):
        self.size, self.points = size, points

    def __eq__(self, other):
        return type(other) is type(self) and vars(other) == vars(self)


class Lost:
    def __init__(self, size: int):
        self.area = size**2


class Many:
    def __init__(self, *sizes: int):
        self.sizes = sizes


class Bare:
    """Without a constructor."""


class Net(RecordsArguments, nn.Module):
    def __init__(self, width: int = 3, *, kept: Kept | None = None):
        super().__init__()
        self.layer = nn.Linear(2, width)


class Wide(Net):
    def __init__(self, times: int, **more: Kept | None):
        super().__init__(4 * times, **more)


class Task(LightningModule):
    def __init__(self, net: Net, rate: float = 0.1, *, extra: Kept | Lost | None = None, note: str = ""):
        super().__init__()
        save_hyperparameters(self)
        self.net, self.rate, self.extra, self.note = net, rate, extra, note

    def training_step(self, batch, batch_idx):
        return self.net.layer(batch).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)


class Derived(Task):
    def __init__(self, width: int, rate: float = 0.2):
        super().__init__(Net(width), rate)


def train(task, folder, **more):
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(task, torch.utils.data.DataLoader(torch.ones(2, 2)), **more)
    return trainer.checkpoint_callback.best_model_path


def built(kind, description):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    return parser.instantiate(parser.parse_object({"value": description}))["value"]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None),
        (True, True),
        (np.float64(0.5), 0.5),
        (Level.LOW, "LOW"),
        (Path("a") / "b", "a/b"),
        (describe, "fklit.hyperparameters.describe"),
        (nn.Linear, "torch.nn.Linear"),
        ({"a": (1, [2.0])}, {"a": [1, [2.0]]}),
        (range(2), [0, 1]),
        (Bare(), {"class_path": f"{__name__}.Bare", "init_args": {}}),
    ],
    ids=["none", "bool", "numpy", "enumeration", "path", "function", "class", "nested", "range", "object"],
)
def test_plain_values(value, wanted):
    got = describe(value)
    assert got == wanted and type(got) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Kept, Kept(3)), (Kept, Kept(3, [Point(1.0), Point(2.0, 3.0)])), (Point | None, Point(0.5)), (Level, Level.LOW)],
    ids=["object", "nested", "dataclass", "enumeration"],
)
def test_descriptions_are_built_again(kind, value):
    assert built(kind, describe(value)) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Lost(2), "Lost keeps no attribute 'size'"),
        (Many(1), "Many takes any number of arguments"),
        ([Lost(2)], "Lost keeps no attribute"),
        ({1: 2}, "keys that are not strings"),
        (lambda: 0, "<lambda> cannot be imported by that name"),
        (nn.Linear(2, 2), "Linear keeps no attribute 'device'"),
        (torch.zeros(2), "Tensor"),
        (np.zeros(2), "ndarray"),
    ],
    ids=["attribute", "arguments", "list", "keys", "lambda", "module", "tensor", "array"],
)
def test_what_has_no_description(value, message):
    with pytest.raises(ValueError, match=message):
        describe(value)


def test_attributes_of_an_object_without_a_constructor_are_not_lost_in_silence():
    bare = Bare()
    bare.size = 3
    with pytest.raises(ValueError, match="Bare has no constructor that says what it is made of"):
        describe(bare)


def test_arguments_are_recorded_at_the_outermost_constructor():
    wide = Wide(2, kept=Kept(5))
    wanted = {"times": 2, "kept": {"class_path": f"{__name__}.Kept", "init_args": {"size": 5, "points": None}}}
    assert describe(wide) == {"class_path": f"{__name__}.Wide", "init_args": wanted}
    assert describe(copy.deepcopy(wide)) == describe(wide) and describe(Net()) == describe(copy.copy(Net()))
    assert Net(7).layer.out_features == 7 and list(Net().state_dict()) == ["layer.weight", "layer.bias"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'times'"):
        Wide()


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_module_made_in_python_loads_from_its_checkpoint(tmp_path, weights_only):
    task = Task(Net(5), 0.3, extra=Kept(2, [Point(1.0)]), note="a note: with signs")
    path = train(task, tmp_path)
    loaded = Task.load_from_checkpoint(path, weights_only=weights_only)
    assert loaded.rate == 0.3 and loaded.extra == task.extra and loaded.note == task.note
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), task.parameters(), strict=True))
    assert loaded.hparams == task.hparams
    assert Task.load_from_checkpoint(path, rate=0.7, extra=None).rate == 0.7
    other = Net(5)
    assert Task.load_from_checkpoint(path, net=other).net is other


def test_a_subclass_saves_its_own_arguments(tmp_path):
    task = Derived(6)
    path = train(task, tmp_path)
    loaded = Derived.load_from_checkpoint(path, weights_only=True)
    assert type(loaded) is Derived and torch.equal(loaded.net.layer.weight, task.net.layer.weight)
    assert loaded.rate == 0.2
    assert Derived.load_from_checkpoint(path, rate=0.4, weights_only=True).rate == 0.4


def test_what_cannot_be_saved_does_not_disturb_training_and_is_named_when_loading(tmp_path):
    path = train(Task(Net(), extra=Lost(2), note="x"), tmp_path)
    assert torch.load(path, weights_only=True)["hyper_parameters"]["extra"] == (
        "<not saved, as Lost keeps no attribute 'size'; pass extra= to load_from_checkpoint>"
    )
    with pytest.raises(Exception, match="not saved, as Lost keeps no attribute 'size'; pass extra="):
        Task.load_from_checkpoint(path, weights_only=True)
    lost = Lost(2)
    assert Task.load_from_checkpoint(path, extra=lost, weights_only=True).extra is lost


def test_an_argument_of_any_type_is_named_when_loading(tmp_path):
    task = Task(Net(), note=np.zeros(3))  # an array, whose comparisons are arrays
    path = train(task, tmp_path)
    with pytest.raises(ValueError, match=r"note='<not saved, .*pass note= to load_from_checkpoint"):
        Task.load_from_checkpoint(path, weights_only=True)
    assert Task.load_from_checkpoint(path, note="here", weights_only=True).note == "here"


def test_a_module_built_by_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["fklit"])
    net = {"class_path": f"{__name__}.Wide", "init_args": {"times": 2}}
    model = {"class_path": f"{__name__}.Task", "init_args": {"net": net, "rate": 0.3}}
    cli = LightningCLI(
        LightningModule,
        subclass_mode_model=True,
        run=False,
        args={"model": model},
        save_config_callback=None,
        seed_everything_default=0,
    )
    assert cli.model.hparams["net"]["init_args"]["times"] == 2 and cli.model.hparams["rate"] == 0.3
    path = train(cli.model, tmp_path)
    loaded = Task.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(loaded.net.layer.weight, cli.model.net.layer.weight) and loaded.rate == 0.3
    assert Task.load_from_checkpoint(path, rate=0.5, weights_only=True).rate == 0.5

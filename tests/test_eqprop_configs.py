"""Equilibrium propagation by the command: debug twins, the paper's files on tiny data, and baselines laid over them."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from image_files import accept_cifar, write_cifar10, write_cifar100, write_fashion_mnist, write_imagenet32
from lightning.pytorch.cli import LightningCLI

from fklit.cli import main
from fklit.eqprop.relaxation import compiled

CONFIGS = Path(__file__).parent.parent / "configs"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "eqprop").glob("*.yaml") if "backprop" not in path.stem)
FILES = ("imagenet32", "imagenet32_fast")
TWINS = sorted(path.stem for path in (CONFIGS / "debug").glob("eqprop_*.yaml"))
QUIET = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.logger", "false")
NARROW = ("--model.network.channels", "[2, 2, 3, 3]", "--trainer.devices", "1", "--trainer.strategy", "auto")
SHORT = ("--trainer.max_epochs", "1", "--trainer.enable_model_summary", "false", "--data.batch_size", "4")


@pytest.fixture(autouse=True)
def _in_a_copy(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fklit"])


def build(monkeypatch, *words):
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, subcommand: None)
    return main(["fit", *words, "--trainer.accelerator", "cpu"])


def fit(name, *words):
    cli = main(["fit", "--config", f"configs/{name}.yaml", *QUIET, *words])
    found = {key: float(value) for key, value in cli.trainer.callback_metrics.items()}
    assert math.isfinite(found["train/loss"]) and 0 <= found["val/top1"] <= 1
    return cli, found


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.slow
def test_debug_twins_run_as_they_are(name):
    _, found = fit(f"debug/{name}")
    hidden = next(key for key in found if key.startswith("alignment/error/"))
    assert -1 <= found[hidden] <= 1 and found["train/homeostasis"] > 0


@pytest.mark.slow
def test_the_paper_on_imagenet32(tmp_path, monkeypatch):
    """The command that the guide gives, with eight processes, is understood; the same file runs on one."""
    write_imagenet32(tmp_path / "files")
    place = ("--data.data_dir", str(tmp_path / "files"))
    with monkeypatch.context() as patch:
        words = ("--config", "configs/eqprop/imagenet32.yaml", *place, "--trainer.devices", "8")
        cli = build(patch, *words, "--trainer.strategy", "ddp")
        assert cli.trainer.world_size == 8 and cli.trainer.world_size * cli.datamodule.batch_size == 256
    cli, found = fit("eqprop/imagenet32", *place, *NARROW, *SHORT, "--data.num_workers", "0")
    assert "val/top5" in found and found["train/homeostasis_weight"] == 10 and "alignment/error/conv1" in found
    assert cli.trainer.global_step == 8
    rates = [group["lr"] for group in cli.trainer.optimizers[0].param_groups]
    assert max(rates) < 1e-9  # the cosine has come down


@pytest.mark.slow
def test_the_fast_twin_of_imagenet32(tmp_path, monkeypatch):
    """It is the faithful file but for the lines that say so; its rate follows its rule; its code path runs a step."""
    faithful, fast = (yaml.safe_load(Path(f"configs/eqprop/{name}.yaml").read_text()) for name in FILES)
    assert set(_differences(faithful, fast)) == {
        "model.init_args.network.init_args.free.max_iterations",
        "model.init_args.network.init_args.estimator.init_args.relaxation.max_iterations",
        "model.init_args.network.init_args.execution.response_precision",
        "model.init_args.network.init_args.execution.compile",
        "model.init_args.homeostasis.init_args.probes",
        "data.init_args.batch_size",
        "data.init_args.num_workers",
        "trainer.devices",
        "trainer.strategy",
        "trainer.default_root_dir",
        "trainer.callbacks.0.init_args.every_n_epochs",
    }
    text = Path("configs/eqprop/imagenet32_fast.yaml").read_text()
    assert text.count("fast:") == 11  # one for each line but that of the folder, and one that says what it means
    assert "ESTIMATE FROM COUNTS, NOT A MEASUREMENT" in text
    given, trainer = fast["model"]["init_args"]["optimizer"]["learning_rate"], fast["trainer"]
    assert given == 0.005 * fast["data"]["init_args"]["batch_size"] * trainer["devices"] / 256
    write_imagenet32(tmp_path / "files")
    place = ("--data.data_dir", str(tmp_path / "files"), "--data.num_workers", "0")
    with monkeypatch.context() as patch:
        network = build(patch, "--config", "configs/eqprop/imagenet32_fast.yaml", *place).model.network
    assert network.execution.compile == "cudagraphs" and network.execution.response_precision == "bfloat16"
    # code generation takes minutes, and tests/eqprop/relaxation/test_compiled.py has it
    modes = []
    monkeypatch.setattr(torch, "compile", lambda function, mode=None: modes.append(mode) or function)
    compiled._compiled.cache_clear()
    cli, found = fit("eqprop/imagenet32_fast", *place, *NARROW, *SHORT, "--trainer.limit_train_batches", "0.125")
    compiled._compiled.cache_clear()
    assert modes == ["reduce-overhead"] and cli.trainer.global_step == 1 and found["train/homeostasis_weight"] == 10


def _differences(left, right, prefix=""):
    """Keys under which two configurations differ."""
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        left, right = ({str(i): value for i, value in enumerate(part)} for part in (left, right))
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return [prefix[:-1]] if left != right else []
    keys = [*left, *(key for key in right if key not in left)]
    return [name for key in keys for name in _differences(left.get(key), right.get(key), f"{prefix}{key}.")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write"), [("cifar10", write_cifar10), ("cifar100", write_cifar100)])
def test_the_paper_on_cifar(tmp_path, monkeypatch, name, write):
    write(tmp_path / "files")
    accept_cifar(monkeypatch, name.upper(), tmp_path / "files")
    words = ("--data.data_dir", str(tmp_path / "files"), *NARROW, *SHORT, "--data.num_workers", "0")
    cli, found = fit(f"eqprop/{name}", *words)
    base = [group["initial_lr"] for group in cli.trainer.optimizers[0].param_groups]
    assert base == pytest.approx([0.175, 0.105, 0.07, 0.056, 0.035]) and found["train/homeostasis_weight"] == 15
    elsewhere = ("--trainer.default_root_dir", "outputs/two_phases")
    fit(f"eqprop/{name}", "--config", "configs/eqprop/baselines/two_phases.yaml", *words, *elsewhere)
    if name == "cifar10":
        _, found = fit("eqprop/backprop", *words)
        assert not any(key.startswith("alignment") for key in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("fashion")] + ["backprop_mlp"])
def test_the_paper_on_fashion_mnist(tmp_path, name):
    write_fashion_mnist(tmp_path / "files")
    narrow = NARROW if name.endswith("conv") else ("--model.network.hidden", "[12, 12]")
    sizes = ("--data.num_train", "8", "--data.num_test", "4")
    fit(f"eqprop/{name}", *narrow, "--data.data_dir", str(tmp_path / "files"), *SHORT, *sizes)


@pytest.mark.slow
def test_the_cells_of_table_1(monkeypatch):
    cells = {
        "OneSided": {"beta": 0.05},
        "Cauchy": {"beta": 0.5, "num_phases": 6},
        "Online": {"num_phases": 4, "iterations_per_phase": 60, "num_periods": 5, "from_zero": True},
        "ExactResponse": {},
    }
    for kind, settings in cells.items():
        given = json.dumps({"class_path": kind, "init_args": settings})
        words = ("--config", "configs/eqprop/fashion_mnist_table1.yaml", "--model.network.estimator", given)
        found = build(monkeypatch, *words).model.network.estimator
        assert type(found).__name__ == kind
        assert found.relaxation.max_iterations == settings.pop("iterations_per_phase", 20)
        assert all(getattr(found, key) == value for key, value in settings.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_baselines_over_experiments(monkeypatch, name):
    def over(baseline):
        files = (f"configs/eqprop/{name}.yaml", f"configs/eqprop/baselines/{baseline}.yaml")
        return build(monkeypatch, "--config", files[0], "--config", files[1]).model

    assert type(over("recurrent_backprop").network.estimator).__name__ == "RecurrentBackprop"
    two = over("two_phases").network.estimator
    assert type(two).__name__ == "Symmetric" and two.beta == 1
    if name == "fashion_mnist_loop":  # has no reciprocal links to tie
        return
    tied = over("tied")
    links = [tied.network.link(link) for link in tied.network.ends]
    assert tied.homeostasis is None and all(link.backward_weight is None for link in links)
    assert sum(link.reciprocal for link in links) == len(links) - 1


@pytest.mark.slow
def test_the_loss_can_be_taken_away_by_one_word(monkeypatch):
    words = ("--config", "configs/eqprop/digits.yaml")
    assert build(monkeypatch, *words).model.homeostasis is not None
    assert build(monkeypatch, *words, "--model.homeostasis", "null").model.homeostasis is None


@pytest.mark.slow
def test_seeds_change_the_weights(monkeypatch):
    words = ("--config", "configs/eqprop/digits.yaml", "--seed_everything")
    first, again, other = (
        build(monkeypatch, *words, seed).model.network.link("l1-l2").forward_weight for seed in ("0", "0", "1")
    )
    assert torch.equal(first, again) and not torch.equal(first, other)

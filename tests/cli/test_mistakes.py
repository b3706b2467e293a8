"""Mistyped commands and bad files: each gets at most two lines, of which the first says how to fix it."""

import datetime
import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_stable_diffusion

import fklit.atomic
from fklit.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
DEBUG = str(CONFIGS / "debug" / "steering.yaml")
DIGITS = (CONFIGS / "debug" / "eqprop_digits.yaml").read_text()
JUDGE = '{"judge": {"class_path": "Compositionl"}}'
STEER = (
    *("predict", "--config", DEBUG, "--model.source.path", "sd", "--model.reward_scale", "30", "--output_dir", "out"),
    *("--model.reward", '{"class_path": "Function", "init_args": {"fn": "steering_rewards:redness"}}'),
    *("--trainer.enable_progress_bar", "false"),
)
TRAIN = (
    *("fit", "--config", "digits.yaml", "--trainer.callbacks", "null", "--trainer.max_epochs", "1"),
    *("--data.num_train", "20", "--data.num_test", "20", "--model.homeostasis", "null"),
)


def function(name):
    return ("--model.reward", json.dumps({"class_path": "Function", "init_args": {"fn": name}}))


def clip(**arguments):
    return ("--model.reward", json.dumps({"class_path": "CLIPScore", "init_args": arguments}))


def prompts(path):
    return ("--data.prompts", "null", "--data.path", path)


def checkpoint(path, *more):
    return (*TRAIN, "--ckpt_path", path, *more)


# kind, words, what the first line must say
MISTAKES = [
    ("words", (), "expected a subcommand"),
    ("words", ("predict",), "got no settings; give a configuration, such as fklit predict --config FILE"),
    ("words", ("predit", "--config", DEBUG), "did you mean 'predict'?"),
    ("words", ("--config", DEBUG, "predict"), f"write the subcommand first: fklit predict --config {DEBUG}"),
    ("words", (*STEER, "extra"), "got the word 'extra'; write an option in front of it"),
    ("words", (*STEER, "--model.seed"), "expected a value of --model or of a key below it, got none"),
    (
        "words",
        ("predict", "--trainer.accelerator", "cpu"),
        "expected settings of model and data, got none; give",
    ),
    ("words", ("configs", "copy", "steering/emojii"), "did you mean 'steering/emoji'?"),
    ("key", (*STEER, "--model.num_particle", "4"), "did you mean 'num_particles'?"),
    ("key", (*STEER, "--trainer.num_particles", "4"), "did you mean '--model.num_particles'?"),
    ("key", (*STEER, "--num_particles", "4"), "did you mean '--model.num_particles'?"),
    ("key", (*STEER, "--trainer.devise", "2"), "did you mean '--trainer.devices'?"),
    ("key", (*STEER, "--outputdir", "x"), "did you mean '--output_dir'?"),
    ("key", (*STEER, "--config", "unknown_key.yaml"), "got 'modell'; did you mean 'model'?"),
    ("key", ("fit", "--config", "sweep.yaml"), "free.order: 'sweep' was renamed to 'sequential'"),
    ("class", (*STEER, "--model.tempering", "linear"), "did you mean 'Linear'?"),
    (
        "class",
        (*STEER, "--trainer.callbacks=MetricsCallback", "--trainer.callbacks.metrics", JUDGE),
        "mean 'Compositional'?",
    ),
    ("class", (*STEER, "--model.reward", "ClipScore"), "did you mean 'CLIPScore'?"),
    (
        "class",
        (*STEER, "--model.reward", "my.rewards.Foo"),
        "got 'my.rewards.Foo' (No module named 'my'); fix",
    ),
    ("class", (*STEER, "--model.reward", "os.path.Foo"), "has no attribute 'Foo'); fix the path"),
    ("class", (*STEER, "--model.reward", "fklit.data.DigitsDataModule"), "expected a Reward, got 'fklit.data.Digits"),
    ("class", (*STEER, "--model", "SteerTask"), "did you mean 'SteeringTask'?"),
    ("value", (*STEER, "--model.num_particles", "2.5"), "expected a value of type int, got '2.5'"),
    ("value", (*STEER, "--model.num_particles", "0"), "num_particles"),
    ("value", (*STEER, "--model.potential", "diference"), "did you mean 'difference'?"),
    ("value", (*STEER, "--data.limit", "ten"), "expected a value of type int, got 'ten'"),
    ("value", (*STEER, "--model.pipeline_kwargs", '{"num_inference_step": 3}'), "did you mean 'num_inference_steps'"),
    ("path", (*STEER, "--model.source.path", "nowhere"), "there is no folder"),
    ("path", (*STEER, "--output_dir", "$NOT_SET/x"), "got '$NOT_SET/x' without NOT_SET; set it, or write the path"),
    (
        "path",
        (*STEER, "--output_dir", "${oc.env:NOT_SET}/x"),
        "variable NOT_SET for ${oc.env:NOT_SET}, got none; set",
    ),
    ("path", (*STEER, "--output_dir", "a_file"), "expected a folder, got a file for a_file; choose another path"),
    ("path", (*STEER, "--output_dir", "/proc/nowhere"), "for /proc/nowhere; fix the path"),
    ("path", ("predict", "--config", "nowhere.yaml"), "got nowhere.yaml (no such file); fix the path"),
    ("yaml", ("predict", "--config", "tab.yaml"), "tab.yaml, line 2: expected spaces in front of a key, got a tab"),
    ("yaml", ("predict", "--config", "empty.yaml"), "empty.yaml: expected settings, got an empty file; write some"),
    ("yaml", ("predict", "--config", "list.yaml"), "list.yaml: expected settings as `key: value` lines, got a list"),
    ("yaml", ("predict", "--config", "open.yaml"), "open.yaml, line 2, column 1: expected YAML"),
    ("checkpoint", checkpoint("nowhere.ckpt"), "got nowhere.ckpt, which does not exist"),
    ("checkpoint", checkpoint("empty.ckpt"), "got empty.ckpt, an empty file; copy or save it again"),
    ("checkpoint", checkpoint("page.ckpt"), "got page.ckpt, an HTML page, as a failed download leaves it"),
    ("checkpoint", checkpoint("truncated.ckpt"), "got truncated.ckpt, a truncated file; copy or save it again"),
    ("checkpoint", checkpoint("list.ckpt"), "got list.ckpt with a list; give another file"),
    (
        "checkpoint",
        checkpoint("weights.ckpt"),
        "got weights.ckpt with the keys ['weight']; give a file",
    ),
    (
        "checkpoint",
        checkpoint("unsafe.ckpt"),
        "(datetime.timedelta) and would run code; if you trust",
    ),
    ("prompts", (*STEER, *prompts("nowhere.txt")), "nowhere.txt"),
    ("prompts", (*STEER, *prompts("empty.txt")), "expected at least one prompt, got none in empty.txt; add one"),
    ("prompts", (*STEER, *prompts("bad.jsonl")), "bad.jsonl, line 1: expected JSON"),
    ("prompts", (*STEER, *prompts("bytes.txt")), "expected text in UTF-8, got bytes.txt"),
    ("prompts", (*STEER, *prompts("other.csv")), "set `column` to 'caption'"),
    ("prompts", (*STEER, "--data.prompts", '[" "]'), "write one that is not empty"),
    ("device", (*STEER, "--trainer.accelerator", "gpu"), "expected a device that this machine has, got none"),
    ("device", (*STEER, "--trainer.accelerator", "cuda"), "choose --trainer.accelerator cpu or auto"),
    ("device", (*STEER, "--trainer.accelerator", "qpu"), "trainer: "),
    ("device", (*STEER, "--trainer.devices", "two"), "trainer: expected settings for Lightning, got others (`devices`"),
    ("device", (*STEER, "--trainer.precision", "8"), "trainer"),
    ("reward", (*STEER, *function("steering_rewards:rednes")), "got fn='steering_rewards:rednes' (module"),
    ("reward", (*STEER, *function("steering_reward:redness")), "No module named 'steering_reward'"),
    ("reward", (*STEER, *function("redness")), "name it as 'module:attribute'"),
    ("reward", (*STEER, *function("steering_rewards:broken")), "from steering_rewards.broken, got NameError"),
    ("reward", (*STEER, *function("mistakes_of_users:nothing")), "from mistakes_of_users.nothing"),
    ("reward", (*STEER, *function("mistakes_of_users:nan")), "mistakes_of_users.nan"),
    ("reward", (*STEER, *function("mistakes_of_users:nan"), "--model.on_nan", "drop"), "on_degenerate"),
    ("reward", (*STEER, *clip(model_name="ViT-B-33", pretrained="openai")), "did you mean 'ViT-B-32'?"),
    ("reward", (*STEER, *clip(model_name="ViT-B-32", pretrained="openal")), "did you mean 'openai'?"),
    (
        "reward",
        (*STEER, *clip(model_name="transformers_clip")),
        "transformers_clip, one in the format of transformers",
    ),
    ("weights", (*STEER, "--model.source.path", "owner/name"), "which could not be had"),
    ("weights", (*STEER, *clip(model_name="hf-hub:owner/name")), "check the connection, or download them again"),
    ("weights", (*STEER, "--model.source.path", "sd_empty"), "unet/diffusion_pytorch_model.safetensors is empty; copy"),
    (
        "weights",
        (*STEER, "--model.source.path", "sd_cut"),
        "unet/diffusion_pytorch_model.safetensors is truncated",
    ),
    ("weights", (*STEER, "--model.source.path", "sd_page"), "vae/config.json is an HTML page, as a failed download"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with everything that the commands name."""
    folder = tmp_path_factory.mktemp("mistakes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_stable_diffusion("sd")
        weights = Path("unet/diffusion_pytorch_model.safetensors")
        whole = ("sd" / weights).read_bytes()
        for name, file, content in (
            ("sd_empty", weights, b""),
            ("sd_cut", weights, whole[: len(whole) // 2]),
            ("sd_page", Path("vae/config.json"), b"<!DOCTYPE html>"),
        ):
            shutil.copytree("sd", name)
            (name / file).write_bytes(content)
        Path("transformers_clip").mkdir()
        for name, text in {
            "transformers_clip/config.json": "{}",
            "digits.yaml": DIGITS,
            "sweep.yaml": DIGITS.replace("order: sequential", "order: sweep"),
            "unknown_key.yaml": "modell: 3\n",
            "tab.yaml": "trainer:\n\taccelerator: cpu\n",
            "empty.yaml": "# nothing\n",
            "list.yaml": "- a\n",
            "open.yaml": "a: [1,\n",
            "a_file": "",
            "empty.txt": "\n",
            "bad.jsonl": "{prompt: a}\n",
            "other.csv": "caption\na\n",
            "empty.ckpt": "",
            "page.ckpt": "<html>",
            "mistakes_of_users.py": "import torch\n\n\ndef nothing(images):\n    return images\n\n\n"
            "def nan(images):\n    return torch.full((len(images),), float('nan'))\n",
        }.items():
            Path(name).write_text(text)
        Path("bytes.txt").write_bytes(b"caf\xe9\n")
        torch.save({"weight": torch.zeros(1000)}, "weights.ckpt")
        Path("truncated.ckpt").write_bytes(Path("weights.ckpt").read_bytes()[:3000])
        torch.save([1], "list.ckpt")
        torch.save({"pytorch-lightning_version": "2.6", "x": datetime.timedelta(1)}, "unsafe.ckpt")
    return folder


@pytest.fixture(autouse=True)
def _there(files, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "path", [str(files), *sys.path])
    for name in [name for name in os.listdir() if name.startswith("out")]:
        shutil.rmtree(name)


def said(words, monkeypatch, capsys):
    """Status and the lines of the command itself."""
    monkeypatch.setattr(sys, "argv", ["fklit", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main()
    lines = capsys.readouterr().err.splitlines()
    (start,) = [place for place, line in enumerate(lines) if line.startswith("fklit: error: ")]
    return caught.value.code, lines[start:]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words", "fix"), MISTAKES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_gets_at_most_two_lines_with_the_fix(kind, words, fix, monkeypatch, capsys):
    status, lines = said(words, monkeypatch, capsys)
    assert status in (1, 2) and len(lines) <= 2, lines
    assert fix in lines[0]
    assert not list(Path("out").glob("*/record.json"))


def test_there_are_fifty_mistakes_and_five_of_a_kind():
    kinds = [kind for kind, _, _ in MISTAKES]
    assert len(kinds) >= 50
    wanted = ("key", "class", "value", "path", "checkpoint", "prompts", "device", "reward")
    assert all(kinds.count(kind) >= 5 for kind in wanted)


def test_unsafe_checkpoints_are_loaded_if_asked_for(monkeypatch):
    """The file passes; what it lacks is refused next."""
    from fklit.cli.checkpoints import read_checkpoint

    assert "x" in read_checkpoint("unsafe.ckpt", weights_only=False)


@pytest.mark.parametrize(("number", "text"), [(errno.ENOSPC, "room on the disk"), (errno.EROFS, "read-only one")])
def test_a_full_or_read_only_disk(number, text, monkeypatch, capsys):
    def fail(path, mode):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(fklit.atomic, "open", fail, raising=False)
    status, lines = said(STEER, monkeypatch, capsys)
    assert status == 1 and text in lines[0] and "choose another --output_dir" in lines[0] and len(lines) == 2


def test_a_bug_keeps_its_traceback(monkeypatch):
    """Not every error of fklit's own files is a sentence: what Python raises there is a bug."""
    import fklit.steering.task

    monkeypatch.setattr(fklit.steering.task.SteeringTask, "sample", lambda *_: dict(zip([1], [], strict=True)))
    monkeypatch.setattr(sys, "argv", ["fklit", *STEER])
    with pytest.raises(ValueError, match="zip"):
        main()


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fklit", *STEER, "--model.source.path", "nowhere", "--debug"])
    with pytest.raises(ValueError, match="nowhere"):
        main()

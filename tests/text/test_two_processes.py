"""Two processes, and a run that was killed, write the texts that one process writes, byte for byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fklit.text import DiffusionTransformer, TransformerSettings, save_folder
from fklit.text.words import build_tokenizer

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "steering" / "text.yaml"
PROMPTS = ["a b", "c", "d d a"]


def run(folder, out, *more, **environment):
    init = "--model.init_args"
    reward = {"class_path": "Function", "init_args": {"fn": "steering_rewards:count_a_until_killed"}}
    proposal = {"class_path": "steering_rewards.TwiceAsLikely", "init_args": {"token": 5}}
    command = [
        *(sys.executable, "-m", "fklit", "predict", "--config", str(CONFIG), "--output_dir", out),
        *("--data.path", "prompts.txt", "--data.batch_size", "1", "--trainer.accelerator", "cpu"),
        *(f"{init}.source.init_args.path", "model", f"{init}.source.init_args.proposal", json.dumps(proposal)),
        *(f"{init}.reward", json.dumps(reward), f"{init}.reward_scale", "2", f"{init}.num_sweeps", "1"),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false", *more),
    ]
    places = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    settings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=500, check=False)


def texts(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/texts.jsonl")}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_and_a_kill(tmp_path):
    torch.manual_seed(0)
    build_tokenizer(["<pad>", "<unk>", "<s>", "<mask>", *"abcd"]).save_pretrained(tmp_path / "tokenizer")
    network = DiffusionTransformer(TransformerSettings(vocab_size=8, width=8, layers=1, heads=2))
    save_folder(network, tmp_path / "tokenizer", tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    whole = run(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    expected = texts(tmp_path / "whole")
    assert len(expected) == 3 and all(content.count(b"\n") == 4 for content in expected.values())
    killed = run(tmp_path, "parts", KILL_AT=PROMPTS[1])
    assert killed.returncode == -9, killed.stderr
    first = texts(tmp_path / "parts")
    assert first == {name: expected[name] for name in first} and len(first) == 1
    both = run(tmp_path, "parts", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert both.returncode == 0, both.stderr
    assert texts(tmp_path / "parts") == expected

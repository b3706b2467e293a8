"""Two processes, and a run that was killed, write the molecules that one process writes, byte for byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_molecules import EDGES

from fklit.molecules import Conditions
from fklit.molecules.strings.vocabulary import build_tokenizer
from fklit.text import DiffusionTransformer, TransformerSettings, save_folder

pytest.importorskip("selfies")
pytest.importorskip("rdkit")

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "steering" / "molecules.yaml"
PROMPTS = ["qed=high", "any", "qed=low sa=mid"]


def run(folder, out, *more, **environment):
    reward = {"class_path": "Function", "init_args": {"fn": "steering_rewards:count_carbon_until_killed"}}
    command = [
        *(sys.executable, "-m", "fklit", "predict", "--config", str(CONFIG), "--output_dir", out),
        *("--data.prompts", json.dumps(PROMPTS), "--data.batch_size", "1", "--trainer.accelerator", "cpu"),
        *("--model.source.path", "model", "--model.source.num_steps", "10"),
        *("--model.reward", json.dumps(reward), "--model.reward_scale", "2"),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false", *more),
    ]
    places = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    settings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=500, check=False)


def molecules(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/texts.jsonl")}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_and_a_kill(tmp_path):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["[C]", "[N]", "[O]"], Conditions(EDGES), max_symbols=6)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    network = DiffusionTransformer(TransformerSettings(vocab_size=32, width=16, layers=1, heads=2))
    save_folder(network, tmp_path / "tokenizer", tmp_path / "model")
    whole = run(tmp_path, "whole")
    assert whole.returncode == 0, whole.stderr
    expected = molecules(tmp_path / "whole")
    assert len(expected) == 3 and all(content.count(b"\n") == 8 for content in expected.values())
    killed = run(tmp_path, "parts", KILL_AT=PROMPTS[1])
    assert killed.returncode == -9, killed.stderr
    first = molecules(tmp_path / "parts")
    assert first == {name: expected[name] for name in first} and len(first) == 1
    both = run(tmp_path, "parts", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert both.returncode == 0, both.stderr
    assert molecules(tmp_path / "parts") == expected

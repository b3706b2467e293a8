"""Two processes, and a run that was killed, leave for the scorers what one process leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import published_scorers as scorers
import pytest
from tiny import tiny_stable_diffusion

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "configs" / "debug" / "steering.yaml"
PROMPTS = ["a green heart", "two cats", "a red apple"]


def run(folder, out, *more, **environment):
    init = "--model.init_args"
    reward = {"class_path": "Function", "init_args": {"fn": "steering_rewards:redness_until_killed"}}
    command = [
        *(sys.executable, "-m", "fklit", "predict", "--config", str(CONFIG), "--output_dir", out),
        *("--data.prompts", "null", "--data.path", "prompts.csv", f"{init}.source.init_args.path", "model"),
        *(f"{init}.reward", json.dumps(reward), f"{init}.reward_scale", "30"),
        *("--trainer.callbacks.init_args.evaluation", "[auto, evalscope]"),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false", *more),
    ]
    places = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    settings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=500, check=False)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_and_a_kill(tmp_path):
    tiny_stable_diffusion(tmp_path / "model")
    (tmp_path / "prompts.csv").write_text("Prompts,Category\n" + "".join(f"{p},Colors\n" for p in PROMPTS))
    whole = run(tmp_path, "whole/name")
    assert whole.returncode == 0, whole.stderr
    assert f"for the scorer of drawbench: {Path('whole/name/evaluation/drawbench')}" in whole.stdout
    killed = run(tmp_path, "parts/name", KILL_AT=PROMPTS[1])
    assert killed.returncode == -9 and not (tmp_path / "parts" / "name" / "evaluation").exists()
    both = run(tmp_path, "parts/name", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert both.returncode == 0, both.stderr
    one, two = (tmp_path / name / "name" / "evaluation" for name in ("whole", "parts"))
    expected = files(one / "drawbench")
    assert files(two / "drawbench") == expected and len(expected) == 4
    assert sorted(path.name for path in two.iterdir()) == ["drawbench", "evalscope"]
    ((_, found),) = scorers.hps_drawbench(two / "drawbench", two / "drawbench" / "images").items()
    assert [prompt for _, prompt in found] == PROMPTS
    _, lines = scorers.evalscope(two / "evalscope" / "name.jsonl")
    assert [line[1:3] for line in lines] == [(prompt, "Colors") for prompt in PROMPTS]
    assert all(Path(line[3]).is_file() for line in lines)

"""`fklit serve-reward`: from the words of a command line to scores, and to a clean end."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from steering_rewards import redness

from fklit.cli import main
from fklit.rewards import CLIPScore, HTTPReward

ROOT = Path(__file__).parents[2]
IMAGES = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 255


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "fklit", "serve-reward", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys, fklit.cli.serve_reward as s\n"
        "try:\n    s.run(['--help'])\n"
        "except SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "--reward CLASS" in done.stdout


@contextmanager
def running(words, name):
    """The url of a server that was started with these words; then SIGTERM, at which it ends cleanly."""
    process = start(*words, "--port", "0", "--device", "cpu")
    try:
        line = process.stdout.readline()
        found = re.match(rf"{name} is served at (http://127.0.0.1:\d+) on cpu; Ctrl-C or SIGTERM stops it", line)
        assert found, line + process.stderr.read()
        yield found[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == "stopped\n"
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_a_file_names_the_reward(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text("class_path: fklit.rewards.Function\ninit_args: {fn: 'steering_rewards:redness', max_batch: 1}\n")
    with running(["--reward", str(path), "--name", "red"], "red") as url:
        assert torch.equal(HTTPReward(url, "red")(IMAGES, ["a", "b"]), redness(IMAGES).double())


@pytest.mark.slow
def test_words_name_the_reward():
    with running(["--reward", "CLIPScore", "--reward.model_name", "fklit:emoji_clip"], "CLIPScore") as url:
        prompts = ["a red heart", "a cat"]
        scores = HTTPReward(url, "CLIPScore")(IMAGES, prompts)
    assert torch.allclose(scores, CLIPScore("fklit:emoji_clip")(IMAGES, prompts).double(), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: --reward"),
        (["--reward", "CLIPScore", "--prot", "3"], "expected options, got --prot"),
        (["--reward", "CLIPScore", "8080"], "expected options, got 8080"),
        (["--reward", "CLIPScor"], "CLIPScore"),
        (["--reward", "CLIPScore", "--reward.model_nam", "x"], "model_nam"),
        (["--reward", "CLIPScore", "--api_key_env", "NOT_SET_HERE"], "the environment variable NOT_SET_HERE, got none"),
    ],
)
def test_wrong_words_are_refused(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["serve-reward", *words])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_reward_that_cannot_be_made_says_why():
    with pytest.raises(ValueError, match="fklit ships"):
        main(["serve-reward", "--reward", "CLIPScore", "--reward.model_name", "fklit:nothing"])

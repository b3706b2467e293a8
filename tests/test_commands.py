"""Every command of README and guides runs as it stands, shortened, and those for several devices with two processes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from fklit.molecules import ClusterDenoiser, MeanFreeSpace

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LATER = ("CHECKPOINT", "DIR", "FILE", "[")  # placeholders, with what stands for them below

# What shortens a run, by its configuration; nothing else of the command changes.
SHORT = {
    "configs/steering/emoji.yaml": "--model.pipeline_kwargs.num_inference_steps 6 --data.limit 2",
    "configs/steering/emoji_eqprop.yaml": "--model.pipeline_kwargs.num_inference_steps 6 --data.limit 2",
    "configs/steering/sd15.yaml": "--trainer.accelerator cpu --data.limit 3 --model.source.path {tiny} "
    "--model.source.variant null --model.source.dtype float32 --model.reward.model_name fklit:emoji_reward "
    "--model.pipeline_kwargs.num_inference_steps 5 --model.pipeline_kwargs.height 16 "
    "--model.pipeline_kwargs.width 16 --model.num_particles 2",
    "configs/steering/fk_paper.yaml": "--trainer.accelerator cpu --model.source.path {tiny} "
    "--model.source.variant null "
    "--model.source.dtype float32 --model.reward.model_name fklit:emoji_reward --model.pipeline_kwargs.height 16 "
    "--model.pipeline_kwargs.width 16",
    "configs/steering/text.yaml": "--model.source.sampling.num_steps 8 --model.num_particles 2 --data.limit 2",
    "configs/steering/molecules.yaml": "--model.source.num_steps 8 --model.num_particles 2",
    "configs/correctors/emoji.yaml": "--model.pipeline_kwargs.num_inference_steps 6 --data.limit 2",
    "configs/correctors/gmm40.yaml": "--model.num_particles 200 --model.num_steps 20 --data.num_groups 1",
    "configs/correctors/mixtures.yaml": "--model.num_particles 200 --model.num_steps 20 --data.num_groups 1",
    "configs/correctors/lj13_hot.yaml": "--trainer.max_steps 2 --trainer.val_check_interval 2 "
    "--trainer.limit_val_batches 1 --data.reference.init_args.num_steps 100 --data.reference.init_args.burn_in 0",
    "configs/correctors/lj13_anneal.yaml": "--model.num_particles 8 --model.num_steps 4 --data.num_groups 1 "
    "--model.comparison.init_args.reference.init_args.num_steps 100 "
    "--model.comparison.init_args.reference.init_args.burn_in 0",
    "configs/correctors/lj13_ladder.yaml": "--trainer.max_steps 2 --trainer.val_check_interval 2 "
    "--trainer.limit_val_batches 1",
    "configs/eqprop/digits.yaml": "--trainer.max_epochs 1 --data.num_train 100 --data.num_test 50",
}


COMMAND = r"(?:^(?: {4}|\$ )?|`)(fklit (?:fit|validate|test|predict|configs) [^`\n]*)"


def commands():
    """Commands of all pages, without comments and in one line."""
    found = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(
            r"(?:^(?: {4}|\$ )?|`)(fklit (?:fit|validate|test|predict|configs) [^`\n]*)", text, re.M
        ):
            words = shlex.split(line, comments=True)
            if "|" not in words:
                found.setdefault(" ".join(words), page.name)
    return sorted(found)


COMMANDS = commands()
# The recipes of the shipped models are trainings with data of their own; tests/**/training run their small twins.
# Text pipelines of diffusers have no small published weights: tests/text/test_pipeline_source.py runs tiny ones.
SKIPPED = ("--help", "configs/assets/", "configs/steering/llada2.yaml", "configs/steering/diffusion_gemma.yaml")
RUNNABLE = [
    c for c in COMMANDS if not any(word.startswith(LATER) for word in c.split()) and not any(s in c for s in SKIPPED)
]


def write_clusters(folder):
    """A group of 13 particles near a grid, as SimulationWriter writes it."""
    grid = torch.cartesian_prod(*(torch.arange(3.0),) * 3)[:13]
    noise = 0.05 * torch.randn(100, 13, 3, generator=torch.Generator().manual_seed(0))
    samples = MeanFreeSpace(13, 3).to_coordinates(grid + noise)
    folder.mkdir()
    np.savez_compressed(folder / "00000.npz", samples=samples.numpy(), log_weights=np.full(100, -np.log(100)))
    (folder / "00000.json").write_text("{}")


def run(words, folder, timeout=400):
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    command = [sys.executable, "-m", "fklit", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user would stand: the configurations, and nothing else."""
    place = tmp_path_factory.mktemp("user")
    (place / "configs").symlink_to(ROOT / "configs")
    tiny.tiny_stable_diffusion().save_pretrained(place / "tiny")
    # What the command before has trained, so that the pages' commands need no order.
    for name in ("folder", "folder-1.5"):
        ClusterDenoiser(13, width=80, depth=3, num_radial=64, data_std=1.4).save(place / "outputs/lj13" / name)
    write_clusters(place / "outputs/lj13/anneal")
    (place / "benchmark-prompts.json").write_text('[{"id": "005695-0057", "prompt": "a cat"}]')
    return place


def test_the_pages_have_commands():
    assert len(COMMANDS) >= 10 and len(RUNNABLE) >= 6
    configs = {word for c in RUNNABLE for word in c.split() if word.endswith(".yaml")}
    assert configs <= set(SHORT), "a command of a page names a configuration that SHORT does not shorten"


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNNABLE)
def test_the_command_runs(command, folder, tmp_path):
    words = command.split()[1:]
    config = next((word for word in words if word.endswith(".yaml")), None)
    if config is not None:
        words += [*shlex.split(SHORT[config].format(tiny=folder / "tiny")), "--output_dir", str(tmp_path / "out")]
    if "--trainer.devices" in words:
        words[words.index("--trainer.devices") + 1] = "2"
    done = run(words, tmp_path if words[0] == "configs" else folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if words[0] == "predict" and config is not None:
        assert str(tmp_path / "out") in done.stdout + done.stderr, "the command does not say where its results are"
        assert any((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_the_commands_with_placeholders_run(folder, tmp_path):
    """Classes of the test images of a checkpoint, as docs/equilibrium-propagation.md says."""
    command = next(c for c in COMMANDS if "CHECKPOINT" in c)
    config = "configs/eqprop/digits.yaml"
    fit = ["fit", "--config", config, *shlex.split(SHORT[config]), "--output_dir", str(tmp_path / "fit")]
    done = run(fit, folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    checkpoint = next((tmp_path / "fit").rglob("*.ckpt"))
    words = command.replace("CHECKPOINT", str(checkpoint)).replace("outputs/", f"{tmp_path}/").split()[1:]
    done = run([*words, *shlex.split("--data.num_train 100 --data.num_test 50")], folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert next(tmp_path.rglob("classes.pt")).is_file()

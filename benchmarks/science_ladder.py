"""The next rung of the ladder of temperatures: networks at 1.5, trained on what those at 2 were annealed to."""

import argparse
import json
import sys
from pathlib import Path
from unittest.mock import patch

from fklit.cli import main as fklit_command

CONFIGS = Path(__file__).parent.parent / "configs"
GROUPS = 16  # of 400 particles: 6,400 samples of 1.5


def lower_network(given: argparse.Namespace, network: int, particles: int) -> Path:
    """Anneal a network to 1.5, train the next one on the samples by its configuration, unless it is on disk.

    Args:
        given: the command line.
        network: its number.
        particles: of the clusters.

    Returns:
        The folder of the next network.
    """
    above = given.output / f"lj{particles}-network-{network}"
    folder, samples = (given.output / f"{above.name}-{kind}" for kind in ("1.5", "samples"))
    if (folder / "config.json").is_file():
        return Path(folder)
    configs = CONFIGS / ("debug" if given.quick else "correctors")
    energy = {"class_path": "fklit.molecules.LennardJones", "init_args": {"num_particles": particles}}
    settings = {"system": energy, "temperature": 1.5, "num_steps": 500, "step_size": [0.05, 0.005]}
    polish = {"class_path": "fklit.molecules.LangevinPolish", "init_args": settings}
    words = ["predict", "--config", str(configs / "lj13_anneal.yaml"), "--trainer.accelerator", "cpu"]
    words += ["--model.init_args.target.init_args.model.init_args.checkpoint", str(above)]
    words += ["--model.init_args.seed", str(1000 + network), "--model.init_args.polish", json.dumps(polish)]
    words += ["--data.init_args.num_groups", str(2 if given.quick else GROUPS), "--output_dir", str(samples)]
    fit = ["fit", "--config", str(configs / "lj13_ladder.yaml"), "--trainer.accelerator", "cpu"]
    fit += ["--data.init_args.reference.init_args.folder", str(samples), "--seed_everything", str(network)]
    fit += ["--model.init_args.start_from", str(above), "--model.init_args.export_dir", str(folder)]
    fit += ["--trainer.default_root_dir", str(given.output / "training"), "--trainer.enable_progress_bar", "false"]
    with patch.object(sys, "argv", ["fklit"]):  # the command line warns of words of its own beside those of Python
        for command in (words, fit):
            fklit_command(command)
    return Path(folder)

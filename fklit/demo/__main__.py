"""Steer the shipped text-to-image pipeline on some dozen prompts, judge it, print a table and write a report."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fklit.demo.comparison import Demo
from fklit.demo.figures import differences_in_words
from fklit.demo.settings import DemoSettings, demo_prompts
from fklit.pipelines.source import PipelineSource
from fklit.report.summary import LABELS, Method


def main(words: Sequence[str] | None = None) -> None:
    """Run the demo from the command line; see `--help`.

    Args:
        words: Words of the command line; those that the program was started with if not given.
    """
    parser = argparse.ArgumentParser(prog="python -m fklit.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder of the report")
    parser.add_argument("--prompts", type=int, default=40, help="number of prompts")
    parser.add_argument("--particles", type=int, default=4, help="samples of each prompt")
    parser.add_argument("--steps", type=int, default=DemoSettings.num_steps, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument("--reward-scale", type=float, default=DemoSettings.reward_scale, help="exponent of the target")
    parser.add_argument("--pipeline", default="fklit:emoji_scenes", help="pipeline: shipped name or folder")
    parser.add_argument("--reward", default="fklit:emoji_reward", help="model of ImageReward: shipped name or folder")
    parser.add_argument("--judge", default=None, help="folder of the detector that judges; the shipped one if omitted")
    given = parser.parse_args(words)

    from fklit.metrics.detector import Judge
    from fklit.rewards.image_reward import ImageReward

    if given.prompts < 1:
        parser.error(f"expected --prompts of at least 1, got {given.prompts}.")
    console = Console()
    warnings.filterwarnings("ignore", module="diffusers.*")
    demo = Demo(
        PipelineSource(given.pipeline),
        ImageReward(given.reward),
        Judge(given.judge),
        demo_prompts(given.prompts),
        DemoSettings(
            num_particles=given.particles, num_steps=given.steps, seed=given.seed, reward_scale=given.reward_scale
        ),
    )
    metrics = demo.run(given.output, console=console)
    print_table(metrics, console)
    console.print(
        f"Open {given.output / 'report.html'} in a browser; the figures are in {given.output / 'metrics.json'}."
    )


def print_table(metrics: dict[str, Any], console: Console) -> None:
    """Show the figures of the three methods.

    Args:
        metrics: What `Demo.run` returned.
        console: Where to.
    """
    title = f"{len(metrics['prompts'])} prompts, K = {metrics['settings']['num_particles']}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # fits 80 characters
    table.add_column("", no_wrap=True)
    for name in ("judge", "reward", "denoiser", "decodes", "seconds", "ancestors"):
        table.add_column(name, justify="right", no_wrap=True)
    table.caption = (
        "judge: share of chosen samples that are right [95 % interval over prompts]; reward of the chosen sample; "
        "base: means over its samples; rows given to the denoiser; different ancestors of the returned samples"
    )
    methods: tuple[Method, ...] = ("base", "best_of_n", "fk")
    for method in methods:
        figures = metrics[method]
        judge = "-"
        if "judge_mean" in figures:
            low, high = metrics["intervals"][method]["judge"]
            judge = f"{figures['judge_mean']:.2f} [{low:.2f}, {high:.2f}]"
        table.add_row(
            LABELS[method],
            judge,
            f"{figures['reward_best']:.3f}",
            f"{figures['denoiser_calls']:,.0f}",
            f"{figures['decodes']:,.0f}",
            f"{figures['seconds']:.1f}",
            f"{figures['unique_roots']:.1f}",
        )
    console.print(table)
    for line in differences_in_words(metrics, LABELS):
        console.print(line)


if __name__ == "__main__":
    main()

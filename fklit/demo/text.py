"""Steer the shipped text model on a dozen prompts, judge it, print a table and write a report."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor

from fklit.demo.figures import differences_in_words
from fklit.demo.text_comparison import PROMPTS, TextDemo, TextDemoSettings
from fklit.report.summary import LABELS, Method
from fklit.rewards import LanguageModelLikelihood, Reward
from fklit.text import MaskedTextModel, MaskedTextSource, nelbo_at_counts

_FETCHED = Path("data/parts/smollm2-135m-instruct")


class MaskedLikelihood(Reward):
    """What a masked model itself thinks of a text: minus its NELBO, nats a token; one text of one length at a time.

    Args:
        name: "fklit:NAME" of a shipped model, or an exported folder.
        draws: Masks drawn of each text, the same for equal texts.
    """

    accepts = "text"
    needs_prompts = False

    def __init__(self, name: str = "fklit:text_diffusion", *, draws: int = 16) -> None:
        super().__init__()
        self.name, self.draws = name, draws

    def build(self) -> None:
        """Loads the model."""
        self.model = MaskedTextModel.from_folder(self.name)

    def score(self, samples: Any, prompts: Sequence[str]) -> Tensor:
        """The scores (n,)."""
        scores = []
        for text in samples:
            tokens = torch.tensor([self.model.tokenizer(text, add_special_tokens=False).input_ids] * self.draws)
            counts = 1 + (torch.arange(self.draws) * tokens.shape[1]) // self.draws  # stratified
            draw = torch.Generator().manual_seed(0)
            with torch.no_grad():
                bound = nelbo_at_counts(self.model.denoiser, tokens, counts, mask=self.model.mask, generator=draw)
            scores.append(-bound.mean() / tokens.shape[1])
        return torch.stack(scores)


def main(words: Sequence[str] | None = None) -> None:
    """Run the demo from the command line; see `--help`.

    Args:
        words: Words of the command line; those that the program was started with if not given.
    """
    parser = argparse.ArgumentParser(prog="python -m fklit.demo.text", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo_text"), help="folder of the report")
    parser.add_argument("--prompts", type=Path, help="text file of prompts, one a line; a dozen if omitted")
    parser.add_argument("--particles", type=int, default=TextDemoSettings.num_particles, help="texts of each prompt")
    parser.add_argument("--steps", type=int, default=TextDemoSettings.num_steps, help="steps from masks to text")
    parser.add_argument("--seed", type=int, default=0, help="seed of the texts")
    parser.add_argument("--reward-scale", type=float, default=TextDemoSettings.reward_scale, help="target's exponent")
    parser.add_argument("--model", default="fklit:text_diffusion", help="masked model: shipped name or folder")
    parser.add_argument("--guide", default="fklit:text_guide", help="causal language model that is the reward")
    parser.add_argument(
        "--judge", help=f"causal language model that judges; {_FETCHED} if fetched, else the masked model itself"
    )
    given = parser.parse_args(words)
    judge = given.judge or (str(_FETCHED) if _FETCHED.is_dir() else None)
    prompts = given.prompts.read_text(encoding="utf-8").split("\n") if given.prompts else PROMPTS
    demo = TextDemo(
        MaskedTextSource(given.model),
        LanguageModelLikelihood(given.guide),
        LanguageModelLikelihood(judge) if judge else MaskedLikelihood(given.model),
        [prompt.strip() for prompt in prompts if prompt.strip()],
        TextDemoSettings(
            num_particles=given.particles, num_steps=given.steps, seed=given.seed, reward_scale=given.reward_scale
        ),
    )
    console = Console()
    with Progress(TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("sampling", total=2 * demo.num_calls)
        metrics = demo.run(given.output, advance=lambda: progress.advance(bar))
    print_table(metrics, console)
    console.print(f"Open {given.output / 'report.html'} in a browser; the figures are in metrics.json beside it.")


def print_table(metrics: dict[str, Any], console: Console) -> None:
    """Show the figures of the three methods.

    Args:
        metrics: What `TextDemo.run` returned.
        console: Where to.
    """
    title = f"{len(metrics['prompts'])} prompts, K = {metrics['settings']['num_particles']}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # fits 80 characters
    table.add_column("", no_wrap=True)
    for name in ("guide", "judge", "denoiser", "scored", "seconds", "ancestors"):
        table.add_column(name, justify="right", no_wrap=True)
    table.caption = (
        "nats a token, more is better, ± half the 95 % interval over prompts; judge: "
        f"{metrics['notes']['judge']}; of the chosen text; base: means over its texts; rows given to the denoiser; "
        "texts scored; different ancestors of the returned texts"
    )
    methods: tuple[Method, ...] = ("base", "best_of_n", "fk")
    for method in methods:
        figures, cells = metrics[method], []
        for score, name in (("reward", "reward_best"), ("judge", "judge_mean")):
            low, high = metrics["intervals"][method][score]
            cells.append(f"{figures[name]:.2f} ± {(high - low) / 2:.2f}")
        counts = [f"{figures[name]:,.0f}" for name in ("denoiser_calls", "reward_calls")]
        table.add_row(LABELS[method], *cells, *counts, f"{figures['seconds']:.1f}", f"{figures['unique_roots']:.1f}")
    console.print(table)
    for line in differences_in_words(metrics, LABELS):
        console.print(line)


if __name__ == "__main__":
    main()

"""The table that a test ends with: what steering changed in the reward and in each metric, over all and by label."""

from collections.abc import Mapping

from lightning.pytorch.utilities import rank_zero_only
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fklit.metrics.paired_mean import Gain

_SURE = {1: "[green]", -1: "[red]", 0: ""}


@rank_zero_only
def print_gains(gains: Mapping[str, Mapping[str, Gain]], *, lower: frozenset[str], console: Console) -> None:
    """Print base, steered, gain and its standard error; gains beyond two standard errors are in color.

    Args:
        gains: Name of the measure -> label, "" for all -> gain; those of no prompts are left out.
        lower: Names of measures of which less is better.
        console: Where to.
    """
    table = Table(title="Steered against the base, paired by prompt", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("prompts", "base", "steered", "gain", "s.e."):
        table.add_column(name, justify="right", no_wrap=True)
    for name, by_label in gains.items():
        for label in sorted(by_label):  # over all first
            found = by_label[label]
            if not found.num_prompts:
                continue
            color = _SURE[found.sign() * (-1 if name in lower else 1)]
            error = f"{found.error:.3f}" if found.num_prompts > 1 else "-"
            table.add_row(
                f"  {label}" if label else name,
                str(found.num_prompts),
                f"{found.base:.3f}",
                f"{found.steered:.3f}",
                f"{color}{found.gain:+.3f}",
                error,
            )
    if table.row_count:
        console.print(table)

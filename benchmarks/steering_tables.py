"""The tables that `benchmarks/steering.py` prints."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="mean over prompts [95 % interval of the paired difference over prompts]")
    for name in ("", "K", "reward of the chosen", "judge of the chosen"):
        table.add_column(name)
    for row in summary["rows"]:
        k = str(row["arm"]["k"])
        fk, base = row["fk"], row["base"]
        table.add_row(f"[b]{row['arm']['name']}[/b]", k, f"[b]{fk['reward_best']:.4f}[/b]", f"[b]{fk['judge']:.3f}[/b]")
        table.add_row("base (mean of its samples)", k, f"{base['reward_mean']:.4f}", f"{base['judge_mean']:.3f}")
        for label in (name for name in row if name.startswith("best_of_n")):
            table.add_row(f"{label} (n = {k})", k, f"{row[label]['reward_best']:.4f}", f"{row[label]['judge']:.3f}")
        for label in (name for name in row if "fk - " in name):
            cells = []
            for figure in ("reward_best", "judge"):
                gap = row[label][figure]
                cells.append(f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]")
            table.add_row(label, k, *cells)
        table.add_section()
    console.print(table)
    for row in summary["rows"]:
        console.print(
            f"{row['arm']['name']} K={row['arm']['k']}: {row['resamplings']:.1f} resamplings a prompt, "
            f"{row['fk']['unique_roots']:.2f} ancestors left"
        )


def show_tuning(summary: dict[str, Any], console: Console) -> None:
    """Print a line an arm, the best reward first."""
    table = Table(title="FK less best-of-n at equal denoiser calls, on tune prompts [95 % interval over prompts]")
    for name in ("arm", "reward of the chosen", "judge of the chosen", "resamplings", "ancestors left"):
        table.add_column(name)
    label = "fk - best_of_n, equal denoiser calls"
    for row in sorted(summary["rows"], key=lambda row: -row[label]["reward_best"]["mean"]):
        gaps = [row[label][figure] for figure in ("reward_best", "judge")]
        cells = [f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]" for gap in gaps]
        table.add_row(row["arm"]["name"], *cells, f"{row['resamplings']:.1f}", f"{row['fk']['unique_roots']:.2f}")
    console.print(table)

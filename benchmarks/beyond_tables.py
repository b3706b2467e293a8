"""The table of all methods in docs/steering.md from the JSON of benchmarks/beyond.py.

python benchmarks/beyond_tables.py docs/results/beyond_methods.json
"""

import json
import sys
from pathlib import Path
from typing import Any

HEAD = (
    *("method", "K", "reward", "judge", "n, equal calls", "judge less best-of-n", "n, equal seconds"),
    *("reward less best-of-n", "judge less best-of-n", "mean Z", "judge less target's"),
)


def methods_table(found: dict[str, Any]) -> str:
    """Markdown: one row for each method and K; the chosen method is bold, searches say that they are some."""
    lines = [f"| {' | '.join(HEAD)} |", f"| {' | '.join('---' for _ in HEAD)} |"]
    for row in found["rows"]:
        name = row["method"] or "difference"
        name = f"**{name}**" if name == found["summary"]["method"] else name
        calls, seconds, target = row["equal_calls"], row["equal_seconds"], row.get("target")
        cells = [
            name if row["samples_target"] else f"{name} (a search)",
            str(row["k"]),
            f"{row['reward']:.4f}",
            f"{row['judge']:.3f}",
            f"{calls['n']:.2f}",
            interval(calls["judge"]),
            f"{seconds['n']:.2f} ± {row['seconds_standard_error']:.2f}",
            interval(seconds["reward"]),
            interval(seconds["judge"]),
            "" if target is None else f"{target['z']:.3f}",
            "" if target is None else interval(target["judge_less_pool"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """Mean and the ends of its interval."""
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*values)


if __name__ == "__main__":
    print(methods_table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))

"""The table of a mutation run, in Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mutation.operators import Mutant


def markdown(rows: Sequence[tuple[Mutant, Mapping[str, Any]]], reasons: Mapping[Mutant, str | None]) -> str:
    """Return counts and a row a mutant: place, fault, verdict, the test that noticed it, and the seconds."""
    lines = ["| file | line | original → mutant | verdict | noticed by | s |", "| --- | --- | --- | --- | --- | --- |"]
    verdicts: Counter[str] = Counter()
    for mutant, result in rows:
        why = reasons[mutant]
        verdict = result.get("verdict", "not run")
        if why and verdict != "killed":
            verdict = "equivalent"
        verdicts[verdict] += 1
        by = why if verdict == "equivalent" else result.get("test", "")
        if result.get("stopped"):
            by = f"{by} (out of time)"
        if verdict == "killed":
            by = "loading the tests" if by == "collection" else _code(by.removeprefix("tests/"))
        fault = f"{_code(mutant.original)} → {_code(mutant.replacement)}"
        file = mutant.file.removeprefix("fklit/")
        lines.append(f"| {file} | {mutant.line} | {fault} | {verdict} | {by} | {result.get('seconds', '')} |")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    return f"{len(rows)} mutants: {counts}.\n\n" + "\n".join(lines)


def _code(text: str, longest: int = 90) -> str:
    """Text as code in a cell."""
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text if len(text) <= longest else text[: longest - 1] + '…'}`"

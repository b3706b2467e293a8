"""The page itself: header, table and pictures of the whole run, an index of prompts, then a section a prompt."""

import os
from collections.abc import Iterable
from html import escape
from importlib import resources
from pathlib import Path

from fklit.report.overview import header, headline, index_entry, settings
from fklit.report.prompt import prompt_section
from fklit.report.reading import read_run
from fklit.report.summary import Method, MethodRun


def write_report(
    output: Path | str,
    *,
    base: Path | str | None = None,
    best_of_n: Path | str | None = None,
    steered: Path | str | None = None,
    corrected: Path | str | None = None,
    title: str | None = None,
) -> Path:
    """Write one self-contained HTML page (pictures inlined, no script, nothing loaded) about one to four runs.

    The runs may cover different prompts; a prompt shows the methods that have it. ``base`` and ``best_of_n`` may be
    the same folder: the base shows all its samples alike, best of n the one with the highest reward.

    Args:
        output: the file to write, replaced in one step.
        base: folder of an unsteered run, or of guidance with ``correction=0``.
        best_of_n: folder of a run whose potential is terminal.
        steered: folder of a steered run.
        corrected: folder of a run of corrected guidance, with or without a reward.
        title: heading of the page; None for one that names the method.

    Returns:
        The path of the page.

    Raises:
        ValueError: no run was given, one as another method's, or a record cannot be read.
        FileNotFoundError: a folder, a finished prompt or a picture is missing.
    """
    given: dict[Method, Path | str | None] = {
        "base": base,
        "best_of_n": best_of_n,
        "fk": steered,
        "corrected": corrected,
    }
    folders = {Path(folder).resolve(): read_run(folder) for folder in given.values() if folder is not None}
    methods = [MethodRun(m, folders[Path(folder).resolve()]) for m, folder in given.items() if folder is not None]
    if not methods:
        raise ValueError(
            "write_report was given no run; give the output folder of at least one as base, best_of_n, steered or "
            "corrected."
        )
    for m in methods:
        _check(m)
    heading = title or ("Corrected guidance" if methods[-1].method == "corrected" else "Steering report")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for piece in _page(methods, heading):  # piece by piece: a run of a thousand prompts need not fit in memory
            file.write(piece + "\n")
    os.replace(partial, output)
    return output


def _check(m: MethodRun) -> None:
    if m.method == "base" or m.run.corrects == (m.method == "corrected"):
        return
    found, name = ("corrected guidance", "corrected") if m.run.corrects else ("steering", "steered")
    raise ValueError(f"{m.run.path} holds a run of {found} and was given as that of {m.label}; give it as {name}=.")


def _page(methods: list[MethodRun], title: str) -> Iterable[str]:
    style = resources.files("fklit.report").joinpath("style.css").read_text(encoding="utf-8")
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
    )
    main_run = methods[-1].run
    indices = sorted(set().union(*(m.run.records for m in methods)))
    yield header(title, main_run, len(indices))
    yield headline(methods)
    if len(indices) > 1:
        label = 90 if any(m.method == "corrected" for m in methods) else 70
        width = 130 if len(methods) == 1 else label * len(methods)
        yield f'<section class="card" id="prompts"><h2>Prompts</h2><div class="index" style="--card:{width}px">'
        for index in indices:
            yield index_entry(methods, index)
        yield "</div></section>"
    for index in indices:
        yield prompt_section(methods, index)
    yield settings(methods)
    yield "</main></body></html>"

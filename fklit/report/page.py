"""The page itself: header, table and pictures of the whole run, an index of prompts, then a section for each prompt."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fklit.atomic import write_atomically
from fklit.report.overview import all_settings, chips, headline, index_entry, settings_hash
from fklit.report.pictures import data_uri
from fklit.report.prompt import COSTS, section
from fklit.report.reading import read_run
from fklit.report.summary import Method, MethodRun
from fklit.report.words import Glossary


def write_report(
    output: Path | str,
    *,
    base: Path | str | None = None,
    best_of_n: Path | str | None = None,
    steered: Path | str | None = None,
    corrected: Path | str | None = None,
    title: str | None = None,
    max_prompts: int | None = 32,
) -> Path:
    """Write one self-contained HTML page (pictures inlined, no script, nothing loaded) about one to four runs.

    The runs may cover different prompts; a prompt shows the methods that have it. `base` and `best_of_n` may be
    the same folder: the base shows all its samples alike, best of n the one with the highest reward.

    Args:
        output: the file to write, replaced in one step.
        base: folder of an unsteered run, or of guidance with `correction=0`.
        best_of_n: folder of a run whose potential is terminal.
        steered: folder of a steered run.
        corrected: folder of a run of corrected guidance, with or without a reward.
        title: heading of the page; None for one that names the method.
        max_prompts: prompts that are shown in full, the first ones; of the others the page has a small card with the
            chosen picture of each method (about 5 kB). None shows all in full, which takes some 160 kB a prompt.

    Returns:
        The path of the page.

    Raises:
        ValueError: `max_prompts` is negative, no run was given, one as another method's, or a record cannot be read.
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
        raise ValueError("expected the output folder of at least one run as base, best_of_n, steered or corrected.")
    for m in methods:
        _check(m)
    if max_prompts is not None and max_prompts < 0:
        raise ValueError(f"expected max_prompts of at least 0, or None for all prompts, got {max_prompts}.")
    heading = title or ("Corrected guidance" if methods[-1].method == "corrected" else "Steering report")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    page = environment().get_template("page.html.j2").stream(_content(methods, heading, max_prompts, output.parent))
    page.enable_buffering(100)
    with write_atomically(output) as file:  # piece by piece: a run of a thousand prompts need not fit in memory
        page.dump(file, encoding="utf-8")
    return output


def _check(m: MethodRun) -> None:
    if m.method == "base" or m.run.corrects == (m.method == "corrected"):
        return
    found, name = ("corrected guidance", "corrected") if m.run.corrects else ("steering", "steered")
    raise ValueError(f"expected a run of {m.label}, got {m.run.path} with a run of {found}; pass it as {name}=.")


def environment() -> Environment:
    """Return the templates of all pages."""
    environment = Environment(
        loader=PackageLoader("fklit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["px"] = "{:.1f}".format
    return environment


def _content(methods: list[MethodRun], title: str, max_prompts: int | None, folder: Path) -> dict[str, Any]:
    """What the templates show; index and sections are made one at a time, as they are written."""
    indices = sorted(set().union(*(m.run.records for m in methods)))
    full = indices if max_prompts is None else indices[:max_prompts]
    shown = set(full)
    texts = any(record.modality == "text" for m in methods for record in m.run.records.values())
    label = 90 if any(m.method == "corrected" for m in methods) else 70
    return {
        "title": title,
        "num_prompts": len(indices),
        "num_full": len(full),
        "chips": chips(methods[-1].run),
        "settings_hash": settings_hash(methods[-1].run),
        "headline": headline(methods),
        "index": (index_entry(methods, index, linked=index in shown) for index in indices),
        "stacked": texts,
        "index_width": 300 if texts else 130 if len(methods) == 1 else label * len(methods),
        "sections": (section(methods, index, folder) for index in full),
        "costs": list(COSTS.values()),
        "settings": all_settings(methods),
        "glossary": Glossary(),
    }

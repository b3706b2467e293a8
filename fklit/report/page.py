"""The page itself: header, table and pictures of the whole run, an index of prompts, then a section a prompt."""

import math
import os
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fklit.report import charts
from fklit.report.family_tree import family_tree
from fklit.report.reading import PromptRecord, RunFolder, read_run
from fklit.report.summary import LABELS, Method, MethodRun, score_names
from fklit.report.svg import data_uri, number

_CHIPS = ("pipeline", "model", "reward", "potential", "reward_scale", "sampler", "num_particles", "num_steps", "ess_threshold", "seed")


def write_report(
    output: Path | str,
    *,
    base: Path | str | None = None,
    best_of_n: Path | str | None = None,
    steered: Path | str | None = None,
    title: str = "Steering report",
) -> Path:
    """Write one self-contained HTML page (pictures inlined, no script, no address it loads from) about one to three runs.

    The runs may cover different prompts; a prompt shows the methods that have it. ``base`` and ``best_of_n`` may be the same folder:
    the base shows all its samples alike, best of n the one with the highest reward.

    Args:
        output: the file to write, replaced in one step.
        base: folder of an unsteered run.
        best_of_n: folder of a run whose potential is terminal.
        steered: folder of a steered run.
        title: heading of the page.

    Returns:
        The path of the page.

    Raises:
        ValueError: no run was given, or a record cannot be read.
        FileNotFoundError: a folder, a finished prompt or a picture is missing.
    """
    given: dict[Method, Path | str | None] = {"base": base, "best_of_n": best_of_n, "fk": steered}
    folders = {Path(folder).resolve(): read_run(folder) for folder in given.values() if folder is not None}
    methods = [MethodRun(m, folders[Path(folder).resolve()]) for m, folder in given.items() if folder is not None]
    if not methods:
        raise ValueError("write_report was given no run; give the output folder of at least one as base, best_of_n or steered.")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for piece in _page(methods, title):  # piece by piece: a run of a thousand prompts need not fit in memory
            file.write(piece + "\n")
    os.replace(partial, output)
    return output


def _page(methods: list[MethodRun], title: str) -> Iterable[str]:
    style = resources.files("fklit.report").joinpath("style.css").read_text(encoding="utf-8")
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
    )
    main_run = methods[-1].run
    indices = sorted(set().union(*(m.run.records for m in methods)))
    yield _header(title, main_run, len(indices))
    yield _headline(methods)
    if len(indices) > 1:
        yield '<section class="card" id="prompts"><h2>Prompts</h2><div class="index">'
        for index in indices:
            yield _index_entry(methods, index)
        yield "</div></section>"
    for index in indices:
        yield _prompt(methods, index)
    yield _settings(methods)
    yield "</main></body></html>"


def _header(title: str, run: RunFolder, prompts: int) -> str:
    flat = {key.rsplit(".", 1)[-1]: value for key, value in reversed(list(_flatten(run.settings).items()))}
    record = next(iter(run.records.values()))
    flat = {**{k: v for k, v in record.raw.items() if k in _CHIPS}, **{k: v for k, v in flat.items() if k in _CHIPS}}
    chips = [f"<li><b>prompts</b>{prompts}</li>"]
    chips += [f"<li><b>{key.replace('_', ' ')}</b>{escape(_short(flat[key]))}</li>" for key in _CHIPS if flat.get(key) is not None]
    digest = run.settings.get("settings_hash", record.raw.get("settings_hash"))
    if digest:
        chips.append(f"<li><b>settings</b><code>{escape(str(digest)[:12])}</code></li>")
    return f'<h1 id="top">{escape(title)}</h1><ul class="chips">{"".join(chips)}</ul>'


def _headline(methods: list[MethodRun]) -> str:
    scores = score_names(methods)
    columns: dict[str, str] = {"reward_best": "reward of<br>the chosen", "reward_mean": "mean reward<br>(by weight)"}
    columns |= {f"{name}_mean": f"{escape(name)} of<br>the chosen" for name in scores}
    columns |= {"unique_roots": "different<br>ancestors", "denoiser_calls": "denoiser<br>calls", "decodes": "decodes"}
    columns |= {"reward_calls": "reward<br>calls", "seconds": "seconds", "peak_memory_bytes": "peak<br>memory"}
    rows = []
    for m in methods:
        figures = m.figures()
        cells = "".join(f'<td class="{"lead" if i == 0 else ""}">{_cell(k, figures.get(k))}</td>' for i, k in enumerate(columns))
        rows.append(f'<tr><td><span class="swatch b-{m.method}"></span>{m.label}</td>{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in columns.values())
    table = f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    labels = {m.method: m.label for m in methods}
    plots = [("reward of the chosen sample", None), *((f"{name} of the chosen sample", name) for name in scores)]
    drawn = []
    for heading, score in plots:
        series = {m.method: m.per_prompt(score) for m in methods}
        if len(methods) > 1 or len(next(iter(series.values()))) > 1:
            width = 400 if len(plots) == 1 else 340
            picture = charts.compared({str(k): v for k, v in series.items()}, {str(k): v for k, v in labels.items()}, width=width)
            drawn.append(f"<div><h3>{escape(heading)}</h3>{picture}</div>")
    caption = '<p class="soft" style="font-size:12.5px">thin: a prompt; bold: mean with 95 % interval over prompts</p>' if drawn else ""
    return (
        f'<section class="card top"><div><h3>means over prompts, costs in all</h3>{table}{_verdict(methods, scores)}'
        f'{_base_note(methods)}</div><div><div class="plots">{"".join(drawn)}</div>{caption}</div></section>'
    )


def _base_note(methods: list[MethodRun]) -> str:
    if not any(m.method == "base" for m in methods):
        return ""
    return '<p class="soft" style="font-size:13px">The base does not choose: its figures are means over all its samples.</p>'


def _verdict(methods: list[MethodRun], scores: list[str]) -> str:
    """Paired differences of the last method (the steered one) to each other one."""
    lines = []
    steered = methods[-1]
    for score in (None, *scores):
        ours = steered.per_prompt(score)
        for other in methods[:-1]:
            theirs = other.per_prompt(score)
            gaps = np.array([ours[i] - theirs[i] for i in ours if i in theirs])
            if len(gaps) < 2:
                continue
            low, high = charts.bootstrap_interval(gaps)
            css = "yes" if low > 0 else "no" if high < 0 else ""
            lines.append(
                f"<p>{escape(score or 'reward')}: {steered.label} over {other.label} "
                f'<b class="{css}">{_signed(float(np.nanmean(gaps)))}</b> <span class="soft">[{_signed(low)}, {_signed(high)}], '
                f"higher on {int((gaps > 0).sum())} of {len(gaps)} prompts</span></p>"
            )
    return f'<div class="verdict"><h3>paired differences, 95 % interval over prompts</h3>{"".join(lines)}</div>' if lines else ""


def _index_entry(methods: list[MethodRun], index: int) -> str:
    minis, prompt = [], ""
    for m in methods:
        record = m.run.records.get(index)
        if record is None:
            continue
        prompt = record.prompt
        value = number(m.of_chosen(record, record.rewards), 2)
        shown = record.images()[m.chosen(record) or 0]
        minis.append(f"<figure>{_img(shown, 96, record.prompt)}<figcaption>{m.label}<br>{value}</figcaption></figure>")
    words = escape(prompt) or "(no prompt)"
    return f'<a href="#p{index:05d}"><div class="minis">{"".join(minis)}</div><p><span class="n">{index}</span>{words}</p></a>'


def _prompt(methods: list[MethodRun], index: int) -> str:
    present = [m for m in methods if index in m.run.records]
    last = present[-1]
    record = last.run.records[index]
    threshold = _flat_number(last.run.settings, "ess_threshold")
    cards = "".join(_method(m, m.run.records[index]) for m in present)
    drawn = tree = ""
    if len(record.steps):
        images, previews = record.images(), record.previews()
        drawn = (
            f'<div class="charts"><div><h3>reward path: a line a lineage, colour = ancestor, faded = died out</h3>'
            f"{charts.reward_path(record)}</div><div><h3>effective sample size (red: resampled)</h3>"
            f"{charts.ess(record, threshold=threshold)}</div></div>"
        )
        what = "denoised previews with their score" if previews is not None else "particles"
        tree = (
            f'<div class="treebox"><h3>family tree of {last.label}: {what}, thick = ancestors of the chosen one</h3>'
            f'<div class="wide">{family_tree(record, images, previews)}</div></div>'
        )
    kinds = []
    if record.raw.get("seed") is not None:
        kinds.append(f"seed {escape(str(record.raw['seed']))}")
    kinds.append(f"{record.unique_roots} of {record.num_particles} ancestors left" if len(record.steps) else f"K = {record.num_particles}")
    if record.raw.get("log_z") is not None:
        kinds.append(f"log Z {number(_as_float(record.raw['log_z']), 2)}")
    note = '<p class="note">All weights vanished for this prompt; the samples are unweighted.</p>' if record.degenerate else ""
    words = escape(record.prompt) or "(no prompt)"
    return (
        f'<section class="card prompt" id="p{index:05d}"><header><h2><span class="soft">{index}</span> {words}</h2>'
        f'<span class="meta">{", ".join(kinds)}</span><a class="up" href="#top">top</a></header>{note}'
        f'<div class="row"><div><div class="methods">{cards}</div>{_costs(present, index)}</div>{drawn}</div>{tree}</section>'
    )


def _method(m: MethodRun, record: PromptRecord) -> str:
    images, weights, slot = record.images(), record.weights, m.chosen(record)
    shown = images[slot or 0]
    right = f"reward {number(m.of_chosen(record, record.rewards))}"
    extras = " ".join(f"{escape(n)} {number(m.of_chosen(record, v), 2)}" for n, v in record.scores.items())
    left = "first sample" if slot is None else f"\N{BLACK STAR} slot {slot}"
    thumbs = []
    for k, image in enumerate(images):
        best = k == slot
        weight = 1 / len(images) if m.method == "base" else float(weights[k])
        hover = f"slot {k}: reward {number(float(record.rewards[k]), 4)}, weight {number(weight)}"
        marks = "".join(_mark(name, float(v[k])) for name, v in record.scores.items())
        bar = "" if slot is None else f'<div class="weight"><i style="width:{100 * weight:.0f}%"></i></div>{100 * weight:.0f} %<br>'
        thumbs.append(
            f'<figure class="thumb{" best" if best else ""}" title="{escape(hover)}">{_img(image, 128, hover)}'
            f"{bar}<span>{number(float(record.rewards[k]), 2)}{marks}</span></figure>"
        )
    mean = " (mean)" if slot is None else ""
    return (
        f'<div class="method"><h3><span class="swatch b-{m.method}"></span>{m.label}</h3><figure class="big">'
        f"{_img(shown, 512, record.prompt)}<figcaption><span>{left}</span><b>{right}{mean}</b></figcaption>"
        f'<div class="soft" style="font-size:12.5px">{extras}</div></figure><div class="thumbs">{"".join(thumbs)}</div></div>'
    )


def _mark(name: str, value: float) -> str:
    """A tick or a cross for a score of 0 or 1, else nothing (the number is in the caption of the chosen one)."""
    if value not in (0.0, 1.0):
        return ""
    css, sign = ("yes", "\N{CHECK MARK}") if value == 1.0 else ("no", "\N{BALLOT X}")
    return f' <span class="{css}" title="{escape(name)} {value:g}">{sign}</span>'


def _costs(present: list[MethodRun], index: int) -> str:
    names = {"denoiser_calls": "denoiser", "decodes": "decodes", "reward_calls": "reward", "seconds": "seconds", "peak_memory_bytes": "peak"}
    rows = []
    for m in present:
        budget = m.run.records[index].budget
        cells = "".join(f"<td>{_cell(key, budget.get(key))}</td>" for key in names)
        rows.append(f'<tr><td><span class="swatch b-{m.method}"></span>{m.label}</td>{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in names.values())
    return (
        f'<div class="wide" style="margin-top:14px"><table style="font-size:12.5px"><thead><tr><th>cost</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _settings(methods: list[MethodRun]) -> str:
    shown, done = [], set()
    for m in methods:
        if m.run.path in done or not m.run.settings:
            continue
        done.add(m.run.path)
        labels = " and ".join(LABELS[o.method] for o in methods if o.run.path == m.run.path)
        rows = "".join(
            f"<tr><td><code>{escape(k)}</code></td><td><code>{escape(_short(v, 400))}</code></td></tr>"
            for k, v in _flatten(m.run.settings).items()
        )
        shown.append(
            f'<details><summary>All settings and versions of {labels}</summary><div class="wide"><table class="settings">{rows}</table></div></details>'
        )
    return f'<section class="card">{"".join(shown)}</section>' if shown else ""


def _img(image: Image.Image, max_side: int, alt: str) -> str:
    css = ' class="pixel"' if max(image.size) <= 128 else ""
    return f'<img{css} src="{data_uri(image, max_side)}" alt="{escape(alt)}">'


def _cell(key: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return number(None)
    if key == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    if key in ("denoiser_calls", "decodes", "reward_calls"):
        return f"{value:,.0f}"
    return number(value, {"seconds": 1, "unique_roots": 1}.get(key, 3))


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value)


def _short(value: Any, limit: int = 60) -> str:
    words = str(value)
    return words if len(words) <= limit else words[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def _flat_number(settings: Mapping[str, Any], name: str) -> float | None:
    for key, value in _flatten(settings).items():
        if key.rsplit(".", 1)[-1] == name and isinstance(value, int | float):
            return float(value)
    return None


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan

"""The section of one prompt: pictures side by side, charts over the steps, family tree and cost."""

from html import escape

import numpy as np

from fklit.report import step_charts
from fklit.report.family_tree import family_tree
from fklit.report.parts import as_float, caption, cell, find_number, img
from fklit.report.record import PromptRecord
from fklit.report.summary import MethodRun
from fklit.report.svg import number


def prompt_section(methods: list[MethodRun], index: int) -> str:
    """Everything about one prompt, for the methods that have it."""
    present = [m for m in methods if index in m.run.records]
    last = present[-1]
    record = last.run.records[index]
    cards = "".join(_method(m, m.run.records[index]) for m in present)
    drawn = tree = ""
    if len(record.steps):
        images, previews = record.images(), record.previews()
        drawn = _charts(record, find_number(last.run.settings, "ess_threshold"))
        tree = (
            f'<div class="treebox"><h3>family tree of {last.label}: {_tree_words(record, previews is not None)}</h3>'
            f'<div class="wide">{family_tree(record, images, previews)}</div></div>'
        )
    kinds = []
    if record.raw.get("seed") is not None:
        kinds.append(f"seed {escape(str(record.raw['seed']))}")
    kinds.append(
        f"{record.unique_roots} of {record.num_particles} ancestors left, "
        f"{record.resampled.sum()} resampling{'' if record.resampled.sum() == 1 else 's'}"
        if len(record.steps)
        else f"K = {record.num_particles}"
    )
    if record.raw.get("log_z") is not None:
        kinds.append(f"log Z {number(as_float(record.raw['log_z']), 2)}")
    note = (
        '<p class="note">All weights vanished for this prompt; the samples are unweighted.</p>'
        if record.degenerate
        else ""
    )
    words = escape(record.prompt) or "(no prompt)"
    return (
        f'<section class="card prompt" id="p{index:05d}"><header><h2><span class="soft">{index}</span> {words}</h2>'
        f'<span class="meta">{", ".join(kinds)}</span><a class="up" href="#top">top</a></header>{note}'
        f'<div class="row"><div><div class="methods">{cards}</div>{_costs(present, index)}</div>'
        f"{drawn}</div>{tree}</section>"
    )


def _charts(record: PromptRecord, threshold: float | None) -> str:
    shown = {}
    if record.rewards is not None and np.isfinite(record.values[:-1]).any():
        heading = "reward path: a line a lineage, color = ancestor, faded = died out"
        shown[heading] = step_charts.reward_path(record)
    if record.spread is not None:
        shown[f"spread of the step's exact log weights{_correction(record)}"] = step_charts.trends(
            [record], [record.spread], label="spread"
        )
    shown["effective sample size (red: resampled)"] = step_charts.ess(record, threshold=threshold)
    return f'<div class="charts">{"".join(f"<div><h3>{k}</h3>{v}</div>" for k, v in shown.items())}</div>'


def _correction(record: PromptRecord) -> str:
    share = as_float(record.raw.get("correction"))
    words = [f"{100 * share:.0f} % of them counted"] if share < 1 else []
    if record.weighed.any() and not record.weighed.all():
        words.append("hollow: not counted")
    return f" ({', '.join(words)})" if words else ""


def _tree_words(record: PromptRecord, previews: bool) -> str:
    what = "particles" if not previews else "denoised previews"
    if previews and record.rewards is not None:
        what += " with their score"
    return f"{what}, thick = ancestors of the {'chosen' if record.rewards is not None else 'drawn'} one"


def _method(m: MethodRun, record: PromptRecord) -> str:
    images, weights, slot = record.images(), record.weights, m.chosen(record)
    shown = images[slot or 0]
    extras = " ".join(f"{escape(n)} {number(m.of_chosen(record, v), 2)}" for n, v in record.scores.items())
    star, draw = "\N{BLACK STAR}", "\N{BLACK DIAMOND}"
    left = "sample 0" if slot is None else f"{star if record.rewards is not None else draw} sample {slot}"
    thumbs = []
    for k, image in enumerate(images):
        best = k == slot
        weight = 1 / len(images) if m.method == "base" else float(weights[k])
        reward = "" if record.rewards is None else number(float(record.rewards[k]), 2)
        hover = f"sample {k}: " + (f"reward {reward}, " if reward else "") + f"weight {number(weight)}"
        hover += ", drawn by weight" if k == record.drawn else ""
        marks = "".join(_mark(name, float(v[k])) for name, v in record.scores.items())
        bar = (
            ""
            if slot is None
            else f'<div class="weight"><i style="width:{100 * weight:.0f}%"></i></div>{100 * weight:.0f} %'
            + (f" {draw}" if k == record.drawn else "")
            + "<br>"
        )
        thumbs.append(
            f'<figure class="thumb{" best" if best else ""}" title="{escape(hover)}">{img(image, 128, hover)}'
            f"{bar}<span>{reward}{marks}</span></figure>"
        )
    return (
        f'<div class="method"><h3><span class="swatch b-{m.method}"></span>{m.label}</h3><figure class="big">'
        f"{img(shown, 512, record.prompt)}<figcaption><span>{left}</span><b>{caption(record, slot)}</b></figcaption>"
        f'<div class="soft" style="font-size:12.5px">{extras}</div></figure>'
        f'<div class="thumbs">{"".join(thumbs)}</div></div>'
    )


def _mark(name: str, value: float) -> str:
    """A tick or a cross for a score of 0 or 1, else nothing (the number is in the caption of the chosen one)."""
    if value not in (0.0, 1.0):
        return ""
    css, sign = ("yes", "\N{CHECK MARK}") if value == 1.0 else ("no", "\N{BALLOT X}")
    return f' <span class="{css}" title="{escape(name)} {value:g}">{sign}</span>'


def _costs(present: list[MethodRun], index: int) -> str:
    names = {
        "denoiser_calls": "denoiser",
        "decodes": "decodes",
        "reward_calls": "reward",
        "seconds": "seconds",
        "peak_memory_bytes": "peak",
    }
    rows = []
    for m in present:
        budget = m.run.records[index].budget
        cells = "".join(f"<td>{cell(key, budget.get(key))}</td>" for key in names)
        rows.append(f'<tr><td><span class="swatch b-{m.method}"></span>{m.label}</td>{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in names.values())
    return (
        f'<div class="wide" style="margin-top:14px"><table style="font-size:12.5px">'
        f"<thead><tr><th>cost</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )

"""What stands above the prompts: the run at a glance, the methods compared, the index; and the settings below them."""

from html import escape

import numpy as np

from fklit.report import charts
from fklit.report.parts import cell, flatten, img, short, signed
from fklit.report.reading import RunFolder
from fklit.report.summary import LABELS, MethodRun, score_names
from fklit.report.svg import number

_CHIPS = (
    "pipeline",
    "model",
    "reward",
    "potential",
    "reward_scale",
    "sampler",
    "num_particles",
    "num_steps",
    "ess_threshold",
    "seed",
)


def header(title: str, run: RunFolder, prompts: int) -> str:
    """Title and the settings worth knowing at a glance."""
    record = next(iter(run.records.values()))
    # The record spells its settings for people; run.json, which describes objects, fills what the record lacks.
    known = {name.rsplit(".", 1)[-1]: value for name, value in reversed(list(flatten(run.settings).items()))}
    known |= {name: value for name, value in record.raw.items() if value is not None}
    chips = [f"<li><b>prompts</b>{prompts}</li>"]
    chips += [
        f"<li><b>{key.replace('_', ' ')}</b>{escape(short(known[key]))}</li>"
        for key in _CHIPS
        if known.get(key) is not None
    ]
    digest = run.settings.get("settings_hash", record.raw.get("settings_hash"))
    if digest:
        chips.append(f"<li><b>settings</b><code>{escape(str(digest)[:12])}</code></li>")
    return f'<h1 id="top">{escape(title)}</h1><ul class="chips">{"".join(chips)}</ul>'


def headline(methods: list[MethodRun]) -> str:
    """Table of the methods, paired differences, and the pictures that compare them."""
    scores = score_names(methods)
    columns: dict[str, str] = {"reward_best": "reward of<br>the chosen", "reward_mean": "mean reward<br>(by weight)"}
    columns |= {f"{name}_mean": f"{escape(name)} of<br>the chosen" for name in scores}
    columns |= {"unique_roots": "different<br>ancestors", "denoiser_calls": "denoiser<br>calls", "decodes": "decodes"}
    columns |= {"reward_calls": "reward<br>calls", "seconds": "seconds", "peak_memory_bytes": "peak<br>memory"}
    rows = []
    for m in methods:
        figures = m.figures()
        cells = "".join(
            f'<td class="{"lead" if i == 0 else ""}">{cell(k, figures.get(k))}</td>' for i, k in enumerate(columns)
        )
        rows.append(f'<tr><td><span class="swatch b-{m.method}"></span>{m.label}</td>{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in columns.values())
    table = (
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    labels = {m.method: m.label for m in methods}
    plots = [("reward of the chosen sample", None), *((f"{name} of the chosen sample", name) for name in scores)]
    drawn = []
    for heading, score in plots:
        series = {m.method: m.per_prompt(score) for m in methods}
        if len(methods) > 1 or len(next(iter(series.values()))) > 1:
            width = 400 if len(plots) == 1 else 340
            picture = charts.compared(
                {str(k): v for k, v in series.items()}, {str(k): v for k, v in labels.items()}, width=width
            )
            drawn.append(f"<div><h3>{escape(heading)}</h3>{picture}</div>")
    caption = (
        '<p class="soft" style="font-size:12.5px">thin: a prompt; bold: mean with 95 % interval over prompts</p>'
        if drawn
        else ""
    )
    pictures = f'<div><div class="plots">{"".join(drawn)}</div>{caption}</div>'
    words = _verdict(methods, scores) + _base_note(methods)
    below = f'<div class="top"><div>{words}</div>{pictures}</div>' if words else f'<div class="solo">{pictures}</div>'
    return f'<section class="card"><h3>means over prompts, costs in all</h3>{table}{below}</section>'


def _base_note(methods: list[MethodRun]) -> str:
    if not any(m.method == "base" for m in methods):
        return ""
    return (
        '<p class="soft" style="font-size:13px">The base does not choose: its figures are means over all samples.</p>'
    )


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
                f'<b class="{css}">{signed(float(np.nanmean(gaps)))}</b> '
                f'<span class="soft">[{signed(low)}, {signed(high)}], '
                f"higher on {int((gaps > 0).sum())} of {len(gaps)} prompts</span></p>"
            )
    return (
        f'<div class="verdict"><h3>paired differences, 95 % interval over prompts</h3>{"".join(lines)}</div>'
        if lines
        else ""
    )


def index_entry(methods: list[MethodRun], index: int) -> str:
    """A small card that leads to a prompt."""
    minis, prompt = [], ""
    for m in methods:
        record = m.run.records.get(index)
        if record is None:
            continue
        prompt = record.prompt
        value = number(m.of_chosen(record, record.rewards), 2)
        shown = record.images()[m.chosen(record) or 0]
        minis.append(f"<figure>{img(shown, 96, record.prompt)}<figcaption>{m.label}<br>{value}</figcaption></figure>")
    words = escape(prompt) or "(no prompt)"
    pictures = "".join(minis)
    return (
        f'<a href="#p{index:05d}"><div class="minis">{pictures}</div><p><span class="n">{index}</span>{words}</p></a>'
    )


def settings(methods: list[MethodRun]) -> str:
    """All settings and versions, folded away."""
    shown, done = [], set()
    for m in methods:
        if m.run.path in done or not m.run.settings:
            continue
        done.add(m.run.path)
        labels = " and ".join(LABELS[o.method] for o in methods if o.run.path == m.run.path)
        rows = "".join(
            f"<tr><td><code>{escape(k)}</code></td><td><code>{escape(short(v, 400))}</code></td></tr>"
            for k, v in flatten(m.run.settings).items()
        )
        shown.append(
            f'<details><summary>All settings and versions of {labels}</summary><div class="wide">'
            f'<table class="settings">{rows}</table></div></details>'
        )
    return f'<section class="card">{"".join(shown)}</section>' if shown else ""

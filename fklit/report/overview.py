"""What stands above the prompts: the run at a glance, the methods compared, the index; and the settings below them."""

from html import escape

import numpy as np

from fklit.report import charts
from fklit.report.parts import caption, cell, flatten, img, short, signed
from fklit.report.reading import RunFolder
from fklit.report.step_charts import trends
from fklit.report.summary import LABELS, MethodRun, score_names

_CHIPS = (
    "pipeline",
    "model",
    "guidance_scale",
    "correction",
    "increment",
    "weigh",
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
    if record.rewards is None:  # without a reward the settings of one do nothing
        known = {name: value for name, value in known.items() if name not in ("reward", "potential", "reward_scale")}
    known |= {name: value for name, value in record.raw.items() if value is not None}
    if not any(".weigh." in name for name in flatten(run.settings)):
        known.pop("weigh", None)  # all steps: what a record spells out is the default
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
    rewarded, corrected = any(m.per_prompt() for m in methods), [m for m in methods if m.method == "corrected"]
    columns: dict[str, str] = {}
    if rewarded:
        columns = {"reward_best": "reward of<br>the chosen", "reward_mean": "mean reward<br>(by weight)"}
    columns |= {f"{name}_mean": f"{escape(name)} of<br>the chosen" for name in scores}
    if corrected:
        columns |= {"ess": "effective<br>samples", "spread": "spread<br>of a step"}
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
    plots = [(f"{name or 'reward'} of the chosen sample", name) for name in ([None] if rewarded else []) + scores]
    drawn = []
    for heading, score in plots:
        series = {m.method: m.per_prompt(score) for m in methods}
        if len(methods) > 1 or len(series[methods[0].method]) > 1:
            width = 400 if len(plots) == 1 else 340
            picture = charts.compared(
                {str(k): v for k, v in series.items()}, {str(k): v for k, v in labels.items()}, width=width
            )
            drawn.append(f"<div><h3>{escape(heading)}</h3>{picture}</div>")
    note = (
        '<p class="soft" style="font-size:12.5px">thin: a prompt; bold: mean with 95 % interval over prompts</p>'
        if drawn
        else ""
    )
    pictures = f'<div><div class="plots">{"".join(drawn)}</div>{note}</div>' if drawn else ""
    words = _verdict(methods, scores) + _notes(methods) + "".join(map(_over_steps, corrected))
    if words and pictures:
        below = f'<div class="top"><div>{words}</div>{pictures}</div>'
    else:
        below = f'<div class="solo">{words or pictures}</div>'
    return f'<section class="card"><h3>means over prompts, costs in all</h3>{table}{below}</section>'


def _over_steps(m: MethodRun) -> str:
    """Where along the run the weights of corrected guidance spread, and what that leaves of the groups."""
    records = [record for record in m.run.records.values() if record.spread is not None]
    if len(records) < 2 or len({record.num_steps for record in records}) > 1:
        return ""
    spread = trends(records, [r.spread for r in records if r.spread is not None], label="spread")
    ess = trends(records, [r.ess for r in records], label="effective sample size")
    return (
        f'<div class="plots solo"><div><h3>spread of a step\'s exact log weights</h3>{spread}</div>'
        f"<div><h3>effective sample size</h3>{ess}</div></div>"
        '<p class="soft" style="font-size:12.5px">over scheduler steps; thin: a prompt; bold: mean over prompts</p>'
    )


def _notes(methods: list[MethodRun]) -> str:
    notes = []
    if any(m.method == "base" for m in methods):
        notes.append("The base does not choose: its figures are means over all samples.")
    choosing = [record for m in methods if m.method != "base" for record in m.run.records.values()]
    if any(record.rewards is None for record in choosing):
        notes.append("Without a reward the chosen sample is one draw by weight (\N{BLACK DIAMOND}).")
    elif any(record.drawn is not None for record in choosing):
        notes.append("\N{BLACK STAR} has the highest reward, \N{BLACK DIAMOND} is one draw by weight.")
    return "".join(f'<p class="soft" style="font-size:13px">{note}</p>' for note in notes)


def _verdict(methods: list[MethodRun], scores: list[str]) -> str:
    """Paired differences of the last method to each other one."""
    lines = []
    last = methods[-1]
    for score in (None, *scores):
        ours = last.per_prompt(score)
        for other in methods[:-1]:
            theirs = other.per_prompt(score)
            gaps = np.array([ours[i] - theirs[i] for i in ours if i in theirs])
            if len(gaps) < 2:
                continue
            low, high = charts.bootstrap_interval(gaps)
            css = "yes" if low > 0 else "no" if high < 0 else ""
            lines.append(
                f"<p>{escape(score or 'reward')}: {last.label} over {other.label} "
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
        value = caption(record, m.chosen(record), 2)
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

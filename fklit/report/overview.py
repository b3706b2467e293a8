"""What stands above the prompts: the run at a glance, the methods compared, the index; and the settings below them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fklit.report.charts import comparison, paired_difference
from fklit.report.formatting import caption, cell, short, signed
from fklit.report.pictures import Picture
from fklit.report.reading import RunFolder
from fklit.report.shapes import Drawing
from fklit.report.step_charts import trends
from fklit.report.summary import LABELS, MethodRun, score_names
from fklit.report.texts import TextSample, read_texts

_CHIPS = (
    "pipeline",
    "model",
    "guidance_scale",
    "correction",
    "increment",
    "weight_schedule",
    "reward",
    "potential",
    "reward_scale",
    "search",
    "proposal",
    "sampler",
    "num_particles",
    "num_steps",
    "ess_threshold",
    "seed",
)


def chips(run: RunFolder) -> list[tuple[str, str]]:
    """The settings worth knowing at a glance, as name and value."""
    record = next(iter(run.records.values()))
    # The record spells its settings for people; run.json, which describes objects, fills what the record lacks.
    flat = run.flat_settings()
    known = {name.rsplit(".", 1)[-1]: value for name, value in reversed(list(flat.items()))}
    if record.rewards is None:  # without a reward the settings of one do nothing
        known = {name: value for name, value in known.items() if name not in ("reward", "potential", "reward_scale")}
    known |= {name: value for name, value in record.raw.items() if value is not None}
    if not any(".weight_schedule." in name for name in flat):
        known.pop("weight_schedule", None)  # all steps: what a record spells out is the default
    return [(key.replace("_", " "), short(known[key])) for key in _CHIPS if known.get(key) is not None]


def settings_hash(run: RunFolder) -> str | None:
    """The first digits of the hash that tells runs with other settings apart."""
    digest = run.settings.get("settings_hash", next(iter(run.records.values())).raw.get("settings_hash"))
    return str(digest)[:12] if digest else None


@dataclass(frozen=True)
class Headline:
    """The methods compared.

    Attributes:
        columns: Heading of each column of figures, in lines.
        rows: Each method and its cells.
        plots: Heading and drawing of each quantity that is compared.
        differences: Paired differences of the last method to each other one.
        notes: What a reader must know to read the figures.
        over_steps: Heading and drawing of what the weights of corrected guidance did over the steps, per method.
    """

    columns: Sequence[Sequence[str]]
    rows: Sequence[tuple[MethodRun, Sequence[str]]]
    plots: Sequence[tuple[str, Drawing]]
    differences: Sequence["Difference"]
    notes: Sequence[str]
    over_steps: Sequence[Sequence[tuple[str, Drawing]]]


@dataclass(frozen=True)
class Difference:
    """A paired difference over prompts; `css` is `"yes"` or `"no"` where the interval excludes 0."""

    what: str
    css: str
    mean: str
    low: str
    high: str
    higher: int
    prompts: int


def headline(methods: Sequence[MethodRun]) -> Headline:
    """Table of the methods, paired differences, and the pictures that compare them."""
    scores = score_names(methods)
    rewarded, corrected = any(m.per_prompt() for m in methods), [m for m in methods if m.method == "corrected"]
    columns: dict[str, tuple[str, ...]] = {}
    if rewarded:
        columns |= {"reward_best": ("reward of", "the chosen"), "reward_mean": ("mean reward", "(by weight)")}
    columns |= {f"{name}_mean": (f"{name} of", "the chosen") for name in scores}
    if corrected:
        columns |= {"ess": ("effective", "samples"), "log_weight_std": ("log-weight std", "of a step")}
    columns |= {"unique_roots": ("different", "ancestors"), "denoiser_calls": ("denoiser", "calls")}
    columns |= {"decodes": ("decodes",), "reward_calls": ("reward", "calls"), "seconds": ("seconds",)}
    columns |= {"peak_memory_bytes": ("peak", "memory")}
    rows = [(m, [cell(figures.get(key), key) for key in columns]) for m in methods for figures in [m.figures()]]
    return Headline(
        columns=list(columns.values()),
        rows=rows,
        plots=_plots(methods, [None, *scores] if rewarded else scores),
        differences=list(_differences(methods, scores)),
        notes=list(_notes(methods)),
        over_steps=[drawn for m in corrected if (drawn := _over_steps(m))],
    )


def _plots(methods: Sequence[MethodRun], scores: Sequence[str | None]) -> list[tuple[str, Drawing]]:
    labels = {str(m.method): m.label for m in methods}
    drawn = []
    for score in scores:
        series = {str(m.method): m.per_prompt(score) for m in methods}
        if len(methods) > 1 or len(series[methods[0].method]) > 1:
            picture = comparison(series, labels, width=400 if len(scores) == 1 else 340)
            drawn.append((f"{score or 'reward'} of the chosen sample", picture))
    return drawn


def _over_steps(m: MethodRun) -> list[tuple[str, Drawing]]:
    """Where along the run the log weights of corrected guidance differ, and what that leaves of the groups."""
    records = [record for record in m.run.records.values() if record.log_weight_std is not None]
    if len(records) < 2 or len({record.num_steps for record in records}) > 1:
        return []
    std = [record.log_weight_std for record in records if record.log_weight_std is not None]
    return [
        ("standard deviation of a step's exact log weights", trends(records, std, label="log-weight std")),
        ("effective sample size", trends(records, [r.ess for r in records], label="effective sample size")),
    ]


def _notes(methods: Sequence[MethodRun]) -> Iterable[str]:
    if any(m.method == "base" for m in methods):
        yield "The base does not choose: its figures are means over all samples."
    choosing = [record for m in methods if m.method != "base" for record in m.run.records.values()]
    if any(record.rewards is None for record in choosing):
        yield "Without a reward the chosen sample is one draw by weight (\N{BLACK DIAMOND})."
    elif any(record.drawn is not None for record in choosing):
        yield "\N{BLACK STAR} has the highest reward, \N{BLACK DIAMOND} is one draw by weight."


def _differences(methods: Sequence[MethodRun], scores: Sequence[str]) -> Iterable[Difference]:
    last = methods[-1]
    for score in (None, *scores):
        ours = last.per_prompt(score)
        for other in methods[:-1]:
            theirs = other.per_prompt(score)
            gaps = np.array([ours[i] - theirs[i] for i in ours if i in theirs])
            if len(gaps) < 2:
                continue
            mean, low, high = paired_difference(ours, theirs)
            yield Difference(
                what=f"{score or 'reward'}: {last.label} over {other.label}",
                css="yes" if low > 0 else "no" if high < 0 else "",
                mean=signed(mean),
                low=signed(low),
                high=signed(high),
                higher=int((gaps > 0).sum()),
                prompts=len(gaps),
            )


@dataclass(frozen=True)
class IndexEntry:
    """A small card: what each method chose, with a link to the prompt where it is shown in full.

    Attributes:
        index: The prompt's index.
        prompt: Its text.
        pictures: Each method, the picture it chose (or the text), and what is said of it.
        linked: Whether the prompt is shown in full.
    """

    index: int
    prompt: str
    pictures: Sequence[tuple[MethodRun, Picture | TextSample, str]]
    linked: bool


def index_entry(methods: Sequence[MethodRun], index: int, *, linked: bool = True) -> IndexEntry:
    """The card of one prompt."""
    pictures: list[tuple[MethodRun, Picture | TextSample, str]] = []
    prompt = ""
    for m in methods:
        record = m.run.records.get(index)
        if record is None:
            continue
        prompt = record.prompt
        slot = m.chosen(record)
        words = caption(record, slot, 2)
        if record.modality == "text":
            pictures.append((m, read_texts(record)[slot or 0], words))
            continue
        picture = Picture(record.images()[slot or 0], 96, f"{m.label}, {words or 'a sample'}: {short(prompt, 200)}")
        pictures.append((m, picture, words))
    return IndexEntry(index, prompt, pictures, linked)


def all_settings(methods: Sequence[MethodRun]) -> list[tuple[str, dict[str, Any]]]:
    """All settings and versions of each folder: the methods that it is shown as, and dotted names with values."""
    shown, done = [], set()
    for m in methods:
        if m.run.path not in done and m.run.settings:
            done.add(m.run.path)
            labels = " and ".join(LABELS[o.method] for o in methods if o.run.path == m.run.path)
            shown.append((labels, {k: short(v, 400) for k, v in m.run.flat_settings().items()}))
    return shown

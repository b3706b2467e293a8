"""The section of one prompt: pictures side by side, charts over the steps, family tree and cost."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from fklit.report import step_charts
from fklit.report.family_tree import family_tree
from fklit.report.formatting import caption, cell, number, short
from fklit.report.pictures import Picture
from fklit.report.record import PromptRecord
from fklit.report.shapes import Drawing
from fklit.report.summary import MethodRun
from fklit.report.texts import TextSample, read_texts

COSTS = {
    "denoiser_calls": "denoiser",
    "decodes": "decodes",
    "reward_calls": "reward",
    "seconds": "seconds",
    "peak_memory_bytes": "peak",
}
_STAR, _DIAMOND = "\N{BLACK STAR}", "\N{BLACK DIAMOND}"


@dataclass(frozen=True)
class Thumb:
    """A sample in the strip below the large picture; of texts, one of the list.

    Attributes:
        picture: The sample; None for a text.
        text: The sample if it is a text.
        hover: What shows on hovering.
        chosen: Whether it is the large one.
        percent: Its weight, or None where all samples count alike.
        drawn: Whether it is the one drawn by weight.
        reward: Its reward, empty without one.
        media: Address of its video or sound file from the page, or None.
        marks: Name and value of each score that is 0 or 1 (other values stand at the chosen sample alone).
    """

    picture: Picture | None
    text: TextSample | None
    hover: str
    chosen: bool
    percent: float | None
    drawn: bool
    reward: str
    media: str | None
    marks: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Card:
    """What one method made of the prompt; without a picture where it made texts."""

    run: MethodRun
    picture: Picture | None
    name: str
    caption: str
    scores: str
    modality: str
    media: str | None
    thumbs: Sequence[Thumb]
    costs: Sequence[str]


@dataclass(frozen=True)
class Section:
    """Everything about one prompt.

    Attributes:
        index: The prompt's index.
        prompt: Its text.
        facts: What happened, in short.
        degenerate: Whether all weights vanished.
        cards: Each method that has the prompt.
        charts: Heading and drawing of what the last method did over the steps.
        tree: Heading and drawing of its family tree, or None.
    """

    index: int
    prompt: str
    facts: Sequence[str]
    degenerate: bool
    cards: Sequence[Card]
    charts: Sequence[tuple[str, Drawing]]
    tree: tuple[str, Drawing] | None

    @property
    def texts(self) -> bool:
        """Whether the samples are texts."""
        return any(card.picture is None for card in self.cards)

    @property
    def colored(self) -> bool:
        """Whether it is known when tokens of texts were unmasked."""
        return any(sample.text is not None and sample.text.colored for card in self.cards for sample in card.thumbs)


def section(methods: Sequence[MethodRun], index: int, page_folder: Path) -> Section:
    """Everything about one prompt, for the methods that have it; videos and sound are linked from the page's folder."""
    present = [m for m in methods if index in m.run.records]
    last = present[-1]
    record = last.run.records[index]
    stepwise = bool(len(record.steps))
    return Section(
        index=index,
        prompt=record.prompt,
        facts=_facts(record),
        degenerate=record.degenerate,
        cards=[_card(m, m.run.records[index], page_folder) for m in present],
        charts=_charts(record, last.run.find_number("ess_threshold")) if stepwise else [],
        tree=_tree(last, record) if stepwise else None,
    )


def _facts(record: PromptRecord) -> list[str]:
    facts = []
    if record.raw.get("seed") is not None:
        facts.append(f"seed {record.raw['seed']}")
    if len(record.steps):
        resamplings = int(record.resampled.sum())
        facts.append(f"{record.unique_roots} of {record.num_particles} ancestors left")
        facts.append(f"{resamplings} resampling{'' if resamplings == 1 else 's'}")
    else:
        facts.append(f"K = {record.num_particles}")
    if record.raw.get("log_z") is not None:
        facts.append(f"log Z {number(record.log_z, 2)}")
    return facts


def _charts(record: PromptRecord, threshold: float | None) -> list[tuple[str, Drawing]]:
    shown = []
    if record.rewards is not None and np.isfinite(record.values[:-1]).any():
        heading = "reward path: a line a lineage, color = ancestor, faded = died out"
        shown.append((heading, step_charts.reward_path(record)))
    if record.log_weight_std is not None:
        heading = f"standard deviation of the step's exact log weights{_counted(record)}"
        shown.append((heading, step_charts.trends([record], [record.log_weight_std], label="log-weight std")))
    shown.append(("effective sample size (red: resampled)", step_charts.ess(record, threshold=threshold)))
    return shown


def _counted(record: PromptRecord) -> str:
    """Which share of the log weights counted, and at which steps."""
    words = [f"{100 * record.correction:.0f} % of them counted"] if record.correction < 1 else []
    if record.weighted.any() and not record.weighted.all():
        words.append("hollow: not counted")
    return f" ({', '.join(words)})" if words else ""


def _tree(m: MethodRun, record: PromptRecord) -> tuple[str, Drawing]:
    chosen = "chosen" if record.rewards is not None else "drawn"
    if record.modality == "text":
        texts = [sample.text[_shared(record.prompt, sample.text) :] for sample in read_texts(record)]
        heading = f"family tree of {m.label}: particles, thick = ancestors of the {chosen} one"
        heading += ", predicted texts on hovering" if record.raw.get("predictions") else ""
        return heading, family_tree(record, None, None, texts=texts)
    previews = record.previews()
    what = "particles" if previews is None else "denoised previews"
    if previews is not None and record.rewards is not None:
        what += " with their score"
    heading = f"family tree of {m.label}: {what}, thick = ancestors of the {chosen} one"
    return heading, family_tree(record, record.images(), previews)


def _shared(prompt: str, text: str) -> int:
    """How many letters of a text are its prompt's."""
    return len(prompt) if prompt and text.startswith(prompt) else 0


def _card(m: MethodRun, record: PromptRecord, page_folder: Path) -> Card:
    slot, frames = m.chosen(record), record.strip_frames
    texts = read_texts(record) if record.modality == "text" else None
    images = [] if texts else record.strips()
    files = record.media()
    media: list[str | None] = [None] * record.num_particles
    if files is not None:
        media = [_address(path, page_folder) for path in files]
    name = "sample 0" if slot is None else f"{_DIAMOND if record.rewards is None else _STAR} sample {slot}"
    thumbs = []
    for k in range(record.num_particles):
        weight = 1 / record.num_particles if m.method == "base" else float(record.weights[k])
        reward = "" if record.rewards is None else number(float(record.rewards[k]), 2)
        hover = f"{m.label}, sample {k}: " + (f"reward {reward}, " if reward else "") + f"weight {number(weight)}"
        hover += ", drawn by weight" if k == record.drawn else ""
        thumbs.append(
            Thumb(
                picture=None if texts else Picture(images[k], 128, hover, frames),
                text=texts[k] if texts else None,
                hover=hover,
                chosen=k == slot,
                percent=None if slot is None else 100 * weight,
                drawn=k == record.drawn,
                reward=reward,
                media=media[k],
                marks=[(name, float(v[k])) for name, v in record.scores.items() if v[k] in (0.0, 1.0)],
            )
        )
    side, words = 512 if frames == 1 else 256, _alternative(m, record, slot or 0)
    return Card(
        run=m,
        picture=None if texts else Picture(images[slot or 0], side, words, frames),
        name=name,
        caption=caption(record, slot),
        scores=" ".join(f"{name} {number(m.of_chosen(record, v), 2)}" for name, v in record.scores.items()),
        modality=record.modality,
        media=media[slot or 0],
        thumbs=thumbs,
        costs=[cell(record.budget.get(key), key) for key in COSTS],
    )


def _alternative(m: MethodRun, record: PromptRecord, slot: int) -> str:
    return f"{m.label}, chosen sample {slot}: {short(record.prompt, 200)}"


def _address(path: Path, page_folder: Path) -> str:
    """A file as a link of a page."""
    return quote(Path(os.path.relpath(path.resolve(), page_folder.resolve())).as_posix())

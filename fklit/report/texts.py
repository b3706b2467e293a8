"""Texts of a prompt: the file that holds them, and their tokens colored by the step that unmasked them."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fklit.atomic import write_text_atomically
from fklit.report.lineages import trace
from fklit.report.record import PromptRecord, parse_record

TEXTS = "texts.jsonl"
_AGAIN = "run the same command again, which repairs the prompt"


@dataclass(frozen=True)
class Piece:
    """A token of a text.

    Attributes:
        words: What it adds to the text, spaces included.
        share: When it was unmasked, 0 at the first step and 1 at the last; None for the prompt's, and where nobody
            says.
        title: The same in words.
    """

    words: str
    share: float | None
    title: str


@dataclass(frozen=True)
class TextSample:
    """A text of a prompt.

    Attributes:
        text: The text.
        pieces: Its tokens.
        drawing: Address of a picture of what the text stands for, such as a molecule, with the picture in it; None for
            none.
    """

    text: str
    pieces: Sequence[Piece]
    drawing: str | None = None

    @property
    def colored(self) -> bool:
        """Whether it is known when tokens were unmasked."""
        return any(piece.share is not None for piece in self.pieces)


def write_texts(
    folder: Path, record: Mapping[str, Any], texts: Sequence[str], details: Sequence[Mapping[str, Any]] | None
) -> str:
    """Writes `texts.jsonl`: a line a particle with its text, reward, weight and ancestor of the first step.

    Args:
        folder: Of the prompt.
        record: `record(b)` of the result.
        texts: K texts.
        details: What else is known of each, such as `pieces`, `unmasked_at` and a `drawing` (SVG); None for nothing.

    Returns:
        The SHA-256 of the file, by which damage shows.
    """
    parsed = parse_record(record)
    roots = trace(parsed.ancestors, parsed.chosen).roots[-1] if len(parsed.steps) else range(len(texts))
    lines = []
    for slot, text in enumerate(texts):
        reward = None if parsed.rewards is None or np.isnan(parsed.rewards[slot]) else float(parsed.rewards[slot])
        line = {
            "slot": slot,
            "text": text,
            "reward": reward,
            "weight": float(parsed.weights[slot]),
            "ancestor": int(roots[slot]),
            "chosen": slot == parsed.chosen,
            **(details[slot] if details else {}),
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    content = "".join(lines)
    write_text_atomically(folder / TEXTS, content)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


def read_texts(record: PromptRecord) -> list[TextSample]:
    """The K texts of a prompt.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged.
    """
    path = record.folder / TEXTS
    if not path.is_file():
        raise FileNotFoundError(f"expected {TEXTS} in {record.folder}, got no such file; {_AGAIN}.")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        samples = [_sample(line, record.num_steps) for line in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected texts, got {path}, which is damaged ({error}); {_AGAIN}.") from None
    if len(samples) != record.num_particles:
        raise ValueError(f"expected {record.num_particles} texts, got {len(samples)} in {path}; {_AGAIN}.")
    return samples


def _sample(line: Mapping[str, Any], num_steps: int) -> TextSample:
    words, steps, svg = line.get("pieces"), line.get("unmasked_at"), line.get("drawing")
    # As an image, so that nothing in it can run.
    image = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" if isinstance(svg, str) else None
    if not isinstance(words, list) or not isinstance(steps, list):
        return TextSample(str(line["text"]), [Piece(str(line["text"]), None, "")], image)
    pieces = [
        Piece(word, None if step < 0 else step / max(num_steps - 1, 1), "given" if step < 0 else f"step {step}")
        for word, step in zip(words, steps, strict=True)
        if word
    ]
    return TextSample(str(line["text"]), pieces, image)

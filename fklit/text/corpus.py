"""The text that the shipped models are trained on: modern English prose, public domain, from a package of Debian.

`python -m fklit.data fetch text` downloads `sword-text-web` (the World English Bible, edition of 2020, 4 MB), decodes
it and writes one clause a line, an empty line between chapters. The text is in the public domain; its name is a
trademark of eBible.org that must not be given to changed text: do not call what a model writes by it.
"""

import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from fklit.atomic import write_text_atomically
from fklit.data.checksums import Finding, compare
from fklit.text.debian import DebianPackage, fetch_package, unpack_package
from fklit.text.sword import Verse, read_module
from fklit.text.words import build_tokenizer, build_vocabulary, clauses, plain_spelling

PACKAGE = DebianPackage(
    "pool/main/s/sword-text-web/sword-text-web_426.0-1_all.deb",
    "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
)
_FOLDER = "usr/share/sword/modules/texts/ztext/engWEB2015eb"
VOCABULARY_SIZE = 8192
TRAIN, HELD_OUT, TOKENIZER = "train.txt", "held_out.txt", "tokenizer"
HOLD_OUT_EVERY = 20  # chapters


def chapter_clauses(verses: Iterable[Verse]) -> Iterator[tuple[str, list[str]]]:
    """The clauses of each chapter, in order.

    Args:
        verses: Of whole chapters.

    Yields:
        The chapter's name and its clauses.
    """
    for chapter, group in groupby(verses, lambda verse: verse.chapter):
        yield chapter, clauses(plain_spelling(" ".join(verse.text for verse in group)))


def split_chapters(chapters: Iterable[tuple[str, list[str]]]) -> tuple[list[list[str]], list[list[str]]]:
    """Chapters to train on and chapters held out: every 20th, whole ones, so that neighbors are not split.

    Args:
        chapters: Names and clauses, in order.

    Returns:
        Two lists of chapters.
    """
    filled = [lines for _, lines in chapters if lines]
    held_out = [lines for number, lines in enumerate(filled) if number % HOLD_OUT_EVERY == HOLD_OUT_EVERY // 2]
    return [lines for number, lines in enumerate(filled) if number % HOLD_OUT_EVERY != HOLD_OUT_EVERY // 2], held_out


def fetch_text(data_dir: str | Path = "data/text") -> None:
    """Fetches the package (unless it is there) and writes `train.txt`, `held_out.txt` and the folder `tokenizer`.

    Args:
        data_dir: Where to.

    Raises:
        RuntimeError: The mirror cannot be reached.
        ValueError: The package is not the pinned one.
    """
    root = Path(data_dir)
    package = fetch_package(PACKAGE, root)
    with tempfile.TemporaryDirectory() as scratch:
        unpack_package(package, scratch, below=_FOLDER)
        train, held_out = split_chapters(chapter_clauses(read_module(scratch)))
    for name, chapters in ((TRAIN, train), (HELD_OUT, held_out)):
        write_text_atomically(root / name, "\n\n".join("\n".join(lines) for lines in chapters) + "\n")
    vocabulary = build_vocabulary((line for lines in train for line in lines), VOCABULARY_SIZE)
    build_tokenizer(vocabulary).save_pretrained(root / TOKENIZER)


def verify_text(data_dir: Path) -> Iterator[Finding]:
    """Compares the package with its pinned checksum.

    Args:
        data_dir: Where `fetch_text` put it.
    """
    yield from compare(data_dir, {PACKAGE.name: PACKAGE.sha256}, "sha256")

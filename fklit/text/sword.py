"""Reading of SWORD modules in zText format with OSIS markup: the text of each verse, without notes and headings.

A testament `ot` or `nt` is three files. `.bzz` holds zlib blocks one after the other. `.bzs` says where each block is:
offset and length in `.bzz`, and its length unpacked, 3 little-endian uint32. `.bzv` has an entry for each verse and
each heading of a chapter or book, in order: block, offset and length in the unpacked block, 2 uint32 and a uint16.
"""

import html
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK, _ENTRY = struct.Struct("<III"), struct.Struct("<IIH")
_CHAPTER = re.compile(r'<chapter\b(?=[^>]*\bsID=)[^>]*\bosisID="([^"]+)"')
# Starts of books and of front matter; the end of a book stands in its last verse.
_HEADING = re.compile(r'<div\b(?=[^>]*\bsID=)[^>]*\btype="(?:book|front)"|subType="x-osis2mod"')
_END_OF_BOOK = re.compile(r'<div\b(?=[^>]*\beID=)[^>]*\btype="book"')
_LEFT_OUT = re.compile(r"<(note|title|speaker|rdg|catchWord)\b[^>]*(?<!/)>.*?</\1>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Verse:
    """One verse.

    Attributes:
        chapter: The chapter's name in OSIS, such as `Gen.1`.
        number: Its place in the chapter, from 1.
        text: Plain text in one line; it may be empty.
    """

    chapter: str
    number: int
    text: str


def read_module(folder: str | Path) -> Iterator[Verse]:
    """The verses of a module in order; prefaces and headings of books and chapters are left out.

    Args:
        folder: Where `ot.bzs`, `ot.bzv`, `ot.bzz` and those of `nt` are.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is truncated or of another format.
    """
    for testament in ("ot", "nt"):
        paths = [Path(folder) / f"{testament}.{ending}" for ending in ("bzs", "bzv", "bzz")]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"expected a SWORD module in zText format, got no {path}; fetch it again.")
        try:
            entries = list(_entries(*(path.read_bytes() for path in paths)))
        except (struct.error, zlib.error, IndexError, UnicodeDecodeError) as error:
            raise ValueError(
                f"expected a SWORD module in zText format, got {paths[2]}, which is truncated or another ({error}); "
                "fetch it again."
            ) from None
        yield from _verses(entries)


def plain_text(markup: str) -> str:
    """Text of an OSIS fragment in one line, without notes, titles and speakers.

    Args:
        markup: OSIS, an XML dialect.
    """
    # A note may stand for the space between two words, a tag never does.
    return " ".join(html.unescape(_TAG.sub("", _LEFT_OUT.sub(" ", markup))).split())


def _entries(blocks: bytes, entries: bytes, packed: bytes) -> Iterator[str]:
    unpacked = []
    for offset, length, size in _BLOCK.iter_unpack(blocks):
        unpacked.append(zlib.decompress(packed[offset : offset + length]))
        if len(unpacked[-1]) != size:
            raise IndexError(f"a block unpacks to {len(unpacked[-1])} bytes instead of {size}")
    for block, offset, length in _ENTRY.iter_unpack(entries):
        if offset + length > len(unpacked[block]):
            raise IndexError(f"an entry ends at {offset + length} of {len(unpacked[block])} bytes")
        yield unpacked[block][offset : offset + length].decode("utf-8")


def _verses(entries: list[str]) -> Iterator[Verse]:
    chapter, number = None, 0
    for markup in entries:
        if (found := _CHAPTER.search(markup)) is not None:
            chapter, number = found[1], 0
        elif _HEADING.search(markup):
            chapter = None
        elif chapter is not None:
            number += 1
            # The last verse of the last book goes on with a glossary.
            yield Verse(chapter, number, plain_text(_END_OF_BOOK.split(markup)[0]))

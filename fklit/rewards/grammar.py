"""How much of a sentence a grammar explains, by link-grammar."""

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fklit.checks import check_count
from fklit.rewards.optional import import_optional
from fklit.rewards.text_reward import OnEmpty, TextReward

_FIX = (
    "link-grammar is no package of PyPI: install Debian's python3-link-grammar and link-grammar-dictionaries-en, and "
    "make the virtual environment with --system-site-packages"
)


# A mark and what closes with it, before a space; where a quotation ends, "he said" may go on with the sentence.
_SENTENCE_END = re.compile(r"[.!?]+(?:(?=\s|$)|[\"'\u201d\u2019)]+(?=\s+[^\sa-z]|\s*$))")


class GrammarScore(TextReward):
    """Minus the share of words that link-grammar has to leave out to parse the sentences of a text, -1 to 0.

    0 means that the whole text parses; `AcceptanceRate(GrammarScore(), threshold=0.0)` is the share of such texts.
    Words are those that link-grammar counts, punctuation included. It sees word order and agreement, but not meaning
    (Sleator and Temperley 1991). A sentence ends at a full stop, a question mark or an exclamation mark before a space,
    also where that is an abbreviation.

    A text that could not be parsed is NaN: with a sentence of more than 254 words, or that takes over `max_seconds`.
    The latter depends on the machine, so keep the limit far from what sentences take (milliseconds).

    Args:
        language: Of a dictionary that is installed.
        trim: Whether to leave out what follows the last end of a sentence, such as one that the length of the text has
            cut; a text without an end is read whole.
        max_seconds: Most seconds a sentence, whole ones.
        max_left_out: Most words that a parse may leave out. A sentence that needs more counts as one that leaves out
            one word more than this. The parser tries 0, 1, 2, ... words in turn, so sentences that no grammar explains
            take most of the time: 4 scores what a text model writes seven times as fast. None for no limit.
        empty: What a text without words is: "error" refuses it by name, "nan" scores it NaN, for the method's `on_nan`.
        max_batch: Most texts at once; None for no limit.
    """

    typical_range = (-1.0, 0.0)
    suggested_scale = 10.0

    def __init__(
        self,
        language: str = "en",
        *,
        trim: bool = False,
        max_seconds: int = 10,
        max_left_out: int | None = None,
        empty: OnEmpty = "error",
        max_batch: int | None = None,
    ) -> None:
        super().__init__(empty=empty, max_batch=max_batch)
        self.language = language
        self.trim = trim
        self.max_seconds = check_count("max_seconds", max_seconds)
        self.max_left_out = None if max_left_out is None else check_count("max_left_out", max_left_out, minimum=0)
        self._library: Any = None
        self._dictionary: Any = None

    def build(self) -> None:
        """Loads the dictionary.

        Raises:
            ImportError: link-grammar is not installed.
            ValueError: There is no such dictionary.
        """
        self._library = import_optional("linkgrammar", owner="GrammarScore", fix=_FIX)
        try:
            self._dictionary = self._library.Dictionary(self.language)
        except self._library.LG_DictionaryError as error:
            raise ValueError(
                f"GrammarScore expected an installed dictionary, got language={self.language!r}; install "
                f"link-grammar-dictionaries-{self.language}, or give another one."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Without the dictionary, which copies read again: it lives in the memory of a C library."""
        return {**self.__dict__, "_library": None, "_dictionary": None, "_loaded": False}

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Scores (n,), float64."""
        return torch.tensor([self._of(text) for text in texts], dtype=torch.float64)

    def _of(self, text: str) -> float:
        parsed = [self._parse(sentence) for sentence in sentences(text, trim=self.trim)]
        left_out, words = sum(counts[0] for counts in parsed), sum(counts[1] for counts in parsed)
        return 0.0 - left_out / words

    def _parse(self, sentence: str) -> tuple[float, float]:
        """Words that are left out of a sentence, and all of its words; NaN if it could not be parsed."""
        library = self._library
        options = library.ParseOptions(
            # Without a limit more than there are words.
            max_null_count=len(sentence) + 2 if self.max_left_out is None else self.max_left_out,
            max_parse_time=self.max_seconds,
            linkage_limit=1,
            repeatable_rand=True,
            spell_guess=False,  # a word that it guesses at is not that of the text
        )
        read = library.Sentence(sentence.replace("\0", "\ufffd"), self._dictionary, options)  # C ends a text at 0
        try:
            linkages = read.parse()
        except library.LG_TimerExhausted:
            return math.nan, math.nan
        if not linkages:  # it could not be read
            return math.nan, math.nan
        if len(linkages) == 0:
            if self.max_left_out is None:
                return math.nan, math.nan
            words = len(read) - 2  # of its tokens, two are walls
            return float(min(self.max_left_out + 1, words)), float(words)
        # The walls before and after a sentence are no words of it, though it counts those that it leaves out.
        words = sum(1 for word in next(iter(linkages)).words() if word not in ("LEFT-WALL", "RIGHT-WALL"))
        return float(min(read.null_count(), words)), float(words)


def sentences(text: str, *, trim: bool = False) -> list[str]:
    """The sentences of a text with words, at least one.

    Args:
        text: The text.
        trim: Whether to leave out what follows the last end of a sentence, if there is one.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    rest = [] if trim and ends else [len(text)]
    cut = [text[first:last].strip() for first, last in pairwise([0, *ends, *rest])]
    return [sentence for sentence in cut if sentence]

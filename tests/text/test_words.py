"""Spelling, clauses and the tokenizer: texts of known words come back as they were."""

import pytest
from transformers import AutoTokenizer

from fklit.text.corpus import HOLD_OUT_EVERY, chapter_clauses, split_chapters
from fklit.text.sword import Verse
from fklit.text.words import (
    MASK,
    PAD,
    SPECIAL,
    START,
    UNKNOWN,
    build_tokenizer,
    build_vocabulary,
    clauses,
    plain_spelling,
)

TEXT = "He said, Let's go (now); the sons' wives — sixty-five — came! Why? Because: it was so."


def test_quotations_lose_their_marks_and_apostrophes_stay():
    left, right, opened, closed = "\u2018", "\u2019", "\u201c", "\u201d"
    written = f"He said, {opened}They say, {left}Don{right}t go.{right} The sons{right} wives—[all]  came.{closed}"
    assert plain_spelling(written) == "He said, They say, Don't go. The sons' wives — all came."


def test_clauses_keep_their_ends():
    assert clauses("One; two: three? Four! Five, six") == ["One;", "two:", "three?", "Four!", "Five, six"]


def test_vocabulary_is_by_frequency_then_alphabet():
    assert build_vocabulary(["b a, a", "c, a"], 7) == [*SPECIAL, "a", ",", "b"]
    with pytest.raises(ValueError, match="expected a vocabulary of 5 to 8 tokens, got 9"):
        build_vocabulary(["b a, a", "c, a"], 9)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(build_vocabulary([TEXT], 28)).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_texts_come_back(tokenizer):
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.decode(tokenizer(TEXT).input_ids, skip_special_tokens=True) == TEXT


def test_start_token_is_added_for_causal_models(tokenizer):
    assert tokenizer("He said").input_ids[0] == tokenizer.bos_token_id == 2
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == [PAD, UNKNOWN, START, MASK]
    assert tokenizer("He zigzagged", add_special_tokens=False).input_ids[1] == tokenizer.unk_token_id


def test_chapters_are_held_out_whole():
    verses = [Verse(f"X.{c}", v, f"Chapter {c}, verse {v}.") for c in range(45) for v in (1, 2)]
    train, held_out = split_chapters(chapter_clauses(verses))
    assert [lines[0] for lines in held_out] == [f"Chapter {c}, verse 1." for c in (10, 30)]
    assert len(train) == 43 and all(len(lines) == 2 for lines in train) and HOLD_OUT_EVERY == 20

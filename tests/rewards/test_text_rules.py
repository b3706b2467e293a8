"""Rewards of texts without networks: patterns, word lists, grammar. The libraries are stood in for where missing."""

import copy
import math
import sys
import types

import pytest
import torch

from fklit.rewards import (
    AFINNSentiment,
    Function,
    GrammarScore,
    GrammarTagger,
    ProfanityScore,
    RegexScore,
    RewardError,
    VADERSentiment,
    WeightedSum,
)
from fklit.rewards.continuation import split_prompt
from fklit.rewards.grammar import sentences
from fklit.rewards.testing import RewardTests

TEXTS = ["The king, the king.", "a queen", "KING", "", "kingdom of a king"]


class TestContract(RewardTests):
    def make_reward(self, max_batch=None):
        return RegexScore(r"\bking\b", output="count", max_batch=max_batch)

    def make_samples(self, count):
        return [f"{number} king " * number + "." for number in range(count)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [1, 0, 0, 0, 1]),
        ({"output": "count"}, [2, 0, 0, 0, 1]),
        ({"ignore_case": True}, [1, 0, 1, 0, 1]),
        ({"output": "count", "unwanted": True}, [-2, 0, 0, 0, -1]),
    ],
)
def test_patterns(arguments, expected):
    assert RegexScore(r"\bking\b", **arguments)(TEXTS).tolist() == expected


def test_patterns_that_match_nothing_count_and_wrong_ones_are_refused():
    assert RegexScore(r"\A\Z")(["", "a"]).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"expected a regular expression, got '\(' \(missing \), .*\); fix it"):
        RegexScore("(")


def test_functions_score_texts():
    assert Function(lambda texts: [len(text) for text in texts])(TEXTS).tolist() == [19, 7, 4, 0, 17]
    given = Function(lambda texts, prompts: [text.startswith(p) for text, p in zip(texts, prompts, strict=True)])
    assert given(["a b", "b"], ["a", "a"]).tolist() == [1, 0]
    half = WeightedSum([Function(lambda texts: [1.0] * len(texts)), RegexScore("a")], [1.0, 2.0])
    assert half(["a", "b"]).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("text", "prompt", "whole", "end"),
    [
        ("the king went", "the king", "the king went", 8),
        ("The  king, went", "the king ,", "The  king, went", 10),
        ("went", "the king", "the king went", 8),
        (" went", "the king", "the king went", 8),
        ("", "the king", "the king ", 8),
        ("the kingdom", "the king", "the king the kingdom", 8),
        ("the king", "the king", "the king", 8),
        ("a", "", "a", 0),
        ("Ünder", "ünder", "Ünder", 5),
    ],
)
def test_texts_are_split_behind_their_prompts(text, prompt, whole, end):
    assert split_prompt(text, prompt) == (whole, end)


@pytest.mark.parametrize(
    ("make", "module", "fix"),
    [
        (VADERSentiment, "vaderSentiment", "fklit.parts"),
        (AFINNSentiment, "afinn", "fklit.parts"),
        (ProfanityScore, "profanity_check", "fklit.parts"),
        (GrammarScore, "linkgrammar", "python3-link-grammar"),
        (GrammarTagger, "onnxruntime", "fklit.parts"),
    ],
)
def test_missing_packages_are_named_with_the_fix(monkeypatch, make, module, fix):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"{make.__name__} expected the package {module}, got .*{fix}") as caught:
        make().load()
    assert "\n" not in str(caught.value)


def test_vader_by_its_paper():
    """The examples that the package's documentation gives."""
    pytest.importorskip("vaderSentiment")
    scores = VADERSentiment()(
        ["VADER is smart, handsome, and funny.", "The book was good.", "Today SUX!", "a table", "Not bad at all"]
    )
    assert scores.tolist() == pytest.approx([0.8316, 0.4404, -0.5461, 0.0, 0.431], abs=1e-4)
    with pytest.raises(RewardError, match="VADERSentiment expected a text with words, got ''"):
        VADERSentiment()([""])


def test_afinn_by_hand():
    pytest.importorskip("afinn")
    texts = ["This is utterly excellent!", "a table", "a good day , a bad night"]  # 3; none; 3 - 3
    assert AFINNSentiment(output="sum")(texts).tolist() == [3, 0, 0]
    assert AFINNSentiment()(texts).tolist() == pytest.approx([3 / 4, 0, 0])


def test_profanity_of_its_package():
    pytest.importorskip("profanity_check")
    kept = ProfanityScore()(["you are a stupid idiot", "what a nice day"])
    said = ProfanityScore(unwanted=False)(["you are a stupid idiot", "what a nice day"])
    assert torch.allclose(kept.exp() + said.exp(), torch.ones(2, dtype=torch.float64))
    assert said[0] > math.log(0.9) and kept[1] > math.log(0.9)


def test_profanity_is_a_log_probability(monkeypatch):
    stand_in = types.SimpleNamespace(predict_prob=lambda texts: [{"a": 0.25, "b": 1.0, "c": 0.0}[t] for t in texts])
    monkeypatch.setitem(sys.modules, "profanity_check", stand_in)
    assert ProfanityScore()(["a", "b", "c"]).tolist() == [math.log(0.75), -math.inf, 0.0]
    assert ProfanityScore(unwanted=False)(["a", "b", "c"]).tolist() == [math.log(0.25), 0.0, -math.inf]


def stand_in_grammar(words, left_out):
    """What `linkgrammar` gives for a sentence of so many words, all but `left_out` of which fit."""

    class Sentence:
        def __init__(self, text, dictionary, options):
            assert dictionary == "en" and "\0" not in text and text.strip()

        def parse(self):
            row = ["LEFT-WALL", *["word"] * words, "RIGHT-WALL"]
            return [types.SimpleNamespace(words=lambda: iter(row))] if words else []

        def null_count(self):
            return left_out

    return types.SimpleNamespace(
        Dictionary=str,
        Sentence=Sentence,
        ParseOptions=lambda **options: options,
        LG_DictionaryError=ValueError,
        LG_TimerExhausted=TimeoutError,
    )


@pytest.mark.parametrize(
    ("words", "left_out", "expected"), [(4, 0, 0.0), (4, 1, -0.25), (1, 2, -1.0), (0, 0, math.nan)]
)
def test_grammar_is_minus_the_share_left_out(monkeypatch, words, left_out, expected):
    monkeypatch.setitem(sys.modules, "linkgrammar", stand_in_grammar(words, left_out))
    reward = GrammarScore(empty="nan").load()
    for one in (reward, copy.deepcopy(reward)):
        assert one(["a\0b", " "]).tolist() == pytest.approx([expected, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("text", "trim", "expected"),
    [
        ("He went. And he", False, ["He went.", "And he"]),
        ("He went. And he", True, ["He went."]),
        ('"Go!" he said.  Why? ', False, ['"Go!" he said.', "Why?"]),
        ("he said", True, ["he said"]),
        (" 3.5 kings ", False, ["3.5 kings"]),
        (".", True, ["."]),
        ("a... b?! c", True, ["a...", "b?!"]),
        ('"Go." The king', True, ['"Go."']),
        ("He said, “Go.” ", False, ["He said, “Go.”"]),
        ("go. he went", False, ["go.", "he went"]),
    ],
)
def test_sentences(text, trim, expected):
    assert sentences(text, trim=trim) == expected


def test_grammar_over_sentences(monkeypatch):
    library = stand_in_grammar(4, 1)
    monkeypatch.setitem(sys.modules, "linkgrammar", library)
    assert GrammarScore()(["a. b. c", "a"]).tolist() == [-3 / 12, -1 / 4]
    library.Sentence.parse = lambda self: []
    assert GrammarScore()(["a. b"]).isnan().all()

    def exhausted(self):
        raise TimeoutError

    library.Sentence.parse = exhausted
    assert GrammarScore()(["a. b"]).isnan().all(), "what took longer than max_seconds"


def test_grammar_with_a_limit_of_words_left_out(monkeypatch):
    """A sentence beyond the limit counts as one word more than it; one that could not be read is NaN as before."""
    library = stand_in_grammar(4, 1)
    monkeypatch.setitem(sys.modules, "linkgrammar", library)
    limited = GrammarScore(max_left_out=2).load()
    given = []
    monkeypatch.setattr(library, "ParseOptions", lambda **options: given.append(options["max_null_count"]))
    assert limited(["a"]).item() == -1 / 4 and given == [2]

    class Result:
        def __init__(self, read):
            self.read = read

        def __bool__(self):
            return self.read

        def __len__(self):
            return 0

    library.Sentence.__len__ = lambda self: 7  # of which two are walls
    library.Sentence.parse = lambda self: Result(True)
    assert limited(["a"]).item() == -3 / 5
    assert GrammarScore()(["a"]).isnan().all(), "no limit, and no parse"
    library.Sentence.parse = lambda self: Result(False)
    assert limited(["a"]).isnan().all()
    with pytest.raises(ValueError, match="max_left_out=-1 is too small"):
        GrammarScore(max_left_out=-1)


def test_a_limit_changes_nothing_below_it():
    pytest.importorskip("linkgrammar")
    texts = ["The cat sat on the mat.", "She have went to the school.", "Mat the window of out looked and the on sat."]
    free, limited = GrammarScore()(texts), GrammarScore(max_left_out=1)(texts)
    assert limited[0] == free[0] == 0 and limited[1] == free[1] and limited[2] > free[2]
    assert GrammarScore(max_left_out=1)(["word " * 300]).isnan().all()


def test_grammar_of_the_library():
    """Sentences and counts that a trial of link-grammar 5.12 gave."""
    pytest.importorskip("linkgrammar")
    scores = GrammarScore()([
        "The cat sat on the mat and looked out of the window.",
        "Mat the window of out looked and mat the on sat cat the.",
        "She have went to the school yesterday.",
    ])  # fmt: skip
    assert scores[0] == 0
    assert scores[1] == pytest.approx(-5 / 14)
    assert scores[2] < 0
    with pytest.raises(ValueError, match="GrammarScore expected an installed dictionary, got language='xx'; install"):
        GrammarScore("xx").load()

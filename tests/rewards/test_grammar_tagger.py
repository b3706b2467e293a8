"""The tagger of grammatical errors: its score by hand on a stand-in, and on its own weights where they are fetched."""

import copy
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from fklit.rewards import GrammarTagger, RewardError
from fklit.rewards.grammar_tagger import FILES
from fklit.rewards.testing import RewardTests

FETCHED = Path(__file__).parents[2] / "data" / "parts" / "grammar-tagger"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Tags `$KEEP` (the second) with a logit of the token's id, all others with 0."""

    class Session:
        def __init__(self, path, options, providers):
            assert Path(path).name == "tagger.onnx" and providers == ["CPUExecutionProvider"]

        def run(self, names, feed):
            ids = feed["input_ids"]
            assert feed["attention_mask"].tolist() == [[1] * ids.shape[1]]
            logits = np.zeros((1, ids.shape[1], 3), dtype=np.float32)
            logits[..., 1] = ids
            return [logits]

    runtime = types.SimpleNamespace(SessionOptions=types.SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    words = {word: number for number, word in enumerate(["<unk>", "a", "b", "##b", ".", "don't"])}
    Tokenizer(models.WordPiece(words, unk_token="<unk>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tag_vocab.json").write_text(json.dumps({"tags": ["$DELETE", "$KEEP", "$CASE"]}))
    (tmp_path / "tagger.onnx").write_bytes(b"")
    return tmp_path


def keep(number):
    return number - math.log(2 + math.exp(number))


class TestContract(RewardTests):
    @pytest.fixture(autouse=True)
    def place(self, folder):
        self.folder = folder

    def make_reward(self, max_batch=None):
        return GrammarTagger(str(self.folder), max_batch=max_batch)

    def make_samples(self, count):
        return ["a " * number + "bb." for number in range(count)]


def test_the_mean_over_first_tokens_of_words(folder):
    reward = GrammarTagger(str(folder))
    # "bb" is b and ##b, of which the first counts; sentences add up, and spaces do not matter.
    expected = [(keep(1) + keep(2) + keep(4)) / 3, (2 * keep(1) + 2 * keep(4)) / 4, keep(5)]
    assert reward(["a  bb.", "a. a.", "don't"]).tolist() == pytest.approx(expected, abs=1e-6)
    assert copy.deepcopy(reward)(["a"]).tolist() == pytest.approx([keep(1)], abs=1e-6)


def test_odd_inputs_give_one_line(folder):
    with pytest.raises(RewardError, match="GrammarTagger expected a text with words, got ' '"):
        GrammarTagger(str(folder))(["a", " "])
    assert GrammarTagger(str(folder), empty="nan")(["a", ""]).isnan().tolist() == [False, True]
    with pytest.raises(RewardError, match="expected sentences of at most 128 tokens, got 129 of 'a a"):
        GrammarTagger(str(folder))(["a " * 129])
    (folder / "tagger.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"GrammarTagger expected tagger\.onnx in .*, got no such file; run"):
        GrammarTagger(str(folder)).load()


@pytest.mark.skipif(not all((FETCHED / name).is_file() for name in FILES), reason="fetch text-parts brings it")
def test_wrong_forms_score_below_right_ones():
    pytest.importorskip("onnxruntime")
    scores = GrammarTagger(str(FETCHED))([
        "She went to school yesterday.", "She have went to the school yesterday.",
        "They were happy to see their friends.", "They was happy to see there friends.",
    ])  # fmt: skip
    assert scores[0] > -0.1 and scores[2] > -0.1 and scores[1] < -0.5 and scores[3] < -0.5

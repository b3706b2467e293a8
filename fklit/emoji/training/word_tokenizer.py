"""A tokenizer of whole words that knows those of the emoji prompts."""

import re
from typing import Any

from fklit.emoji.prompts import all_prompts
from fklit.metrics.geneval import TAGS


def scene_vocabulary(*, start: bool = False) -> dict[str, int]:
    """Every word of the prompts of the emoji scenes, in alphabetic order, among the special tokens.

    Args:
        start: With `<start>` among them.
    """
    texts = (prompt.text for tag in TAGS for prompt in all_prompts(tag))
    words = sorted({word for text in texts for word in re.findall(r"\w+", text)})
    # open_clip reads a caption at its largest token: the end must come last
    return {
        word: index
        for index, word in enumerate(["<pad>", "<unknown>", *(["<start>"] if start else []), *words, "<end>"])
    }


def word_tokenizer(vocabulary: dict[str, int]) -> Any:
    """A `transformers` tokenizer that splits at spaces and ends a text with `<end>`.

    Args:
        vocabulary: Number of each word, `<pad>`, `<unknown>` and `<end>` among them; with `<start>`, texts begin
            with it.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [name for name in ("<start>", "<end>") if name in vocabulary]
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>" if "<start>" in vocabulary else "$A <end>",
        special_tokens=[(name, vocabulary[name]) for name in special],
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unknown>", eos_token="<end>")

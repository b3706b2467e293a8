"""Words as tokens: plain spelling, splitting into clauses, and a tokenizer whose texts read as written."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

PAD, UNKNOWN, START, MASK = "<pad>", "<unk>", "<s>", "<mask>"
SPECIAL = (PAD, UNKNOWN, START, MASK)
PUNCTUATION = ",.;:?!()—"
# A single quotation mark that opens, and one that closes or is an apostrophe.
_OPENING, _CLOSING = "\u2018", "\u2019"
# What ends a clause.
_CLAUSE_END = re.compile(r"(?<=[.;:?!])\s+")
_QUOTES = str.maketrans("", "", '“”"[]{}¶\\')


def plain_spelling(text: str) -> str:
    """Text with straight apostrophes, without quotation marks and brackets, with single spaces.

    Quotation marks go because clauses of a quotation would be left with half of a pair; a single one that closes is
    told from an apostrophe by the one that opens it.

    Args:
        text: A chapter or another stretch whose quotations open and close in it.
    """
    parts, is_open = [], False
    for place, sign in enumerate(text):
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        if sign == _OPENING:
            is_open = True
        elif sign == _CLOSING and before.isalpha() and after.isalpha():
            parts.append("'")
        elif sign == _CLOSING and is_open:
            is_open = False
        elif sign == _CLOSING:  # of a possessive: the sons’ wives
            parts.append("'" if before.isalpha() else "")
        else:
            parts.append(sign)
    return " ".join("".join(parts).translate(_QUOTES).replace("—", " — ").split())


def clauses(text: str) -> list[str]:
    """The clauses of a text, each with the `.`, `;`, `:`, `?` or `!` that ends it.

    Args:
        text: In plain spelling.
    """
    return [clause for clause in _CLAUSE_END.split(text) if clause]


def words(text: str) -> Iterator[str]:
    """Words and punctuation marks of a text, as the tokenizer splits it.

    Args:
        text: In plain spelling.
    """
    for piece in text.split():
        yield from (part for part in re.split(f"([{re.escape(PUNCTUATION)}])", piece) if part)


def build_vocabulary(texts: Iterable[str], size: int) -> list[str]:
    """The special tokens and the most frequent words, in falling frequency (ties in alphabetic order).

    Args:
        texts: In plain spelling.
        size: Tokens in all.

    Raises:
        ValueError: There are fewer different words.
    """
    counts = Counter(word for text in texts for word in words(text))
    wanted = size - len(SPECIAL)
    if not 0 < wanted <= len(counts):
        raise ValueError(
            f"expected a vocabulary of {len(SPECIAL) + 1} to {len(counts) + len(SPECIAL)} tokens, got {size}; the "
            "texts have no more words."
        )
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [*SPECIAL, *(word for word, _ in ranked[:wanted])]


def build_tokenizer(vocabulary: list[str]) -> Any:
    """A transformers tokenizer over whole words; `save_pretrained` writes what `AutoTokenizer` reads.

    It adds `<s>` in front of a text, for causal language models. Decoding attaches punctuation, so that a text in plain
    spelling of known words comes back as it was.

    Args:
        vocabulary: Tokens in the order of their ids, the special ones first.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    split = pre_tokenizers.Split(Regex(f"[{re.escape(PUNCTUATION)}]"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A {START} $B", special_tokens=[(START, numbers[START])]
    )
    # Spaces between all tokens, then none before a closing mark or after an opening one.
    closing = [decoders.Replace(f" {mark}", mark) for mark in PUNCTUATION if mark not in "(—"]
    tokenizer.decoder = decoders.Sequence([
        decoders.WordPiece(prefix="##", cleanup=False),
        decoders.Fuse(),
        *closing,
        decoders.Replace("( ", "("),
    ])  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        mask_token=MASK,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )

"""Words of a prompt that a model of few words does not know, and would read as any other unknown word."""

import warnings
from typing import Any

_SHOWN = 5  # words that a message names


class UnknownWordsWarning(UserWarning):
    """A prompt has words that the reward's tokenizer does not know."""


def warn_of_unknown_words(tokenizer: Any, prompt: str, *, owner: str) -> None:
    """Warn of the words of a prompt that become the tokenizer's unknown token.

    Args:
        tokenizer: Of transformers; one that splits everything into known pieces never warns.
        prompt: The prompt.
        owner: Class name of the reward, for the message.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or unknown not in tokenizer(prompt).input_ids:
        return
    words = [word for word in dict.fromkeys(prompt.split()) if unknown in tokenizer(word).input_ids]
    named = ", ".join(map(repr, words[:_SHOWN])) + (" and others" if len(words) > _SHOWN else "")
    warnings.warn(
        f"{owner} expected words that its tokenizer knows, got {named or 'others'} in {prompt!r}; it reads them as one "
        "unknown word: use other words, or a model that knows these.",
        UnknownWordsWarning,
        stacklevel=2,
    )

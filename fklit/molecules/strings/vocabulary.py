"""Tokens of a conditioned molecule: conditions, symbols of SELFIES, and what fills up to a fixed length."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from fklit.molecules.strings.conditions import ANY, LEVELS, Conditions, token
from fklit.molecules.strings.symbols import to_smiles

PAD, MASK = "<pad>", "<mask>"
_KEY = "molecule_conditions"


def build_tokenizer(symbols: Sequence[str], conditions: Conditions, *, max_symbols: int) -> Any:
    """A transformers tokenizer: pad, mask, symbols, conditions. `save_pretrained` writes what `AutoTokenizer` reads.

    Args:
        symbols: Of SELFIES, such as `[C]`.
        conditions: What the tokens in front say; it is kept with the tokenizer.
        max_symbols: Places of a molecule, kept likewise.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [PAD, MASK, *symbols, *conditions.tokens]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=PAD))
    split = pre_tokenizers.Split(Regex(r"\[[^\]]*\]|<[^>]*>"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
    # A list: transformers sorts the keys of what it writes, and the order of the conditions counts.
    kept = {"edges": [[name, *edges] for name, edges in conditions.edges.items()], "max_symbols": max_symbols}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, mask_token=MASK, **{_KEY: kept})


class MoleculeVocabulary:
    """What the tokens of a model of molecules mean.

    A row is P conditions, then `max_symbols` places: symbols, and the pad token from the end of the molecule on.

    Args:
        tokenizer: As `build_tokenizer` makes it, or read from a folder.

    Raises:
        ValueError: It is a tokenizer of something else.
    """

    def __init__(self, tokenizer: Any) -> None:
        kept = tokenizer.init_kwargs.get(_KEY)
        if kept is None:
            raise ValueError(
                "expected a tokenizer of molecules with conditions, got another one; give the folder that "
                "`python -m fklit.data fetch moses` or a training wrote."
            )
        self.tokenizer = tokenizer
        self.conditions = Conditions({name: (low, mid) for name, low, mid in kept["edges"]})
        self.max_symbols = int(kept["max_symbols"])
        ids: dict[str, int] = tokenizer.get_vocab()
        self._words = {number: word for word, number in ids.items()}
        self._ids = ids
        self.pad, self.mask = ids[PAD], ids[MASK]
        names = self.conditions.names
        self.levels: Int64[Tensor, "P 4"] = torch.tensor(
            [[ids[token(name, level)] for level in (*LEVELS, ANY)] for name in names]
        )
        """Tokens of each property's levels, the last one "any"."""

    @property
    def prefix(self) -> int:
        """P, places of the conditions."""
        return len(self.levels)

    @property
    def length(self) -> int:
        """Places of a row."""
        return self.prefix + self.max_symbols

    def condition(self, prompt: str) -> Int64[Tensor, " P"]:
        """Tokens of the conditions of a prompt; see `Conditions.parse`."""
        words = zip(self.conditions.names, self.conditions.parse(prompt), strict=True)
        return torch.tensor([self._ids[token(name, level)] for name, level in words])

    def encode(self, symbols: Sequence[str]) -> list[int] | None:
        """Tokens of a molecule, filled up to `max_symbols`; None if it is longer or has a symbol of no token."""
        if len(symbols) > self.max_symbols or not all(symbol in self._ids for symbol in symbols):
            return None
        return [self._ids[symbol] for symbol in symbols] + [self.pad] * (self.max_symbols - len(symbols))

    def symbols(self, tokens: Sequence[int]) -> list[str] | None:
        """Symbols of a molecule; None if one follows a pad token, or a place holds anything else.

        Args:
            tokens: The `max_symbols` places, or fewer.
        """
        words = [self._words.get(number, "") for number in tokens]
        end = words.index(PAD) if PAD in words else len(words)
        well_formed = all(word.startswith("[") for word in words[:end]) and all(word == PAD for word in words[end:])
        return words[:end] if well_formed else None

    def smiles(self, tokens: Sequence[int]) -> str:
        """SMILES of a molecule; empty if it is malformed (see `symbols`) or has no atom."""
        symbols = self.symbols(tokens)
        return "" if symbols is None else to_smiles(symbols)

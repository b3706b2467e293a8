"""States of a chain of SELFIES: the last symbol, and whether it was an index."""

from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from fklit.molecules.strings.atom_counts import AtomCount, indices_after
from fklit.molecules.strings.vocabulary import MoleculeVocabulary


class ChainStates(NamedTuple):
    """All states of a vocabulary: (symbol, index symbols from it on), the end, and the start, which comes last.

    In SELFIES a branch or a ring says how many symbols after it are its index, whatever they would be elsewhere.

    Attributes:
        symbols: The n symbols in the order of their tokens; the end is symbol n.
        tokens: Token of each symbol and of the end, `(n + 1,)`.
        after: State after a state and a symbol, `(states, n + 1)`.
        emitted: Symbol of each state, `(states,)`; -1 of the start.
        is_index: Whether the symbol of a state is part of an index, `(states,)`.
    """

    symbols: list[str]
    tokens: Int64[Tensor, " m"]
    after: Int64[Tensor, "s m"]
    emitted: Int64[Tensor, " s"]
    is_index: Bool[Tensor, " s"]

    @classmethod
    def of(cls, vocabulary: MoleculeVocabulary) -> Self:
        """Those of a vocabulary."""
        ids: dict[str, int] = vocabulary.tokenizer.get_vocab()
        symbols = sorted((word for word in ids if word.startswith("[")), key=lambda word: ids[word])
        announced = [indices_after(symbol) for symbol in symbols]
        size, depth = len(symbols), 1 + max(announced, default=0)
        # Index symbols left for the next place: one fewer after one, otherwise those that a branch or ring announces
        left = [announced[at] if own == 0 else own - 1 for at in range(size) for own in range(depth)] + [0, 0]
        after = torch.tensor([[at * depth + role for at in range(size)] + [size * depth] for role in left])
        emitted = torch.tensor([at for at in range(size) for _ in range(depth)] + [size, -1])
        is_index = torch.tensor([own > 0 for _ in range(size) for own in range(depth)] + [False, False])
        return cls(symbols, torch.tensor([*(ids[word] for word in symbols), vocabulary.pad]), after, emitted, is_index)

    def places(self, vocab_size: int) -> Int64[Tensor, " v"]:
        """Symbol of each token, -1 of tokens that are none.

        Args:
            vocab_size: V.
        """
        found = torch.full((vocab_size,), -1)
        found[self.tokens] = torch.arange(len(self.tokens))
        return found

    def adds(self, count: AtomCount) -> Bool[Tensor, " s"]:
        """States that add one of the atoms that are counted."""
        named = torch.tensor([*(count.counts(symbol) for symbol in self.symbols), False, False])
        return named[self.emitted] & ~self.is_index

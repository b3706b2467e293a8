"""A Markov chain over the symbols of molecules, of which counts of atoms can be asked exactly.

Any masked model of the same symbols becomes one of molecules with given counts by a product with exponents 1, 1 and
-1: the model, the chain under the counts, the chain. `p_chain(x | counts) / p_chain(x)` is a constant where x meets the
counts and 0 elsewhere, whatever the chain: a better one makes the weights of `MaskedCorrector` more even.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Int64
from torch import Tensor

from fklit import assets
from fklit.atomic import write_json_atomically
from fklit.correctors.discrete import MaskedPath
from fklit.molecules.strings.atom_counts import AtomCount
from fklit.molecules.strings.chain_states import ChainStates
from fklit.molecules.strings.counted import CountedExpert
from fklit.molecules.strings.vocabulary import MoleculeVocabulary

CHAIN = "symbol_chain.json"


class SymbolChain:
    """Probabilities of the next symbol of SELFIES given the last one, and whether that was an index.

    ```python
    chain = SymbolChain.from_folder("fklit:molecules")
    sample_product(model, [""], counts=["O>=4", "heavy_atoms<=20"], chain=chain)
    ```

    Args:
        vocabulary: Of the model.
        transitions: How often each of the n symbols and the end followed each of the states of `ChainStates`,
            `(states, n + 1)`, as `fitted` counts.
        smoothing: Symbols by which each state is taken to have been followed besides, at the frequencies over all
            states, so that every text is possible.

    Raises:
        ValueError: The shape is another one, nothing was counted, or the smoothing is not above 0.
    """

    def __init__(
        self, vocabulary: MoleculeVocabulary, transitions: Int64[Tensor, "s m"], *, smoothing: float = 1.0
    ) -> None:
        self.vocabulary, self.transitions, self.smoothing = vocabulary, transitions, smoothing
        self.states = ChainStates.of(vocabulary)
        shape = self.states.after.shape
        if transitions.shape != shape or not smoothing > 0 or not bool(transitions.sum() > 0):
            raise ValueError(
                f"expected transitions of shape {tuple(shape)}, some above 0, and smoothing above 0, got shape "
                f"{tuple(transitions.shape)} and smoothing={smoothing}; use SymbolChain.fitted."
            )
        overall = transitions.sum(dim=0).double() + 1.0  # a symbol that was never seen, once
        weights = transitions.double() + smoothing * overall / overall.sum()
        law = weights / weights.sum(dim=1, keepdim=True)
        self._transition = torch.zeros(shape[0], shape[0], dtype=torch.float64).scatter_add_(1, self.states.after, law)

    @classmethod
    def fitted(cls, vocabulary: MoleculeVocabulary, tokens: Int64[Tensor, "n l"], *, smoothing: float = 1.0) -> Self:
        """Count the symbols of molecules.

        Args:
            vocabulary: Of the model.
            tokens: Molecules without conditions, such as `read_molecules(folder, "train").tokens`; the pad token from
                the end on.
            smoothing: See the class.

        Raises:
            ValueError: A token is none of a molecule.
        """
        states = ChainStates.of(vocabulary)
        places = states.places(1 + max(int(tokens.max()), int(states.tokens.max())))[tokens.long()]
        if bool((places < 0).any()):
            raise ValueError("expected tokens of symbols and pad, got others; give molecules without their conditions.")
        transitions = torch.zeros(states.after.shape, dtype=torch.int64)
        state = torch.full((len(tokens),), len(states.after) - 1)
        for column in places.T:
            transitions.index_put_((state, column), torch.ones_like(column), accumulate=True)
            state = states.after[state, column]
        return cls(vocabulary, transitions, smoothing=smoothing)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, or the chain that ships with a model.

        Args:
            folder: With the tokenizer of the model; or "fklit:molecules".

        Raises:
            FileNotFoundError: There is no chain.
            ValueError: It has other symbols than the tokenizer.
        """
        from transformers import AutoTokenizer

        root = assets.shipped(str(folder)) or Path(folder).expanduser()
        path = root / CHAIN
        if not path.is_file():
            raise FileNotFoundError(
                f"expected {path}, got no such file; write it by SymbolChain.fitted(vocabulary, tokens).save(folder)."
            )
        kept = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = MoleculeVocabulary(AutoTokenizer.from_pretrained(root))
        if kept["symbols"] != ChainStates.of(vocabulary).symbols:
            raise ValueError(f"expected {path} with the symbols of the tokenizer beside it, got others; fit it again.")
        return cls(vocabulary, torch.tensor(kept["transitions"]), smoothing=kept["smoothing"])

    def save(self, folder: str | Path) -> None:
        """Write the chain beside the tokenizer of its model.

        Args:
            folder: An existing one.
        """
        kept = {"symbols": self.states.symbols, "smoothing": self.smoothing, "transitions": self.transitions.tolist()}
        write_json_atomically(Path(folder) / CHAIN, kept)

    def expert(
        self, counts: Sequence[AtomCount | str] = (), *, vocab_size: int | None = None, error: float | None = None
    ) -> CountedExpert:
        """The law of the chain's molecules that meet all counts, as an expert of `MaskedCorrector`.

        Args:
            counts: Such as `["O>=4", "heavy_atoms<=20"]`; none for the chain itself.
            vocab_size: Of the model in the product; the tokenizer's if not given.
            error: Probability that a count is taken for met where it is not, or for not met where it is. Above 0, so
                that molecules that can meet it no longer have predictions, too. 1e-6 if not given, and less for
                counts that fewer than one of a hundred molecules of the chain meet: a 10,000th of their share.

        Raises:
            ValueError: A count is none, no molecule meets all counts, or the error is out of (0, 0.5).
        """
        known = 1 + max(self.vocabulary.tokenizer.get_vocab().values())
        return CountedExpert(
            self.states,
            self._transition[-1],
            self._transition,
            MaskedPath(mask=self.vocabulary.mask, length=self.vocabulary.max_symbols),
            [AtomCount.parse(one) if isinstance(one, str) else one for one in counts],
            vocab_size=known if vocab_size is None else max(vocab_size, known),
            error=error,
        )

"""A Markov chain of symbols under counts of atoms as a masked expert: exact predictions by forward-backward sums."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.correctors.discrete import MaskedPath
from fklit.molecules.strings.atom_counts import AtomCount
from fklit.molecules.strings.chain_states import ChainStates

_NEVER = -1e30  # log probability of what cannot be, as experts of networks have it
_NUMBERS = 2**24  # of the backward messages at once


class CountedExpert:
    """`p(symbol at a masked place | known symbols, counts)` of a chain; see `SymbolChain.expert`.

    A state of the chain is paired with the numbers of atoms so far, each up to the largest that its condition tells
    apart. Backward messages are the probability of what is known later and of the counts, forward ones that of what is
    known before; their product is the prediction (Rabiner 1989, equations 19 to 27).

    Args:
        states: Of the chain.
        initial: Probability of the first state, `(states,)`.
        transition: Of the next state, `(states, states)`.
        path: Of all experts of the model.
        counts: Conditions; none for the chain itself.
        vocab_size: V, tokens of the model.
        error: See `SymbolChain.expert`.

    Attributes:
        probability: That a molecule of the chain meets all counts.
        error: The one that is used.

    Raises:
        ValueError: The error is not in (0, 0.5), or no molecule meets all counts.
    """

    def __init__(
        self,
        states: ChainStates,
        initial: Float64[Tensor, " s"],
        transition: Float64[Tensor, "s s"],
        path: MaskedPath,
        counts: Sequence[AtomCount],
        *,
        vocab_size: int,
        error: float | None = None,
    ) -> None:
        if error is not None and not 0 < error < 0.5:
            raise ValueError(f"expected an error above 0 and below 0.5, got {error}; omit it for the usual one.")
        self.path: Any = path
        self._places, self._emitted = states.places(vocab_size), states.emitted
        self._initial, self._transition = initial, transition
        self._remembered: dict[tuple[int, ...], Tensor] = {}  # of the call before
        # Numbers so far of all conditions in one index, the first condition's most significant: after each state
        sizes = [count.most + 1 for count in counts]
        grid = torch.tensor(list(itertools.product(*map(range, sizes))), dtype=torch.int64)
        self._after = torch.zeros(len(initial), math.prod(sizes), dtype=torch.int64)
        met = torch.ones(math.prod(sizes), len(counts), dtype=torch.bool)
        for number, count in enumerate(counts):
            met[:, number] = torch.tensor([count.met(one) for one in grid[:, number].tolist()])
            more = (grid[:, number] + states.adds(count)[:, None].long()).clamp(max=count.most)
            self._after = self._after * sizes[number] + more
        self.probability = self._share(met.all(dim=1))
        if self.probability == 0:
            raise ValueError(
                f"expected counts that molecules of at most {path.length} of the model's symbols can meet, got "
                f"{', '.join(map(str, counts))}; change them."
            )
        self.error = min(1e-6, self.probability / 10_000) if error is None else error
        # Probability at the end that all conditions are taken for met
        self._accepted = torch.where(met, 1 - self.error, torch.tensor(self.error, dtype=torch.float64)).prod(dim=1)

    def _share(self, wanted: Bool[Tensor, " c"]) -> float:
        """Probability that a molecule of the chain ends with numbers that are wanted."""
        moved = self._after
        ahead = torch.zeros(moved.shape, dtype=torch.float64)
        ahead[:, 0] = self._initial
        ahead = torch.zeros_like(ahead).scatter_add_(1, moved, ahead)
        for _ in range(self.path.length - 1):
            ahead = torch.zeros_like(ahead).scatter_add_(1, moved, self._transition.T @ ahead)
        return float(ahead[:, wanted].sum())

    def log_probs(self, tokens: Int64[Tensor, "B K L"], t: float) -> Float64[Tensor, "B K L V"]:
        """Log probabilities of the clean tokens; -1e30 for those that cannot be.

        Texts of the call before are not computed again.

        Args:
            tokens: Symbols, pad and the mask.
            t: The time, on which nothing depends.

        Raises:
            ValueError: A token is none of a molecule.
        """
        rows, slots = torch.unique(tokens.flatten(0, 1), dim=0, return_inverse=True)
        places = self._places.to(tokens.device)[rows]
        masked = rows == self.path.mask
        if bool(((places < 0) & ~masked).any()):
            raise ValueError("expected tokens of symbols, pad and mask, got others; give molecules without conditions.")
        texts, known = [tuple(row) for row in rows.tolist()], self._remembered
        new = [at for at, text in enumerate(texts) if text not in known]
        chunk = max(1, _NUMBERS // (rows.shape[1] * self._after.numel()))
        pieces = zip(torch.split(places[new], chunk), torch.split(masked[new], chunk), strict=True)
        found = iter([one for piece in pieces for one in self._predictions(*piece)])
        predicted = [known[text] if text in known else next(found) for text in texts]
        self._remembered = dict(zip(texts, predicted, strict=True))
        of_symbols = torch.stack(predicted)[slots]
        return of_symbols[..., self._places.to(tokens.device)].view(*tokens.shape, -1)

    def _predictions(self, places: Int64[Tensor, "R L"], masked: Bool[Tensor, "R L"]) -> Float64[Tensor, "R L m"]:
        """Log probabilities of the symbols and of what is none."""
        device = places.device
        given = (self._initial, self._transition, self._after, self._accepted, self._emitted)
        initial, transition, after, accepted, emitted = (tensor.to(device) for tensor in given)
        rows, length = places.shape
        states, numbers = after.shape
        size = (states, rows, numbers)  # states come first, so that a transition is one product of matrices
        # Whether a state agrees with what is known at each place
        agrees = (masked.T[:, None, :] | (places.T[:, None, :] == emitted[:, None])).double()[..., None]
        moved = after[:, None, :].expand(size)
        back = [accepted.expand(size)]
        for place in range(length - 1, 0, -1):
            entered = back[-1].gather(2, moved) * agrees[place]
            back.append(_scaled((transition @ entered.view(states, -1)).view(size)))
        ahead = torch.zeros(size, dtype=torch.float64, device=device)
        ahead[:, :, 0] = initial[:, None]
        found = []
        for place in range(length):
            if place:
                ahead = (transition.T @ ahead.view(states, -1)).view(size)
            ahead = _scaled(torch.zeros_like(ahead).scatter_add_(2, moved, ahead) * agrees[place])
            found.append((ahead * back[length - 1 - place]).sum(dim=2))
        # From states to symbols
        shares = torch.stack(found)[:, :-1].permute(2, 0, 1)  # nothing enters the start
        symbols = torch.zeros(rows, length, int(emitted.max()) + 1, dtype=torch.float64, device=device)
        symbols.scatter_add_(2, emitted[:-1].expand(rows, length, -1), shares)
        logs = (symbols / symbols.sum(dim=2, keepdim=True)).log().clamp(min=_NEVER)
        return torch.cat([logs, torch.full_like(logs[..., :1], _NEVER)], dim=2)


def _scaled(messages: Float64[Tensor, "s R c"]) -> Float64[Tensor, "s R c"]:
    """Divided by the largest of each text: ratios alone count, and products of many would become too small."""
    return messages / messages.amax(dim=(0, 2), keepdim=True)

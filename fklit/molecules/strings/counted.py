"""A Markov chain of symbols under counts of atoms as a masked expert: exact predictions by forward-backward sums."""

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
        error: Probability that a condition is wrong about a molecule.

    Raises:
        ValueError: The error is not in (0, 0.5).
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
        error: float,
    ) -> None:
        if not 0 < error < 0.5:
            raise ValueError(f"expected an error above 0 and below 0.5, got {error}; 1e-6 is usual.")
        self.path: Any = path
        self._places, self._emitted = states.places(vocab_size), states.emitted
        self._initial, self._transition = initial, transition
        self._remembered: dict[tuple[int, ...], Tensor] = {}  # of the call before
        # Numbers so far of all conditions, as digits of one index: after a state that adds an atom, and at the end
        sizes = [count.most + 1 for count in counts]
        grid = torch.stack(torch.unravel_index(torch.arange(math.prod(sizes)), sizes), dim=1) if sizes else None
        self._after = torch.zeros(len(initial), math.prod(sizes), dtype=torch.int64)
        self._accepted = torch.ones(math.prod(sizes), dtype=torch.float64)
        for number, count in enumerate(counts):
            assert grid is not None
            met = torch.tensor([count.met(one) for one in grid[:, number].tolist()])
            self._accepted *= met.double() * (1 - 2 * error) + error
            more = (grid[:, number] + states.adds(count)[:, None].long()).clamp(max=count.most)
            self._after = self._after * sizes[number] + more

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
        texts = [tuple(row) for row in rows.tolist()]
        new = [at for at, text in enumerate(texts) if text not in self._remembered]
        chunk = max(1, _NUMBERS // (rows.shape[1] * self._after.numel()))
        pieces = zip(torch.split(places[new], chunk), torch.split(masked[new], chunk), strict=True)
        found = iter([one for piece in pieces for one in self._predictions(*piece)])
        self._remembered = {text: self._remembered[text] if text in self._remembered else next(found) for text in texts}
        of_symbols = torch.stack([self._remembered[text] for text in texts])[slots]
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

"""Predictions of a denoiser for particles: each different text once, in batches of one size, counted, and kept."""

import copy
from typing import Self

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.text.nelbo import MaskedDenoiser


class Predictions:
    """Log probabilities of masked positions that stay valid until a particle's tokens change.

    A tree of states may hold it: re-indexing moves places, not probabilities.

    Args:
        log_probs: (M, V) float64, normalized.
        place: (B, K, L) int64, the row of `log_probs` of each position, -1 where there is none.
    """

    def __init__(self, log_probs: Float64[Tensor, "M V"], place: Int64[Tensor, "B K L"]) -> None:
        self.log_probs, self.place = log_probs, place

    def selected(self, ancestors: Tensor) -> Self:
        """The predictions of the particles that descend from `ancestors` (B, K')."""
        other = copy.copy(self)
        index = ancestors.to(self.place.device)
        other.place = self.place[torch.arange(len(index), device=index.device)[:, None], index]
        return other

    @classmethod
    def nothing(cls, tokens: Int64[Tensor, "B K L"]) -> Self:
        """No predictions of these particles."""
        return cls(torch.zeros(0, 1, dtype=torch.float64, device=tokens.device), torch.full_like(tokens, -1))

    def joined(self, other: Self) -> Self:
        """The predictions of these particles followed by the other's."""
        moved = torch.where(other.place >= 0, other.place + len(self.log_probs), -1)
        rows = [part for part in (self.log_probs, other.log_probs) if len(part)]
        joined = copy.copy(self)
        joined.log_probs = torch.cat(rows) if rows else self.log_probs
        joined.place = torch.cat([self.place, moved], dim=1)
        return joined

    def kept(self, unchanged: Bool[Tensor, "B K"]) -> Self:
        """The predictions of particles whose tokens did not change."""
        other = copy.copy(self)
        other.place = self.place.masked_fill(~unchanged[..., None], -1)
        return other


class Denoising:
    """Asks a denoiser for log probabilities.

    Args:
        denoiser: What predicts; it may be stochastic in nothing.
        mask: Id of the mask, which is never predicted.
        never: Ids of other tokens that are not to be predicted.
        vocab_size: Tokens that there are: further logits, which some networks have as padding, are never predicted;
            None for as many as there are logits.
        temperature: Of the predictions, above 0: the model that is sampled has the law of `logits / temperature`.
        max_batch: Rows that the denoiser gets at once, in chunks filled up to exactly this size; None for all at once.

    Attributes:
        calls: Rows that the denoiser was asked for so far.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        denoiser: MaskedDenoiser,
        *,
        mask: int,
        never: tuple[int, ...] = (),
        vocab_size: int | None = None,
        temperature: float = 1.0,
        max_batch: int | None = None,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"expected temperature above 0, got {temperature}; give a number such as 0.8.")
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"expected max_batch of at least 1, got {max_batch}; give None for no limit.")
        self.denoiser, self.mask, self.never = denoiser, mask, tuple(never)
        self.vocab_size, self.temperature, self.max_batch = vocab_size, temperature, max_batch
        self.calls = 0

    @torch.no_grad()
    def ask(
        self, tokens: Int64[Tensor, "n l"], at: Bool[Tensor, "n l"]
    ) -> tuple[Float64[Tensor, "m v"], Int64[Tensor, "n l"]]:
        """Log probabilities of positions, once for copies of a text.

        Args:
            tokens: The texts.
            at: Masked positions of them.

        Returns:
            Log probabilities (m, v) float64, normalized, -inf for tokens that are excluded; and the row of them of each
            position (n, l), -1 where nothing was asked.

        Raises:
            ValueError: The denoiser returned another shape, or no number.
            TypeError: The denoiser returned no tensor.
        """
        rows = at.any(dim=1).nonzero().squeeze(1)
        # Copies of one text are asked for once, with all the positions that any of them needs.
        texts, which = torch.unique(tokens[rows], dim=0, return_inverse=True)
        needed = torch.zeros(texts.shape, dtype=torch.bool, device=tokens.device)
        needed.index_put_((which,), at[rows], accumulate=True)
        logits = self._logits(texts, needed)
        if logits.ndim != 2 or len(logits) != int(needed.sum()):
            raise ValueError(
                f"expected logits of {int(needed.sum())} positions from the denoiser, got {tuple(logits.shape)}; "
                "return those of tokens[at]."
            )
        if self.vocab_size is not None and logits.shape[1] < self.vocab_size:
            raise ValueError(
                f"expected logits of the tokenizer's {self.vocab_size} tokens from the denoiser, got "
                f"{logits.shape[1]}; give the tokenizer that it was trained with."
            )
        logits = logits.to(torch.float64) / self.temperature
        if self.vocab_size is not None:
            logits[:, self.vocab_size :] = -torch.inf
        logits[:, [self.mask, *self.never]] = -torch.inf
        found = torch.log_softmax(logits, dim=1)
        if bool(found.isnan().any()):
            raise ValueError(
                f"expected finite logits from {type(self.denoiser).__name__}, got NaN or infinities; check its weights "
                "and precision."
            )
        # From positions of different texts back to those of all rows.
        order = torch.full(texts.shape, -1, device=tokens.device)
        order[needed] = torch.arange(len(found), device=tokens.device)
        place = torch.full(tokens.shape, -1, device=tokens.device)
        place[rows] = order[which].masked_fill(~at[rows], -1)
        return found, place

    def log_probs(self, tokens: Int64[Tensor, "n l"], at: Bool[Tensor, "n l"]) -> Float64[Tensor, "m v"]:
        """Log probabilities of the m positions `tokens[at]`; see `ask`."""
        found, place = self.ask(tokens, at)
        return found[place[at]]

    def predict(self, tokens: Int64[Tensor, "B K L"]) -> Predictions:
        """Predictions at all masked positions.

        Args:
            tokens: The particles.
        """
        flat = tokens.flatten(0, 1)
        at = flat == self.mask
        if not bool(at.any()):
            return Predictions.nothing(tokens)
        found, place = self.ask(flat, at)
        return Predictions(found, place.view(tokens.shape))

    def _logits(self, texts: Tensor, at: Tensor) -> Tensor:
        self.calls += len(texts)
        if self.max_batch is None:
            return self._asked(texts, at)
        parts = []
        for some, where in zip(torch.split(texts, self.max_batch), torch.split(at, self.max_batch), strict=True):
            # Rows are filled up with copies that nothing is asked of: kernels round by the size of the batch.
            missing = self.max_batch - len(some)
            filled = torch.cat([some, some[-1:].expand(missing, -1)])
            parts.append(self._asked(filled, torch.cat([where, torch.zeros_like(where[:1]).expand(missing, -1)])))
        return torch.cat(parts)

    def _asked(self, texts: Tensor, at: Tensor) -> Tensor:
        logits: object = self.denoiser(texts, at)
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"expected a tensor of logits from {type(self.denoiser).__name__}, got {type(logits).__name__}; return "
                "those of tokens[at]."
            )
        return logits

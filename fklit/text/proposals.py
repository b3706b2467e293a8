"""From what law the unmasked tokens of a step are drawn."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor


class TokenProposal(ABC):
    """The law of the tokens of a step, position by position, given which positions are unmasked.

    Positions are unmasked as in the base model, so the importance ratio is the sum of `log p - log q` over the tokens
    drawn.
    """

    @abstractmethod
    def log_probs(
        self,
        base: Float64[Tensor, "m v"],
        tokens: Int64[Tensor, "B K L"],
        at: Bool[Tensor, "B K L"],
        predicted: Callable[[], Float64[Tensor, "B K L v"]],
    ) -> Float64[Tensor, "m v"]:
        """Log probabilities q of the tokens, normalized.

        Args:
            base: Those of the model at the m positions.
            tokens: Before the step.
            at: The m positions.
            predicted: Gives the model's log probabilities at all positions, 0 at the token of a position that is not
                masked; it costs one denoiser call for each particle whose predictions are not at hand.
        """


class TiltedProposal(TokenProposal):
    """`q(v) ~ p(v) exp(tilt(v))` at each position: for rewards that are sums over positions, the optimal proposal.

    Args:
        tilt: Function of the tokens (B, K, L) before the step and the model's log probabilities (B, K, L, V) there; it
            returns `scale * reward` of each token at each position, (B, K, L, V) or what broadcasts to it. Any finite
            values leave the target exact, good ones make the weights vary less.
    """

    def __init__(self, tilt: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.tilt = tilt

    def log_probs(
        self,
        base: Float64[Tensor, "m v"],
        tokens: Int64[Tensor, "B K L"],
        at: Bool[Tensor, "B K L"],
        predicted: Callable[[], Float64[Tensor, "B K L v"]],
    ) -> Float64[Tensor, "m v"]:
        """The tilted law."""
        known = predicted()
        tilt = self.tilt(tokens, known).to(known).expand(known.shape)[at]
        if not bool(torch.isfinite(tilt[base > -torch.inf]).all()):
            raise ValueError(
                "expected a finite tilt of every token, got NaN or infinities; a token that is excluded has no ratio."
            )
        return torch.log_softmax(base + torch.where(base > -torch.inf, tilt, 0.0), dim=1)

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


class GradientProposal(TiltedProposal):
    """`q(v) ~ p(v) exp(df/dp(v))` at each position: the first-order tilt for rewards that are differentiable.

    A differentiable `f` of the predicted probabilities stands for the log of what the finished text is worth, `scale *
    reward`. Taking token v at a position changes it by its derivative there, to first order: the counterpart for tokens
    of the gradient proposal of Singhal et al. 2025. The importance ratio makes the target exact whatever `f` is.

    Args:
        log_value: Function of probabilities (n, L, V), 1 at the token of a position that is not masked, that returns
            `scale * reward` of each, (n,); differentiable.
        largest: Bound on the tilt's spread at a position in nats: larger ones are shrunk, so that no token of the
            target is lost for good; above 0.

    Raises:
        ValueError: `largest` is not above 0.
    """

    def __init__(self, log_value: Callable[[Tensor], Tensor], *, largest: float = 20.0) -> None:
        if not largest > 0:
            raise ValueError(f"expected largest above 0, got {largest}; give nats such as 20.")
        self.log_value, self.largest = log_value, largest
        super().__init__(self._gradient)

    def _gradient(self, tokens: Tensor, log_probs: Tensor) -> Tensor:
        """Derivatives (B, K, L, V) of the value with respect to the probabilities."""
        with torch.inference_mode(False), torch.enable_grad():
            probabilities = log_probs.exp().flatten(0, 1).clone().requires_grad_()
            values = self.log_value(probabilities)
            if values.shape != probabilities.shape[:1] or not values.requires_grad:
                raise ValueError(
                    f"expected {len(probabilities)} differentiable values, got {tuple(values.shape)} with "
                    f"requires_grad={values.requires_grad}; return one number a row, by torch operations."
                )
            (found,) = torch.autograd.grad(values.sum(), probabilities)
        # Constants at a position cancel: the tilt is centered, and shrunk where its spread is too large to be trusted.
        centered = found - (found * probabilities.detach()).sum(dim=-1, keepdim=True)
        spread = centered.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
        return (centered * (self.largest / spread).clamp(max=1.0)).view(log_probs.shape)

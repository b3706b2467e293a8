"""Laws of a whole step, of which places are unmasked and to what, among them the optimal one of an enumerable step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.feynman_kac import Generators
from fklit.feynman_kac.randomness import uniforms

_LARGEST = 100_000


class StepProposal(ABC):
    """The law of a whole step: places and tokens together.

    A `TokenProposal` decides tokens one by one, given the places; what a reward thinks of them together needs this.
    """

    @abstractmethod
    def draw(
        self, tokens: Int64[Tensor, "B K L"], transition: Float64[Tensor, "B K L V"], t: int, generator: Generators
    ) -> tuple[Int64[Tensor, "B K L"], Float64[Tensor, "B K"]]:
        """The tokens after a step, and their log probability under the law that they were drawn from.

        Args:
            tokens: Before the step.
            transition: The model's log probabilities of each position's token after the step, see
                `transition_log_probs`; it is a product law over positions.
            t: The step.
            generator: As given to `run`.
        """


class TwistedProposal(StepProposal):
    """The optimal proposal `q(x') ~ p(x' | x) exp(log_value(x', t))`, by enumeration of all that a step may lead to.

    With the exact value `log E[exp(scale r(x_0)) | x_{t + 1}]` every weight is Z (Del Moral 2004;
    Singhal et al. 2025). It is for spaces that can be enumerated, to check others against.

    Args:
        log_value: Function of texts (n, L) after a step and of the step t that returns (n,), `-inf` for what must not
            be.
        vocabulary: Ids of the tokens that may come, the mask among them.

    Raises:
        ValueError: A step may lead to more than 100,000 texts a particle (in `draw`).
    """

    def __init__(self, log_value: Callable[[Tensor, int], Tensor], vocabulary: tuple[int, ...]) -> None:
        self.log_value, self.vocabulary = log_value, tuple(vocabulary)

    def draw(
        self, tokens: Int64[Tensor, "B K L"], transition: Float64[Tensor, "B K L V"], t: int, generator: Generators
    ) -> tuple[Int64[Tensor, "B K L"], Float64[Tensor, "B K"]]:
        """Places and tokens by their joint law."""
        length = tokens.shape[2]
        if len(self.vocabulary) ** length > _LARGEST:
            raise ValueError(
                f"expected at most {_LARGEST} texts to enumerate, got {len(self.vocabulary)} ** {length}; give shorter "
                "texts, or another proposal."
            )
        ids = torch.tensor(self.vocabulary, device=tokens.device)
        texts = torch.cartesian_prod(*[ids] * length).view(-1, length)
        # log p(x' | x) of every text, by adding up positions, with what it is worth.
        log_p = sum(transition[:, :, place, texts[:, place]] for place in range(length))
        assert isinstance(log_p, Tensor)
        joint = log_p + self.log_value(texts, t).to(log_p)
        if bool((joint.amax(dim=2) == -math.inf).any()):
            raise ValueError("expected a text of positive value after each step, got none; check log_value.")
        law = torch.log_softmax(joint, dim=2)
        edges = law.exp().cumsum(dim=2)
        points = uniforms(generator, (*tokens.shape[:2], 1), device=tokens.device) * edges[..., -1:]
        which = torch.searchsorted(edges, points, right=True)
        # Rounding may reach the sum itself: then it is the last text of positive probability.
        which = torch.minimum(which, (edges < edges[..., -1:]).sum(dim=2, keepdim=True))
        return texts[which.squeeze(2)], law.gather(2, which).squeeze(2)

"""A masked model as an expert of the discrete correctors: temperatures, products and guidance with exact weights."""

from typing import Any

from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.text.ancestral import AncestralModel, TextState
from fklit.text.denoising import Denoising
from fklit.text.noise_schedule import LogLinearSchedule

_NEVER = -1e30  # log probability of what cannot be


class TextExpert:
    """What `fklit.correctors.MaskedCorrector` asks of an expert.

    Args:
        denoising: Predicts; experts of one target share the vocabulary and exclude the same tokens.
        path: A `fklit.correctors.MaskedPath` with the same mask.

    Raises:
        ValueError: The masks differ.
    """

    def __init__(self, denoising: Denoising, path: Any) -> None:
        if path.mask != denoising.mask:
            raise ValueError(
                f"expected a path with the model's mask {denoising.mask}, got {path.mask}; make it with that one."
            )
        self.denoising, self.path = denoising, path

    def log_probs(self, tokens: Int64[Tensor, "B K L"], t: float) -> Float64[Tensor, "B K L V"]:
        """Log probabilities of the clean tokens, 0 at the token of a position that is not masked.

        A token of no probability has -1e30 and not -inf, of which multiples could not be subtracted.

        Args:
            tokens: In which the mask marks masked positions.
            t: The time, which the model is not told.
        """
        model = AncestralModel(self.denoising, tokens[:, 0], num_steps=1, schedule=LogLinearSchedule())
        return model.log_probs(TextState(tokens, self.denoising.predict(tokens))).clamp(min=_NEVER)

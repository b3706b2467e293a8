"""A masked model as an expert of the discrete correctors: temperatures, products and guidance with exact weights."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.text.ancestral import AncestralModel, TextState
from fklit.text.denoising import Denoising
from fklit.text.noise_schedule import LogLinearSchedule
from fklit.text.remembered import RememberedPredictions

_NEVER = -1e30  # log probability of what cannot be


class TextExpert:
    """What `fklit.correctors.MaskedCorrector` asks of an expert.

    Experts of one `denoising` under several conditions are asked in one call, and for the texts that have changed since
    the step before.

    Args:
        denoising: Predicts; experts of one target share the vocabulary and exclude the same tokens.
        path: A `fklit.correctors.MaskedPath` with the same mask.
        given: (P,) int64, tokens in front of every text, which this expert sees and the path does not have: its
            condition. None for none.

    Raises:
        ValueError: The masks differ, or a given token is the mask.
    """

    def __init__(self, denoising: Denoising, path: Any, *, given: Int64[Tensor, " P"] | None = None) -> None:
        if path.mask != denoising.mask:
            raise ValueError(
                f"expected a path with the model's mask {denoising.mask}, got {path.mask}; make it with that one."
            )
        self.given = torch.zeros(0, dtype=torch.int64) if given is None else given
        if bool((self.given == denoising.mask).any()):
            raise ValueError(f"expected given tokens other than the mask, got {self.given.tolist()}; give a condition.")
        self.denoising, self.path = denoising, path
        self._remembered = RememberedPredictions(denoising)

    @property
    def shared(self) -> Any:
        """What experts that are asked together have in common."""
        return (id(self.denoising), len(self.given))

    def log_probs(self, tokens: Int64[Tensor, "B K L"], t: float) -> Float64[Tensor, "B K L V"]:
        """Log probabilities of the clean tokens, 0 at the token of a position that is not masked.

        A token of no probability has -1e30 and not -inf, of which multiples could not be subtracted.

        Args:
            tokens: In which the mask marks masked positions.
            t: The time, which the model is not told; a run goes down.
        """
        return self.joint_log_probs([self], tokens, t)[0]

    def joint_log_probs(
        self, experts: Sequence[Any], tokens: Int64[Tensor, "B K L"], t: float
    ) -> list[Float64[Tensor, "B K L V"]]:
        """`log_probs` of experts that differ in what is given alone, in one call of the denoiser.

        Args:
            experts: Text experts with the same `shared`.
            tokens: As in `log_probs`.
            t: The time.
        """
        groups, particles, _ = tokens.shape
        # A group for each expert and group: what is given stands in front.
        fronts = [one.given.to(tokens.device).expand(groups, particles, -1) for one in experts]
        whole = torch.cat([torch.cat([front, tokens], dim=2) for front in fronts])
        model = AncestralModel(self.denoising, whole[:, 0], num_steps=1, schedule=LogLinearSchedule())
        found = model.log_probs(TextState(whole, self._remembered.predict(whole, t))).clamp(min=_NEVER)
        return [*torch.split(found[:, :, len(self.given) :], groups)]

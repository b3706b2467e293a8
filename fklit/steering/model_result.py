"""The result of a steered run of a model that owns its steps."""

from dataclasses import dataclass, field
from typing import Any

from fklit.sampling.result import pil_images
from fklit.steering.result import SteeringResult


@dataclass(frozen=True, kw_only=True)
class ModelSteeringResult(SteeringResult):
    """What `fklit.steer` returns for a model that owns its steps.

    `samples` is the tensor (B, K, ...) that the model gives, such as tokens; `items`, `best()` and `sample(n)` give
    what the reward scored, such as texts.

    Attributes:
        made: B lists of K samples as the reward takes them.
        kind: The modality.
        predictions: Texts only: S lists of B lists of K, one of the clean texts that each particle predicted at each
            scored step, in the slots before the step's resampling; None if not kept (`previews=False`).
        details: B lists of what is known of each of the K samples, such as the step that unmasked each token; None if
            the model says nothing, or with `previews=False`.
    """

    made: list[list[Any]] = field(repr=False)
    kind: str
    predictions: list[list[list[str]]] | None = field(default=None, repr=False)
    details: list[list[dict[str, Any]]] | None = field(default=None, repr=False)

    @property
    def modality(self) -> Any:
        """What the samples are."""
        return self.kind

    @property
    def items(self) -> list[list[Any]]:
        """B lists of K samples in slot order; pictures as PIL images."""
        return pil_images(self.samples) if self.kind == "image" else self.made

    def record(self, b: int) -> dict[str, Any]:
        """Everything about prompt b, JSON-able; of samples that are no texts not the samples."""
        predictions = None if self.predictions is None else [rows[b] for rows in self.predictions]
        return {**super().record(b), "predictions": predictions}

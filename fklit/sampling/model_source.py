"""Where a model that owns its steps comes from, for tasks: the counterpart of `PipelineSource`."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import nn


class ModelSource(nn.Module, ABC):
    """A model with a method `steering_model` that is loaded by `load`, and moves with the module that holds this one.

    A subclass says in `build` how the model is made, and in `settings` what determines its weights.

    Attributes:
        modality: What the model makes, such as "text".
    """

    modality: str

    def __init__(self) -> None:
        super().__init__()
        self._model: Any = None

    @abstractmethod
    def build(self) -> Any:
        """Make the model on the CPU; its networks may be attributes of this module, to move with it."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What determines the weights, for a hash: JSON-able, the content of files and not their place."""

    @property
    def pipeline(self) -> Any:
        """The model, loaded now if it was not; named as that of `PipelineSource`, whose place it takes."""
        self.load()
        return self._model

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def load(self) -> Self:
        """Loads the model; calling it again does nothing. The global random state is as before.

        Returns:
            The source itself.
        """
        if self._model is None:
            # Weights that are made in inference mode (Lightning's default for predict) could never carry gradients.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                self._model = self.build()
        return self

    def enable_offload(self, device: torch.device | str) -> None:
        """Does nothing: the model moves with the module that holds this one.

        Args:
            device: Where to compute.
        """

    def train(self, mode: bool = True) -> Self:
        """Does nothing: the model stays in evaluation mode inside a module that is trained."""
        return super().train(False)

"""A trained denoiser as an expert, by the path of its weights: what a YAML file can name."""

from functools import cached_property

from torch import Tensor

from fklit.correctors.targets.denoiser_base import Denoiser
from fklit.correctors.targets.paths.noise_path import NoisePath
from fklit.correctors.targets.score_model import ModelExpert, ScoreModel


class TrainedExpert:
    """A denoiser that `fklit fit` trained with `ScoreModelTask`, on any noise path.

    ```yaml
    target:
      class_path: fklit.Target.annealed
      init_args:
        model:
          class_path: fklit.correctors.TrainedExpert
          init_args: {checkpoint: outputs/score_model/folder, path: {class_path: fklit.correctors.EDM}}
        beta: 2.5
    ```

    The weights are read when they are first needed, and follow the device of the samples. A network of another kind is
    an expert by a class of your own with a `path`, an `event_shape` and `score(x, t)`; see `Expert` and `ScoreModel`.

    Args:
        checkpoint: The folder that the task exported, or a `.ckpt` of it. Averaged weights where they were averaged.
        path: The noise path to sample on.
        max_batch: Most rows of one call of the network; None for no limit.

    Raises:
        ValueError: If `max_batch` is below 1.
        FileNotFoundError: At the first use, if there are no weights.
    """

    def __init__(self, checkpoint: str, path: NoisePath, *, max_batch: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.path = path
        self.max_batch = max_batch
        self._model = ScoreModel(self._denoised, path, prediction="edm", max_batch=max_batch)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (self.denoiser.dim,)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The network."""
        return Denoiser.load(self.checkpoint).requires_grad_(False)

    @cached_property
    def _expert(self) -> ModelExpert:
        return self._model.given()

    def score(self, x: Tensor, t: float) -> Tensor:
        """Return the score at x, (B, K, d)."""
        return self._expert.score(x, t)

    def _denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        found: Tensor = self.denoiser.to(x.device)(x, sigma)
        return found

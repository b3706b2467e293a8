"""A model of molecules for tasks and configurations, by folder."""

from pathlib import Path
from typing import Any

from torch import nn

from fklit import assets
from fklit.fingerprint import fingerprint
from fklit.molecules.strings.model import MoleculeModel
from fklit.sampling.model_source import ModelSource
from fklit.text.steered_text import TextSampling


class MoleculeSource(ModelSource):
    """A masked diffusion model over molecules for `SteeringTask`; prompts are conditions such as "qed=high sa=low".

    ```yaml
    source:
      class_path: fklit.molecules.MoleculeSource
      init_args: {path: 'fklit:molecules'}
    ```

    Args:
        path: A folder that `fklit fit --config configs/assets/molecules.yaml` exported, or a model that ships by name.
        num_steps: T, steps from masks to molecules.
        temperature: Of the predictions, above 0.
        num_draws: N, molecules drawn of each particle where a reward scores on the way.
    """

    modality = "text"

    def __init__(self, path: str, *, num_steps: int = 48, temperature: float = 1.0, num_draws: int = 4) -> None:
        super().__init__()
        self.path = path
        self.sampling = TextSampling(num_steps=num_steps, temperature=temperature, num_draws=num_draws)
        self.network: nn.Module | None = None

    def build(self) -> MoleculeModel:
        """Read the model."""
        model = MoleculeModel.from_folder(assets.shipped(self.path) or self.path)
        length = {"length": model.vocabulary.length}
        model.sampling = self.sampling.changed(length)
        if isinstance(model.denoiser, nn.Module):
            self.network = model.denoiser  # a child: it moves with this module
        return model

    def settings(self) -> dict[str, Any]:
        """What determines the weights and how molecules are sampled."""
        where = Path(assets.shipped(self.path) or self.path).expanduser()
        origin: dict[str, Any] = {"content": fingerprint(where)} if where.is_dir() else {"path": self.path}
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            **origin,
            "sampling": repr(self.sampling),
        }

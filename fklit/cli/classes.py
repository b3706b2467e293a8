"""Classes that a configuration may name by their short names: those of fklit that are imported."""

import importlib
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule

from fklit.metrics import SampleMetric
from fklit.pipelines.source import PipelineSource
from fklit.rewards import Reward
from fklit.sampling.model_source import ModelSource

# A class that is imported may be named by its short name.
_MODULES = (
    "fklit.callbacks",
    "fklit.correctors.guidance.task",
    "fklit.correctors.simulation.task",
    "fklit.correctors.targets.score_model_task",
    "fklit.data",
    "fklit.emoji",
    "fklit.emoji.training.autoencoder",
    "fklit.emoji.training.clip",
    "fklit.emoji.training.detector",
    "fklit.emoji.training.text_to_image",
    "fklit.eqprop.training.backprop",
    "fklit.eqprop.training.task",
    "fklit.steering.gradient_proposal",
    "fklit.steering.task",
    "fklit.text",
)
for _module in _MODULES:
    importlib.import_module(_module)


def short_names() -> list[str]:
    """Names of the classes of models, data, callbacks, rewards, metrics and sources that are imported."""

    def below(kind: type[Any]) -> list[str]:
        subclasses: list[type[Any]] = kind.__subclasses__()
        return [kind.__name__, *(name for sub in subclasses for name in below(sub))]

    kinds = (LightningModule, LightningDataModule, Callback, Reward, SampleMetric, PipelineSource, ModelSource)
    return sorted({name for kind in kinds for name in below(kind) if not name.startswith("_")})

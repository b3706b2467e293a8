"""Classes that a configuration may name by their short names: those of fklit that are imported."""

from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule

import fklit.callbacks
import fklit.correctors.guidance.task
import fklit.correctors.simulation.task
import fklit.correctors.targets.score_model_task
import fklit.data
import fklit.emoji.training.autoencoder
import fklit.emoji.training.clip
import fklit.emoji.training.detector
import fklit.emoji.training.text_to_image
import fklit.eqprop.task
import fklit.steering.task  # noqa: F401  (imported for their classes)
from fklit.pipelines.source import PipelineSource
from fklit.rewards import Reward


def short_names() -> list[str]:
    """Names of the classes of models, data, callbacks, rewards and pipeline sources that are imported."""

    def below(kind: type[Any]) -> list[str]:
        subclasses: list[type[Any]] = kind.__subclasses__()
        return [kind.__name__, *(name for sub in subclasses for name in below(sub))]

    kinds = (LightningModule, LightningDataModule, Callback, Reward, PipelineSource)
    return sorted({name for kind in kinds for name in below(kind) if not name.startswith("_")})

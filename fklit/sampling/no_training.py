"""Lightning modules that sample with fixed weights: `predict`, `validate` and `test` work, `fit` is refused."""

from collections.abc import Mapping
from typing import Any, NoReturn

from lightning.pytorch import LightningModule
from torch import nn


class NoTraining(LightningModule):
    """A base of tasks that train nothing; a checkpoint of one holds hyperparameters and no weights."""

    def setup(self, stage: str) -> None:
        """Refuse `fit` before any data is read.

        Raises:
            ValueError: For this stage.
        """
        if stage == "fit":
            self._refuse()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"expected `predict`, `validate` or `test` with {type(self).__name__}, which trains nothing, got `fit`; "
            "`predict` writes samples, `validate` and `test` report metrics."
        )

    # Lightning asks for these methods, or complains in words of its own, before it calls `setup`.
    training_step = _refuse
    configure_optimizers = _refuse

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return an empty dictionary: pretrained weights are on disk already."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load nothing; see `state_dict`."""
        return nn.Module().load_state_dict({})

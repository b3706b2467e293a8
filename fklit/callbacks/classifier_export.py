"""Writes a network that was trained by equilibrium propagation for use as a classifier."""

from pathlib import Path

import lightning as L

from fklit.eqprop import BackpropTask, EqPropTask, save_classifier

DEFAULT_NAME = "classifier"


class ClassifierExport(L.Callback):
    """Writes the network of an `EqPropTask` after training, for `fklit.eqprop.EquilibriumClassifier`.

    Labels and normalization are those of the data module (`class_names`, or numbers if it has none; `normalization()`).

    Args:
        folder: Where to; None takes `classifier` in the trainer's `default_root_dir`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def place(self, trainer: L.Trainer) -> Path:
        """The folder."""
        return Path(self.folder or Path(trainer.default_root_dir, DEFAULT_NAME)).expanduser()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses what could not be written, before it is trained.

        Raises:
            ValueError: The task or its data are of another kind.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, EqPropTask) or isinstance(pl_module, BackpropTask):
            raise ValueError(
                f"expected an EqPropTask for ClassifierExport, got {type(pl_module).__name__}; leave the callback out."
            )
        if pl_module.network.readout is None:
            raise ValueError("expected a network with a readout for ClassifierExport, got none; give it num_classes.")
        if not hasattr(getattr(trainer, "datamodule", None), "normalization"):
            raise ValueError(
                "expected a data module with a normalization() for ClassifierExport, got none; write the network by "
                "fklit.eqprop.save_classifier instead."
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the folder, on the first process."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, EqPropTask)
        data = trainer.datamodule  # type: ignore[attr-defined]
        scale = data.normalization()
        labels = data.class_names or [str(number) for number in range(pl_module.num_classes)]
        save_classifier(pl_module.network, self.place(trainer), labels=labels, mean=scale.mean, std=scale.std)

    def results(self, trainer: L.Trainer) -> dict[str, Path]:
        """Where the results are, by what they are."""
        return {"classifier": self.place(trainer)} if trainer.state.fn == "fit" else {}

"""The ``fklit`` command: one LightningCLI for everything (``fklit fit | validate | test | predict --config FILE``)."""

import sys
from collections.abc import Sequence
from typing import Any

from fklit import __version__


def main(args: Sequence[str] | dict[str, Any] | None = None) -> Any:
    """Runs the command line and returns the LightningCLI object.

    The model and the data are named by class path in the configuration, so that a class of the user's own serves as
    well as one of fklit's; the classes of fklit may be named by their short names.

    Args:
        args: words of the command line without the program's name; ``sys.argv`` where it is not given.

    Returns:
        The ``LightningCLI`` (its ``trainer``, ``model`` and ``datamodule``), for use from Python.
    """
    words = sys.argv[1:] if args is None else args if isinstance(args, dict) else list(args)
    if words == ["--version"]:  # answered before anything heavy is imported
        print(f"fklit {__version__}")
        return None

    from lightning.pytorch import LightningDataModule, LightningModule
    from lightning.pytorch.cli import LightningCLI

    import fklit.callbacks
    import fklit.data
    import fklit.rewards
    import fklit.steering.task
    import fklit.training  # noqa: F401  (a class that is imported may be named by its short name)

    return LightningCLI(
        model_class=LightningModule,
        datamodule_class=LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        args=None if args is None else words,  # Lightning warns of words that are given twice
    )

"""LightningCLI with fklit's classes and readable errors."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from fklit.cli.logs import look_for_checkpoints_in, protect_logs, set_logs_aside
from fklit.cli.messages import explain

# A class that is imported may be named by its short name.
_NAMED_CLASSES = (
    "fklit.callbacks",
    "fklit.correctors.guidance.task",
    "fklit.correctors.simulation.task",
    "fklit.data",
    "fklit.emoji",
    "fklit.eqprop.training.backprop",
    "fklit.eqprop.training.task",
    "fklit.rewards",
    "fklit.steering.task",
)
for _module in _NAMED_CLASSES:
    importlib.import_module(_module)


class Parser(LightningArgumentParser):
    """A parser whose errors are one sentence, without pages of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the sentence and exits with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        asked: Any = getattr(ex, "subcommand_parser", None) or self
        command = asked.prog.split(" [")[0]
        sys.stderr.write(f"fklit: error: {explain(message, _short_names())}\n({command} --help lists all options)\n")
        sys.exit(2)


class CLI(LightningCLI):
    """LightningCLI with safe defaults, that keeps earlier logs and repeats what a constructor said of its arguments."""

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults(weights_only=True)  # a checkpoint from elsewhere must not run code
        if subcommand == "predict":  # nobody on a command line receives them, and they would fill the memory
            parser.set_defaults(return_predictions=False)
        return parser

    def instantiate_classes(self) -> None:
        """Builds trainer, model and data from the configuration.

        Raises:
            ValueError: A constructor refused its arguments; the message is the constructor's own.
        """
        assert self.subcommand is not None
        settings = self.config[self.subcommand]
        given = settings.trainer.logger
        settings.trainer.logger, checkpoints = protect_logs(given, self.subcommand)
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ValueError(explain(str(error), _short_names())) from None
        finally:
            settings.trainer.logger = given  # what was asked for is what is saved, and may be run again
        if checkpoints is not None:
            look_for_checkpoints_in(checkpoints, self.trainer)
        if self.subcommand == "fit" and settings.ckpt_path is None:
            set_logs_aside(self.trainer)


def build_cli(args: Sequence[str] | dict[str, Any] | None) -> CLI:
    """Parses the words (``sys.argv`` for None), runs the subcommand and returns the CLI."""
    return CLI(
        model_class=LightningModule,
        datamodule_class=LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_class=Parser,
        args=None if args is None else list(args) if not isinstance(args, dict) else args,
    )


def _short_names() -> list[str]:
    from lightning.pytorch import Callback

    from fklit.pipelines.source import PipelineSource
    from fklit.rewards import Reward

    def below(kind: type[Any]) -> list[str]:
        subclasses: list[type[Any]] = kind.__subclasses__()
        return [kind.__name__, *(name for sub in subclasses for name in below(sub))]

    kinds = (LightningModule, LightningDataModule, Callback, Reward, PipelineSource)
    return [name for kind in kinds for name in below(kind) if not name.startswith("_")]

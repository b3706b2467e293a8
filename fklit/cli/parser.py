"""LightningCLI with fklit's classes and readable errors."""

import inspect
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, get_args

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from fklit.cli import environment
from fklit.cli.calibrate import CalibratingTrainer, without_calibration
from fklit.cli.checkpoints import Words, laid_under, saved_model
from fklit.cli.class_paths import find
from fklit.cli.classes import short_names
from fklit.cli.logs import check_log_folders
from fklit.cli.messages import explain
from fklit.cli.termination import StopOnSigterm
from fklit.cli.writers import add_writer, print_results, set_output_dir


class Parser(LightningArgumentParser):
    """A parser whose errors are one line, without pages of usage, and for which null is null at any depth."""

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """Parse words; jsonargparse hands `--model.source.variant null` down to a class within a class as `None`."""
        if args is not None and len(args) == 1 and args[0].endswith("=None"):
            word = args[0].removesuffix("=None")
            if self._takes_none(word.removeprefix("--"), options.get("namespace")):
                args = [f"{word}=null"]
        return super().parse_args(args, *more, **options)

    def _takes_none(self, key: str, before: Namespace | None) -> bool:
        """Whether `source.variant` names an argument of the class of `source` that may be None."""
        name, _, rest = key.replace(".init_args.", ".").partition(".")
        given = None if before is None else before.get(name)
        path = given.get("class_path") if isinstance(given, Namespace) else None
        action = next((item for item in self._actions if item.dest == name), None)
        kind = find(path) if path else getattr(action, "_typehint", None)
        if not callable(kind) or "." in rest or not rest:
            return False
        try:
            parameter = inspect.signature(kind, eval_str=True).parameters.get(rest)
        except (NameError, ValueError):  # annotations of names that only a type checker imports; no signature
            return False
        return parameter is not None and type(None) in get_args(parameter.annotation)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the line and exits with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        asked: Any = getattr(ex, "subcommand_parser", None) or self
        command = asked.prog.split(" [")[0]
        command = command if " " in command else f"{command} SUBCOMMAND"
        sys.stderr.write(f"fklit: error: {explain(message, short_names())}\n({command} --help lists its options)\n")
        sys.exit(2)


class CLI(LightningCLI):
    """LightningCLI with safe defaults, that keeps earlier logs and repeats what a constructor said of its arguments."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser of the command or of a subcommand."""
        parser = super().init_parser(**kwargs)
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands, and the arguments that are no options; and that of fklit's trainer."""
        return {**LightningCLI.subcommands(), "calibrate": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what every subcommand takes."""
        parser.add_argument(
            "--output_dir",
            type=str | None,
            default=None,
            help="folder for everything that the run writes: results, report, logs and checkpoints; "
            "null for the folders that trainer and callbacks name",
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand != "calibrate":
            parser.set_defaults(weights_only=True)  # a checkpoint from elsewhere must not run code
        if subcommand == "predict":  # nobody on a command line receives them, and they would fill the memory
            parser.set_defaults(return_predictions=False)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments; hyperparameters of a checkpoint fill in what they do not give."""
        super().parse_arguments(parser, args)
        settings = self.config[self.config.subcommand]
        environment.expand_paths(settings)
        saved = saved_model(settings.get("ckpt_path"), weights_only=settings.get("weights_only") is not False)
        if saved is None or settings.get("model") is None or settings.model.class_path != saved["class_path"]:
            return
        given: Words = laid_under(sys.argv[1:] if args is None else args, self.config.subcommand, saved)
        try:
            self.config = parser.parse_object(given) if isinstance(given, dict) else parser.parse_args(given)
        except SystemExit:
            sys.stderr.write(f"(with the hyperparameters of {settings.ckpt_path})\n")
            raise
        environment.expand_paths(self.config[self.config.subcommand])

    def _parse_ckpt_path(self) -> None:
        """Nothing is left to do: Lightning's own would put the checkpoint over what was given."""

    def before_instantiate_classes(self) -> None:
        """Direct the output to where it was asked for, and see to it that there is some."""
        settings = self.config[self.config.subcommand]
        set_output_dir(settings)
        if self.config.subcommand == "calibrate":
            without_calibration(settings)
        if self.config.subcommand == "predict":
            add_writer(settings)

    def instantiate_classes(self) -> None:
        """Builds trainer, model and data from the configuration.

        Raises:
            ValueError: A constructor refused its arguments; the message is the constructor's own. Or a logger would
                delete the log of another run.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ValueError(explain(str(error), short_names())) from None
        check_log_folders(self.trainer)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer.

        Raises:
            ValueError: Lightning refuses its settings.
        """
        try:
            return super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:
            said = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"trainer: expected settings for Lightning, got others ({said}); fix them.") from error

    def _run_subcommand(self, subcommand: str) -> None:
        with _handlers_restored():
            super()._run_subcommand(subcommand)

    def after_predict(self) -> None:
        """Say where the results are."""
        print_results(self.trainer)


@contextmanager
def _handlers_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def build_cli(args: Sequence[str] | dict[str, Any] | None) -> CLI:
    """Parses the words (`sys.argv` for None), runs the subcommand and returns the CLI."""
    return CLI(
        model_class=LightningModule,
        datamodule_class=LightningDataModule,
        trainer_class=CalibratingTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [StopOnSigterm()]},
        parser_class=Parser,
        parser_kwargs={"parser_mode": environment.register()},
        args=None if args is None else list(args) if not isinstance(args, dict) else args,
    )

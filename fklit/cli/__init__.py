"""The `fklit` command: one LightningCLI for all (`fklit fit | validate | test | predict | calibrate --config FILE`)."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import fklit

_HINT = "(--debug shows the traceback)"


def main(args: Sequence[str] | dict[str, Any] | None = None) -> Any:
    """Runs the command line and returns the LightningCLI object.

    The model and the data are named by class path in the configuration, so that a class of the user's own serves as
    well as one of fklit's; the classes of fklit may be named by their short names.

    Args:
        args: words of the command line without the program's name; `sys.argv` where it is not given.

    Returns:
        The `LightningCLI` (its `trainer`, `model` and `datamodule`), for use from Python; None for `--version`,
        `fklit configs` and `fklit serve-reward`.

    Raises:
        SystemExit: the words could not be understood (2); on the real command line, also what a user can fix, in
            one line unless `--debug` is given (1), or SIGTERM (143).
        Exception: from Python, whatever the run raised; from the command line, what no user can fix.
    """
    words = sys.argv[1:] if args is None else args if isinstance(args, dict) else list(args)
    if words == ["--version"]:  # answered before anything heavy is imported
        print(f"fklit {fklit.__version__}")
        return None
    if args is None and os.getcwd() not in sys.path:  # rewards of the user's own, beside the configuration
        sys.path.append(os.getcwd())
    try:
        return _run(words, args)
    except Exception as error:
        if args is not None or "--debug" in words:
            raise
        from fklit.cli.problems import explain_error

        line = explain_error(error)
        if line is None:
            raise
        from fklit.cli.preflight import UsageError

        _stop(line, status=2 if isinstance(error, UsageError) else 1)


def _run(words: Any, args: Sequence[str] | dict[str, Any] | None) -> Any:
    if isinstance(words, list):
        if words[:1] == ["configs"]:
            from fklit.cli.configs import run

            run(words[1:])
            return None
        if words[:1] == ["serve-reward"]:
            from fklit.cli.serve_reward import run as serve

            serve(words[1:])
            return None
        from fklit.cli.preflight import check_words

        check_words(words)
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from fklit.cli.parser import build_cli
    from fklit.cli.termination import Terminated

    try:
        return build_cli(args)
    except SIGTERMException:
        raise Terminated from None


def _stop(line: str, status: int) -> NoReturn:
    """Ends the process with the line, unless another process of the run has said it."""
    from fklit.cli.ranks import speaks_first

    if speaks_first(line):
        sys.stderr.write(f"fklit: error: {line}\n{_HINT}\n")
    sys.exit(status)


def command() -> None:
    """Entry point of the installed command: as `main`, but what it returns would become the exit code."""
    main()

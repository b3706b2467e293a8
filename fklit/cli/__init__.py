"""The `fklit` command: one LightningCLI for everything (`fklit fit | validate | test | predict --config FILE`)."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import fklit


def main(args: Sequence[str] | dict[str, Any] | None = None) -> Any:
    """Runs the command line and returns the LightningCLI object.

    The model and the data are named by class path in the configuration, so that a class of the user's own serves as
    well as one of fklit's; the classes of fklit may be named by their short names.

    Args:
        args: words of the command line without the program's name; `sys.argv` where it is not given.

    Returns:
        The `LightningCLI` (its `trainer`, `model` and `datamodule`), for use from Python.

    Raises:
        SystemExit: the words could not be understood (2), or, on the real command line, the settings or data (1).
        Exception: from Python, whatever the run raised.
    """
    if (sys.argv[1:] if args is None else list(args)) == ["--version"]:  # answered before anything heavy is imported
        print(f"fklit {fklit.__version__}")
        return None

    if args is None and os.getcwd() not in sys.path:  # rewards of the user's own, beside the configuration
        sys.path.append(os.getcwd())

    from fklit.cli.messages import raised_by_fklit
    from fklit.cli.parser import build_cli

    try:
        return build_cli(args)
    except Exception as error:
        if args is not None or not raised_by_fklit(error):
            raise
        sys.exit(f"fklit: error: {error}")


def command() -> None:
    """Entry point of the installed command: as `main`, but what it returns would become the exit code."""
    main()

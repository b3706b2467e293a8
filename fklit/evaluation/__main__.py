"""`python -m fklit.evaluation RUN ... [--against RUN ...]`: figures over seeds, with standard errors."""

import argparse
import sys
from collections.abc import Sequence

from fklit.evaluation.seeds import as_json, as_text, over_seeds


def main(args: Sequence[str] | None = None) -> int:
    """Prints the table and returns the exit code: 0, or 1 with a line that says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m fklit.evaluation", description="Means over runs that differ in their seed, with their errors."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="output folder of a run, one a seed")
    parser.add_argument("--against", metavar="RUN", nargs="+", default=[], help="another method: print differences")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(args)
    try:
        figures = over_seeds(options.runs, options.against)
    except (OSError, ValueError) as error:
        print(f"fklit: {error}", file=sys.stderr)
        return 1
    print(as_json(figures) if options.json else as_text(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

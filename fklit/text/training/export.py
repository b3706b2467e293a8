"""Writes the folder of a model of text from a checkpoint, such as the best one of the validations.

`python -m fklit.text.training.export masked CHECKPOINT FOLDER`, or `causal` for the guide. With
`EMAWeightAveraging` a checkpoint holds the averaged weights.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fklit.text.training.causal import CausalLanguageModelTask
from fklit.text.training.masked import MaskedDiffusionTask

TASKS: dict[str, type[CausalLanguageModelTask] | type[MaskedDiffusionTask]] = {
    "masked": MaskedDiffusionTask,
    "causal": CausalLanguageModelTask,
}


def main(args: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Write the folder of a model of text from a training checkpoint.")
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("checkpoint", help="a .ckpt of that task; only load those you made or trust")
    parser.add_argument("folder", help="where to")
    options = parser.parse_args(args)
    if not Path(options.checkpoint).is_file():
        raise SystemExit(f"fklit: expected a checkpoint, got {options.checkpoint}; give the .ckpt of `fklit fit`.")
    task = TASKS[options.task].load_from_checkpoint(options.checkpoint, map_location="cpu", weights_only=True).eval()
    task.setup("test")
    task.save_folder(options.folder)
    print(f"wrote {options.folder}")


if __name__ == "__main__":
    main()

"""36 real emoji scenes with a right and a wrong prompt each, kept as one picture because the art must be fetched.

The scenes are made of emoji of Google's Noto (Apache License 2.0) and Twitter's Twemoji (CC BY 4.0, copyright Twitter,
Inc and other contributors). Written from
`fklit.emoji.evaluation_set.EvaluationDataset` with seed 990001, 9 scenes a row.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

_FOLDER = Path(__file__).parent


def real_scenes():
    """Pictures (36, 3, 64, 64) in [0, 1], the metadata of a right and of a wrong prompt for each."""
    with Image.open(_FOLDER / "scenes.png") as picture:
        grid = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255
    images = grid.reshape(4, 64, 9, 64, 3).permute(0, 2, 4, 1, 3).reshape(36, 3, 64, 64)
    lines = [json.loads(line) for line in (_FOLDER / "scenes.jsonl").read_text(encoding="utf-8").splitlines()]
    return images, [line["metadata"] for line in lines], [line["wrong"] for line in lines]

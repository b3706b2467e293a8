"""Sprites that stand in for the emoji art, which must be fetched: each object a disc with its own two colors."""

import numpy as np
from PIL import Image

from fklit.emoji.art import STYLES, sprite_path
from fklit.emoji.objects import OBJECTS


def write_fake_art(root):
    """Writes one PNG an object and style below `root`, and returns `root` as text."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    for number, thing in enumerate(OBJECTS):
        rng = np.random.default_rng(number)
        outer, inner = rng.integers(0, 220, (2, 3))
        for style, reach in zip(STYLES, (0.9, 0.8), strict=True):
            picture = np.zeros((32, 32, 4), np.uint8)
            picture[..., :3] = np.where((x**2 + y**2 < 0.25)[..., None], inner, outer)
            picture[..., 3] = 255 * (x**2 + y**2 < reach**2)
            path = sprite_path(root, thing.name, style)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return str(root)

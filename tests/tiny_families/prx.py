"""PRX (Photoroom), in latents and in pixels."""

from typing import Any

from tiny_families.components import assemble, component, euler, kl
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row

_GIVEN = {"height": 16, "width": 16, "guidance_scale": 1.0, "use_resolution_binning": False}
_SHAPE = {"patch_size": 2, "context_in_dim": 16, "hidden_size": 16, "num_heads": 2, "depth": 1, "axes_dim": [4, 4]}


def _encoded(pipeline: Any) -> Any:
    import torch

    return encode_by(pipeline, embeds(16), mask(dtype=torch.bool), embeds(16, negative=True),
                     mask(negative=True, dtype=torch.bool))  # fmt: skip


def _prx() -> Any:
    network = component("PRXTransformer2DModel", in_channels=4, **_SHAPE)
    return _encoded(assemble("PRXPipeline", transformer=network, scheduler=euler(), vae=kl(4)))


def _pixel() -> Any:
    network = component("PRXTransformer2DModel", in_channels=3, **_SHAPE)
    return _encoded(assemble("PRXPixelPipeline", transformer=network, scheduler=euler()))


ROWS = [
    Row("PRXPipeline", "PRX", _prx, "Photoroom/prx-1024-t2i-beta", main=True, arguments=_GIVEN,
        shown=("guidance_scale",)),
    Row("PRXPixelPipeline", "PRX", _pixel, "Photoroom/prxpixel-t2i", output="np", arguments=_GIVEN,
        shown=("guidance_scale",)),
]  # fmt: skip

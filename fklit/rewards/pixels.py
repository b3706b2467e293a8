"""Images as bytes and as base64 PNG, the lossless form in which they travel."""

import base64
import io
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_MAX_PIXELS = 2**24  # 4,096 x 4,096: what is larger may be a small file that fills the memory
_FORMATS = ("PNG", "JPEG", "WEBP")


def to_png_base64(image: Float[Tensor, "c h w"]) -> str:
    """Return an image as the base64 text of a PNG file of 8 bits a channel.

    Args:
        image: 1 or 3 channels, in [0, 1]; values are rounded to the nearest multiple of 1/255.

    Raises:
        ValueError: the image has another number of channels.
    """
    from PIL import Image

    if image.shape[0] not in (1, 3):
        raise ValueError(f"expected images of 1 or 3 channels, got {image.shape[0]}; convert them.")
    array = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)  # as lossless as any level, and several times as fast
    return base64.b64encode(file.getvalue()).decode("ascii")


def from_base64(text: Any) -> Float[Tensor, "3 h w"]:
    """Return the image of a PNG, JPEG or WebP file as float32 (3, H, W) in [0, 1].

    Args:
        text: The file in base64; a `data:` URL is taken, too.

    Raises:
        ValueError: It is none, or it is larger than 16.8 megapixels.
    """
    import numpy as np
    from PIL import Image

    if not isinstance(text, str):
        raise ValueError(f"expected an image in base64, got a {type(text).__name__}; send a text.")
    try:
        file = io.BytesIO(base64.b64decode(text.partition(";base64,")[2] or text, validate=True))
        picture = Image.open(file, formats=_FORMATS)
        size = picture.size
        pixels = None if size[0] * size[1] > _MAX_PIXELS else np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # PIL reports a wrong checksum as a SyntaxError
        said = str(error).partition("<")[0].strip()
        raise ValueError(f"expected a PNG, JPEG or WebP file in base64, got another text ({said}); send one.") from None
    if pixels is None:
        raise ValueError(f"expected an image of at most {_MAX_PIXELS} pixels, got {size[0]} x {size[1]}; shrink it.")
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255

"""Pictures as data addresses, so that the page loads nothing."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A picture for an `img` element.

    Attributes:
        image: The picture.
        max_side: Pixels of its longer side in the page; larger ones are shrunk.
        alt: What a screen reader says.
    """

    image: Image.Image
    max_side: int
    alt: str

    @property
    def small(self) -> bool:
        """Whether it is enlarged without blur."""
        return bool(max(self.image.size) <= 128)

    @property
    def address(self) -> str:
        """The picture itself as a data address."""
        return data_uri(self.image, self.max_side)


def data_uri(image: Image.Image | npt.NDArray[np.uint8], max_side: int) -> str:
    """The picture as a WebP data address, shrunk to `max_side` pixels; lossless while it is small."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if max(picture.size) > max_side:
        picture = picture.copy()
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small = max(picture.size) <= 96
    picture.convert("RGB").save(buffer, "WEBP", lossless=small, quality=80 if small else 88, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

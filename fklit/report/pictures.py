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
        frames: Frames of a video side by side in `image`, shown one after the other on hovering; 1 for a picture.
    """

    image: Image.Image
    max_side: int
    alt: str
    frames: int = 1

    @property
    def middle(self) -> str:
        """Where the middle frame stands, as CSS."""
        return f"{100 * (self.frames // 2) / max(self.frames - 1, 1):.4g}%"

    @property
    def end(self) -> str:
        """Where the frame after the last would stand, as CSS."""
        return f"{100 * self.frames / max(self.frames - 1, 1):.6g}%"

    @property
    def shape(self) -> str:
        """Width and height of a frame, as CSS."""
        return f"{self.image.width // self.frames}/{self.image.height}"

    @property
    def small(self) -> bool:
        """Whether it is enlarged without blur."""
        return bool(max(self.image.width // self.frames, self.image.height) <= 128)

    @property
    def address(self) -> str:
        """The picture itself as a data address."""
        return data_uri(self.image, self.max_side * self.frames)


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

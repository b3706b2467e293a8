"""What CLIP-like rewards share: the cosine between the embeddings of an image and of its prompt."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fklit.rewards.base import Reward

_MAX_CACHED_PROMPTS = 10_000  # at 1,024 floats each: 40 MB


class ImageTextCosine(Reward):
    """`scale` times the cosine between the embeddings of image and prompt; subclasses bring the two encoders.

    Embeddings of prompts are kept, each computed on its own, so that they do not depend on which prompts came together.

    Attributes:
        scale: Factor on the cosine.
    """

    accepts = "image"

    def __init__(self, *, scale: float, max_batch: int | None = None, pad: bool = False) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        self.scale = scale
        self._texts: dict[str, Tensor] = {}

    @abstractmethod
    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embeddings of images in [0, 1] on `device`, of any length."""

    @abstractmethod
    def encode_text(self, prompt: str) -> Float[Tensor, "1 d"]:
        """Embedding of a prompt, of any length."""

    def embed_images(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Unit embeddings of images (n, 3, H, W) or (n, 1, H, W) in [0, 1]; loads the model if need be."""
        self.load()
        return unit(self.encode_images(as_rgb(images.to(self.device))))

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scaled cosines (n,).

        Args:
            samples: Images (n, 3, H, W) in [0, 1]; one channel is repeated to three.
            prompts: One prompt a sample.

        Returns:
            Scores (n,), float32 unless the module was made float64.
        """
        texts = torch.stack([self._embed(prompt) for prompt in prompts])
        return self.scale * (self.embed_images(samples) * texts).sum(-1)

    @torch.no_grad()
    def _embed(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            if len(self._texts) >= _MAX_CACHED_PROMPTS:
                self._texts.clear()
            with torch.inference_mode(False):  # a tensor made in inference mode could not be used with gradients later
                self._texts[prompt] = unit(self.encode_text(prompt))[0]
        return self._texts[prompt]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._texts.clear()  # moved or cast: the kept embeddings are no longer those of this model
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def as_rgb(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
    """Images with three channels: one channel is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def unit(features: Tensor) -> Tensor:
    """Vectors of length 1, in float32 or float64."""
    features = features if features.dtype in (torch.float32, torch.float64) else features.float()
    return F.normalize(features, dim=-1)

"""Image embeddings of any open_clip model, as the features of metrics."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fklit.rewards.clip import CLIPScore
from fklit.rewards.image_text_cosine import as_rgb


class CLIPFeatures(nn.Module):
    """Embeddings of images, of the length that the model gives them; loaded at first use.

    Args:
        model_name: Any model of open_clip, as in `fklit.rewards.CLIPScore`.
        pretrained: As there.
        max_batch: Most images at once; None for no limit.
    """

    def __init__(self, model_name: str, pretrained: str | None = None, *, max_batch: int | None = None) -> None:
        super().__init__()
        self.score = CLIPScore(model_name, pretrained, max_batch=max_batch)

    def load(self) -> None:
        """Loads the model."""
        self.score.load()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Embeddings (n, d), float32 or float64.

        Args:
            images: Images (n, 3, H, W) or (n, 1, H, W) in [0, 1].

        Raises:
            ValueError: They are not.
        """
        self.score._check_samples(images)
        self.load()
        size = self.score.max_batch or max(len(images), 1)
        parts = [
            self.score.encode_images(as_rgb(images[start : start + size].to(self.score.device)))
            for start in range(0, len(images), size)
        ]
        features = torch.cat(parts)
        return features if features.dtype == torch.float64 else features.float()

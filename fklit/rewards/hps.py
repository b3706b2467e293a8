"""Human Preference Score v2: which of several images of one prompt people prefer."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fklit.checks import check_choice
from fklit.rewards.checkpoint import fit_weights, locate_weights, read_weights
from fklit.rewards.image_text_cosine import ImageTextCosine

HPSVersion = Literal["v2.1", "v2.0"]

_FILES: dict[str, str] = {"v2.1": "HPS_v2.1_compressed.pt", "v2.0": "HPS_v2_compressed.pt"}


class HPSv2(ImageTextCosine):
    """100 times the cosine of a CLIP ViT-H/14 that was trained on human choices (Wu et al. 2023, arXiv:2306.09341).

    The published `hpsv2` package returns the plain cosine, its tables 100 times that, as this does. Images of today's
    models score 20 to 33; averages over a benchmark of v2.0 are 23.6 (GLIDE) to 27.9. Numbers of v2.0 and v2.1 do not
    compare, nor do those of different prompts. The model was trained so that `softmax(t * cosine)` is the
    probability that an image is preferred (section 4), with an inverse temperature `t` of about 100 that is part of its
    weights: so `reward_scale` `t / 100` is the exponent that it believes in, and is suggested.

    The longer side of an image is resized to 224 and the rest filled with black, as in the package; values that bicubic
    resizing brings out of [0, 1] stay, as there. Prompts are cut to 77 tokens. Embeddings are computed in float32
    unless `.half()` or `.bfloat16()` is called; the package computes them in float16 on GPUs.

    The weights (Apache 2.0) are 3.9 GB on disk and in float32, half of it in half precision.

    Args:
        version: "v2.1" (trained on cleaner data) or "v2.0".
        weights: Repository of the hub, local folder with the published file (`HPS_v2.1_compressed.pt` or
            `HPS_v2_compressed.pt`), or a local file.
        antialias: Whether downscaling averages over pixels, as the package does with torchvision 0.17 and later. With
            earlier ones, such as in the published tables, it did not.
        cache_dir: Where downloads are kept; None for the default of the hub's client.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: There is no such version.
    """

    typical_range = (20.0, 33.0)
    architecture: ClassVar[str] = "ViT-H-14"

    model: Any
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        version: HPSVersion = "v2.1",
        weights: str = "xswu/HPSv2",
        *,
        antialias: bool = True,
        cache_dir: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(scale=100.0, max_batch=max_batch, pad=pad)
        check_choice("version", version, tuple(_FILES))
        self.version = version
        self.weights = weights
        self.antialias = antialias
        self.cache_dir = cache_dir
        self._tokenize: Callable[[list[str]], Tensor] | None = None

    def network(self) -> nn.Module:
        """The network without its weights, an open_clip `CLIP`."""
        import open_clip

        network: nn.Module = open_clip.CLIP(**open_clip.get_model_config(self.architecture))
        return network

    def build(self) -> None:
        """Loads weights and tokenizer.

        Raises:
            ValueError: The file holds another model's weights.
            OSError: The file is damaged, or could not be downloaded.
        """
        import open_clip

        path = locate_weights(self.weights, _FILES[self.version], owner="HPSv2", cache_dir=self.cache_dir)
        found = read_weights(path, owner="HPSv2")
        self.model = self.network()
        fit_weights(self.model, found.get("state_dict", found), owner="HPSv2", source=path)
        self.suggested_scale = float(self.model.logit_scale.detach().exp()) / self.scale
        self._tokenize = open_clip.get_tokenizer(self.architecture)
        for name, values in (("_mean", open_clip.OPENAI_DATASET_MEAN), ("_std", open_clip.OPENAI_DATASET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def encode_images(self, images: Tensor) -> Tensor:
        """Embeddings (n, d) of images (n, 3, H, W) in [0, 1]."""
        return self.model.encode_image(self.preprocess(images))  # type: ignore[no-any-return]

    def encode_text(self, prompt: str) -> Tensor:
        """Embedding (1, d) of a prompt, cut to 77 tokens."""
        assert self._tokenize is not None
        return self.model.encode_text(self._tokenize([prompt]).to(self.device))  # type: ignore[no-any-return]

    def preprocess(self, images: Tensor) -> Tensor:
        """Images (n, 3, H, W) in [0, 1] as the network takes them: (n, 3, 224, 224), normalized; differentiable."""
        side: int = self.model.visual.image_size[0]
        height, width = images.shape[-2:]
        # As in the package: scale the longer side, round both, and pad the shorter one in the middle, with zeros.
        scale = side / max(height, width)
        if scale != 1:
            size = (round(height * scale), round(width * scale))
            # float32: antialiased resizing has no half-precision kernel on the CPU.
            images = images if images.dtype == torch.float64 else images.float()
            images = F.interpolate(images, size, mode="bicubic", antialias=self.antialias, align_corners=False)
            height, width = size
        above, left = (side - height) // 2, (side - width) // 2
        images = F.pad(images, [left, side - width - left, above, side - height - above])
        return (images.to(self._mean.dtype) - self._mean) / self._std

"""LAION's aesthetic predictors: how much people like the look of an image, whatever it shows."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from fklit.checks import check_choice
from fklit.rewards.base import Reward
from fklit.rewards.checkpoint import fit_weights, locate_weights, read_weights
from fklit.rewards.image_text_cosine import as_rgb, unit
from fklit.rewards.pretrained import ProcessorPreprocess, load_part, load_pretrained

AestheticVersion = Literal["v2", "v1"]

_FILES = {"v2": "aesthetic-model.pth", "v1": "sa_0_4_vit_l_14_linear.pth"}
_V1_URL = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"


class AestheticScore(Reward):
    """Mean rating, 1 to 10, that LAION's predictor expects people to give an image; prompts are not read.

    Version 2 (Schuhmann 2022, `sac+logos+ava1-l14-linearMSE.pth` of christophschuhmann/improved-aesthetic-predictor)
    is the reward of DDPO (Black et al. 2023, arXiv:2305.13301) and the filter of LAION-Aesthetics v2: layers of 768,
    1024, 128, 64, 16 and 1, without activations (dropout is for training only), on the CLIP ViT-L/14 embedding of the
    image at length 1. Version 1 (LAION-AI/aesthetic-predictor) is one linear layer on the same embedding. Both are
    regressions, not bounded to 1 to 10; most images score 4 to 7. Both are affine in the embedding, so strong steering
    can leave the images that they were fit on: look at what comes out.

    The shorter side of an image is resized to 224 and the center cropped. The weights (v2 Apache 2.0, v1 MIT, CLIP MIT)
    are 1.2 GB in float32, half of it in half precision: the text encoder is not held.

    Args:
        version: "v2" or "v1".
        head: Weights of the predictor: repository of the hub or folder with `aesthetic-model.pth`
            (`sa_0_4_vit_l_14_linear.pth` for v1), or a local file. None for "trl-lib/ddpo-aesthetic-predictor"; v1
            is on no hub and must be given.
        clip_name: OpenAI's CLIP ViT-L/14 in the format of transformers: "owner/name" of the hub, or a local folder.
        cache_dir: Where downloads are kept; None for the default.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: There is no such version, or v1 without `head`.
    """

    accepts = "image"
    needs_prompts = False
    typical_range = (4.0, 7.0)
    suggested_scale = 5.0

    clip: Any

    def __init__(
        self,
        version: AestheticVersion = "v2",
        head: str | None = None,
        *,
        clip_name: str = "openai/clip-vit-large-patch14",
        cache_dir: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        check_choice("version", version, tuple(_FILES))
        if head is None and version == "v1":
            raise ValueError(f"expected head with version='v1', got None; download {_V1_URL} and give its path.")
        self.version = version
        self.head_source = head or "trl-lib/ddpo-aesthetic-predictor"
        self.clip_name = clip_name
        self.cache_dir = cache_dir

    def build(self) -> None:
        """Loads the image encoder and the predictor.

        Raises:
            ValueError: A file holds another model's weights.
            OSError: A file is damaged, or could not be downloaded.
        """
        from transformers import CLIPConfig, CLIPVisionModelWithProjection

        places: dict[str, Any] = {"owner": "AestheticScore", "cache_dir": self.cache_dir}
        path = locate_weights(self.head_source, _FILES[self.version], **places)
        weights = read_weights(path, owner="AestheticScore")
        self.preprocess = ProcessorPreprocess(self.clip_name, **places)
        config = load_part(CLIPConfig, self.clip_name, **places)
        config.vision_config.projection_dim = config.projection_dim  # that of the image encoder alone is not the file's
        self.clip = load_pretrained(
            CLIPVisionModelWithProjection, self.clip_name, config=config.vision_config, **places
        )
        self.head = predictor(self.version, config.projection_dim)
        fit_weights(self.head, weights, owner="AestheticScore", source=path)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Expected ratings (n,) of images (n, 3, H, W) in [0, 1]; one channel is repeated to three."""
        pixels = self.preprocess(as_rgb(samples)).to(self.clip.dtype)
        embeddings = unit(self.clip(pixel_values=pixels).image_embeds)
        ratings: Tensor = self.head(embeddings.to(self.clip.dtype))
        return ratings[:, 0]


def predictor(version: AestheticVersion, width: int = 768) -> nn.Module:
    """The layers of a predictor, without weights, under the names of the published files.

    Args:
        version: "v2" or "v1".
        width: Length of the embedding.
    """
    if version == "v1":
        return nn.Linear(width, 1)
    # Dropout separates the first four: it does nothing here, and counts in the names (0, 2, 4, 6, 7).
    layers = [
        *(nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
        *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
    ]
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*layers)))

"""PickScore: which of several images of one prompt the users of a web application picked."""

from typing import Any

from torch import Tensor

from fklit.rewards.image_text_cosine import ImageTextCosine
from fklit.rewards.pretrained import ProcessorPreprocess, load_part, load_pretrained


class PickScore(ImageTextCosine):
    """`t` times the cosine of a CLIP ViT-H/14 trained on Pick-a-Pic (Kirstain et al. 2023, arXiv:2305.01569).

    The factor `t` is the learned inverse temperature, a part of the weights and near 100. The model was trained so
    that `softmax(score)` over two images of one prompt is the probability that each is picked (section 4): so
    `reward_scale` 1 is the exponent that it believes in, and is suggested. Images score 15 to 25, those of today's
    models about 20 to 23; a difference of 1 is odds of 2.7 to 1.

    The shorter side of an image is resized to 224 and the center cropped. Prompts are cut to 77 tokens.

    Any `CLIPModel` of transformers is scored in the same way. The weights (MIT) are 3.9 GB in float32, half of it in
    half precision.

    Args:
        model_name: "owner/name" of the hub, or a local folder.
        processor_name: Where tokenizer and image processor are, if not with the model; None for there.
        cache_dir: Where downloads are kept; None for the default.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).
    """

    typical_range = (15.0, 25.0)
    suggested_scale = 1.0

    model: Any

    def __init__(
        self,
        model_name: str = "yuvalkirstain/PickScore_v1",
        processor_name: str | None = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        *,
        cache_dir: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(scale=100.0, max_batch=max_batch, pad=pad)
        self.model_name = model_name
        self.processor_name = processor_name
        self.cache_dir = cache_dir
        self._tokenizer: Any = None

    def build(self) -> None:
        """Loads weights, tokenizer and image processor.

        Raises:
            ValueError: The checkpoint is that of another model.
            OSError: Something is not there, damaged, or could not be downloaded.
        """
        from transformers import AutoTokenizer, CLIPModel

        places: dict[str, Any] = {"owner": "PickScore", "cache_dir": self.cache_dir}
        processor = self.processor_name or self.model_name
        self.preprocess = ProcessorPreprocess(processor, **places)
        self._tokenizer = load_part(AutoTokenizer, processor, **places)
        self.model = load_pretrained(CLIPModel, self.model_name, **places)
        # The text embedding is read at this token; where no prompt has it, at the first one: the same for all prompts.
        end, known = self._tokenizer.eos_token_id, self.model.config.text_config.eos_token_id
        if known not in (end, 2):  # 2 stands for the highest number, in configurations of 2023
            raise ValueError(
                f"PickScore expected a model whose texts end with {end}, as those of the tokenizer in {processor}, got "
                f"eos_token_id={known} of {self.model_name}; give its own processor_name."
            )
        self.scale = float(self.model.logit_scale.detach().exp())

    def encode_images(self, images: Tensor) -> Tensor:
        """Embeddings (n, d) of images (n, 3, H, W) in [0, 1]."""
        pixels = self.preprocess(images).to(self.model.dtype)
        return self.model.get_image_features(pixel_values=pixels).pooler_output  # type: ignore[no-any-return]

    def encode_text(self, prompt: str) -> Tensor:
        """Embedding (1, d) of a prompt, cut to the context length of the model (77 tokens)."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self._tokenizer([prompt], truncation=True, max_length=length, return_tensors="pt").to(self.device)
        return self.model.get_text_features(**tokens).pooler_output  # type: ignore[no-any-return]

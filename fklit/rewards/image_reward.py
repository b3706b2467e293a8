"""ImageReward: how well people would like an image for its prompt; and small models of the same architecture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit import assets
from fklit.rewards.base import Reward
from fklit.rewards.checkpoint import fit_weights, locate_weights, read_weights
from fklit.rewards.image_reward_layout import read_sizes, rename_weights
from fklit.rewards.image_text_network import ImageTextNetwork
from fklit.rewards.preprocess import ClipPreprocess
from fklit.rewards.pretrained import load_part
from fklit.rewards.unknown_words import warn_of_unknown_words

_PUBLISHED = {
    "mean": 0.16717362830052426,  # of the raw scores of the training set, and their deviation: published in the code
    "std": 1.0333394966054072,
    "max_length": 35,
    "pixels": {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)},
    "typical_range": (-2.0, 2.0),
    "suggested_scale": 2.0,
}


class ImageReward(Reward):
    """A cross-attention model of text and image, trained on what people prefer (Xu et al. 2023, arXiv:2304.05977).

    BLIP's image encoder, its text encoder that attends to the image in every layer, and a head on the first token. The
    published model scores about -2 to 2, with mean 0 and standard deviation 1 on its training set; FK steering
    (arXiv:2501.06848) takes it with `reward_scale` 2 and 10. Images are resized to 224 at the shorter side and
    cropped; prompts are cut to 35 tokens. Its weights (Apache-2.0) are 1.8 GB in float32.

    `ImageReward("fklit:emoji_reward")` is the small model that ships: the log probability, at most 0, that a picture
    of the emoji scenes shows what its caption says and nothing else. It sees relations and counts. It knows
    the words of these captions only, reads all others as one unknown word (with an `UnknownWordsWarning`), and cuts
    captions to 16.

    Args:
        model_name: "owner/name" of the hub or a local file or folder with `ImageReward.pt`; or "fklit:emoji_reward", or
            a local folder as `fklit.emoji.training.image_reward.ImageRewardTask` writes it.
        tokenizer_name: Tokenizer of the published model, "owner/name" or a local folder; other folders hold their own.
        cache_dir: Where downloads are kept; None for the default.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).
    """

    typical_range = (-2.0, 2.0)
    suggested_scale = 2.0

    network: ImageTextNetwork

    def __init__(
        self,
        model_name: str = "THUDM/ImageReward",
        tokenizer_name: str = "google-bert/bert-base-uncased",
        *,
        cache_dir: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        self.model_name = model_name
        self.tokenizer_name = tokenizer_name
        self.cache_dir = cache_dir
        shipped = assets.shipped(model_name)
        folder = shipped or Path(model_name)
        self._folder = folder if shipped or (folder / "config.json").is_file() else None
        self._notes: dict[str, Any] = dict(_PUBLISHED)
        if self._folder is not None:
            self._notes = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
            self._set_range()
        self._tokenizer: Any = None
        self._read: set[str] = set()  # prompts whose words have been checked

    def _set_range(self) -> None:
        if "pixels" not in self._notes or "vision" not in self._notes:
            raise ValueError(
                f"ImageReward expected config.json as ImageRewardTask writes it, got another one in {self._folder}; "
                "give the folder or file of ImageReward.pt, or a folder that the task has exported."
            )
        low, high = self._notes.get("typical_range", (-10.0, 0.0))
        self.typical_range = (float(low), float(high))
        self.suggested_scale = float(self._notes.get("suggested_scale", 1.0))
        self.upper_bound = 0.0 if self._notes.get("output") == "log_probability" else None

    def build(self) -> None:
        """Loads weights and tokenizer.

        Raises:
            ValueError: The checkpoint is that of another model.
            OSError: Something is not there, damaged, or could not be downloaded.
        """
        from transformers import AutoTokenizer

        if self._folder is not None:
            source: Any = self._folder / "model.safetensors"
            weights = read_weights(source, owner="ImageReward")
            sizes = {name: self._notes[name] for name in ("vision", "text", "head", "stem")}
            tokenizer = str(self._folder)
            resize = self._notes["pixels"].get("resize_mode", "shortest")
        else:
            source = locate_weights(self.model_name, "ImageReward.pt", owner="ImageReward", cache_dir=self.cache_dir)
            weights = rename_weights(read_weights(source, owner="ImageReward"))
            try:
                sizes = read_sizes(weights)
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                raise ValueError(
                    f"ImageReward expected the published ImageReward.pt, got {source} without {error}; give that file."
                ) from error
            tokenizer, resize = self.tokenizer_name, "shortest"
        network = ImageTextNetwork(**sizes)
        fit_weights(network, weights, owner="ImageReward", source=source)
        self._tokenizer = load_part(AutoTokenizer, tokenizer, owner="ImageReward", cache_dir=self.cache_dir)
        words = sizes["text"]["vocab_size"]
        if len(self._tokenizer) > words:
            raise ValueError(
                f"ImageReward expected a tokenizer of at most {words} tokens, got {len(self._tokenizer)} of "
                f"{tokenizer}; give tokenizer_name='google-bert/bert-base-uncased' or a folder of it."
            )
        pixels = self._notes["pixels"]
        self.preprocess = ClipPreprocess(
            sizes["vision"]["image_size"], pixels["mean"], std=pixels["std"], resize_mode=resize
        )
        self.network = network

    def see(self, images: Tensor) -> Tensor:
        """Image tokens (n, p, d) of images (n, 3, H, W) in [0, 1]."""
        return self.network.encode_images(self.preprocess(images))

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Tokens (n, l) of prompts, int64, on the CPU."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._read:
                warn_of_unknown_words(self._tokenizer, prompt, owner="ImageReward")
                self._read.add(prompt)
        found = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self._notes["max_length"]
        ).input_ids
        return torch.tensor(found)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (n,), differentiable in the images.

        Args:
            samples: Images (n, 3, H, W) in [0, 1]; one channel is repeated to three.
            prompts: One prompt a sample.
        """
        images = samples.expand(-1, 3, -1, -1) if samples.shape[1] == 1 else samples
        seen = self.see(images)
        raw: Tensor = self.network(self.tokens(prompts).to(seen.device), seen)
        raw = raw if raw.dtype == torch.float64 else raw.float()
        if self._notes.get("output") == "log_probability":
            log_probability: Tensor = F.logsigmoid(raw)
            return log_probability
        standardized: Tensor = (raw - float(self._notes["mean"])) / float(self._notes["std"])
        return standardized

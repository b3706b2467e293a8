"""CLIP score with any open_clip model: how well an image fits its prompt."""

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor

from fklit import assets
from fklit.rewards.image_text_cosine import ImageTextCosine
from fklit.rewards.preprocess import ClipPreprocess
from fklit.rewards.unknown_words import warn_of_unknown_words


class CLIPScore(ImageTextCosine):
    """`scale` times the cosine between open_clip's image and text embeddings (a **cosine**, not 100 times it).

    A CLIP model is trained so that `exp(t * cosine)` is proportional to `p(image, text) / (p(image) p(text))`,
    where `t` is its learned inverse temperature (Oord et al. 2018, arXiv:1807.03748, section 2.3; Radford et al.
    2021, arXiv:2103.00020, figure 3). So `reward_scale = t` is the exponent that the model itself believes in, and
    is the suggested scale: 100 for OpenAI's and most LAION models, the value in its card for fklit's own. Take
    `scale=100` to read the numbers as the usual "CLIP score"; the suggested scale then shrinks to match.

    The range of cosines differs between models: 0.10 to 0.40 for OpenAI's and LAION's ViT models. A local folder may
    state its own in `open_clip_config.json` under `"reward": {"typical_range": [low, high], "suggested_scale": t}`.

    Preprocessing runs on tensors and is differentiable, so gradients reach the pixels. Embeddings of prompts are
    kept, each computed on its own, so that they do not depend on which prompts came together.

    Args:
        model_name: An open_clip architecture ("ViT-B-32"), "hf-hub:owner/name", a local folder with
            `open_clip_config.json` and weights (with or without open_clip's "local-dir:"), or "fklit:emoji_clip" for
            the model that ships with fklit.
        pretrained: Tag or weights file of an architecture ("laion2b_s34b_b79k"); None where the name brings weights.
        scale: Factor on the cosine, above 0.
        cache_dir: Where open_clip keeps downloads; None for its default.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: `scale` is not above 0, or the weights are not determined by name and `pretrained`.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: str | None = None,
        *,
        scale: float = 1.0,
        cache_dir: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(scale=scale, max_batch=max_batch, pad=pad)
        if not scale > 0:
            raise ValueError(f"expected scale above 0, got {scale}; give 1 for a cosine or 100 for the usual score.")
        self.model_name = _locate(model_name)
        brings_weights = self.model_name.startswith(("local-dir:", "hf-hub:"))
        if brings_weights == (pretrained is not None):
            raise ValueError(
                f"expected {'no pretrained, as' if brings_weights else 'pretrained, as no'} weights come with "
                f"model_name={model_name!r}, got pretrained={pretrained!r}; "
                + (
                    "omit it."
                    if brings_weights
                    else "name weights (open_clip.list_pretrained() lists them), or give a file or a local folder."
                )
            )
        self.pretrained = pretrained
        self.cache_dir = cache_dir
        self.typical_range = (0.1 * scale, 0.4 * scale)
        self._tokenize: Callable[[list[str]], Tensor] | None = None

    def build(self) -> None:
        """Loads model, tokenizer and preprocessing with open_clip.

        Raises:
            ValueError: open_clip knows no such model, or no such weights of it.
            OSError: The weights are damaged, or could not be downloaded.
        """
        import open_clip
        from safetensors import SafetensorError

        try:
            model = open_clip.create_model(
                self.model_name, pretrained=self.pretrained, cache_dir=self.cache_dir, require_pretrained=True
            )
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError, SafetensorError) as error:
            self._check_names()
            said = str(error).strip().partition("\n")[0][:160] or type(error).__name__
            raise OSError(
                f"CLIPScore expected weights that can be loaded, got {self.pretrained or 'those'} of "
                f"{self.model_name!r} ({said}); check the connection, or download them again and give the folder."
            ) from error
        self._tokenize = open_clip.get_tokenizer(self.model_name, cache_dir=self.cache_dir)
        settings = dict(model.visual.preprocess_cfg)
        settings.pop("mode", None)
        self.preprocess = ClipPreprocess(settings.pop("size"), settings.pop("mean"), **settings)
        self.model = model.eval()
        notes = _reward_notes(self.model_name)
        if "typical_range" in notes:
            low, high = notes["typical_range"]
            self.typical_range = (low * self.scale, high * self.scale)
        self.suggested_scale = float(notes.get("suggested_scale", model.logit_scale.detach().exp())) / self.scale

    def _check_names(self) -> None:
        """Refuse an architecture or weights that open_clip does not list."""
        import open_clip

        if self.pretrained is None:
            return
        tags = open_clip.list_pretrained_tags_by_model(self.model_name)
        for name, given, known in (
            ("model_name", self.model_name, open_clip.list_models()),
            ("pretrained", self.pretrained, tags),
        ):
            if given in known or (name == "pretrained" and Path(given).is_file()):
                continue
            near = difflib.get_close_matches(given, known, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "open_clip.list_pretrained() lists models and weights."
            raise ValueError(f"CLIPScore expected a {name} that open_clip knows, got {given!r}; {fix}")

    def encode_images(self, images: Tensor) -> Tensor:
        """Embeddings (n, d) of images (n, 3, H, W) in [0, 1]."""
        return self.model.encode_image(self.preprocess(images))  # type: ignore[no-any-return]

    def encode_text(self, prompt: str) -> Tensor:
        """Embedding (1, d) of a prompt, cut to the context length of the model (77 tokens for most)."""
        assert self._tokenize is not None
        warn_of_unknown_words(getattr(self._tokenize, "tokenizer", None), prompt, owner="CLIPScore")
        return self.model.encode_text(self._tokenize([prompt]).to(self.device))  # type: ignore[no-any-return]


def _locate(name: str) -> str:
    folder = assets.shipped(name)
    if folder is not None:
        return f"local-dir:{folder}"
    if ":" not in name and (Path(name) / "open_clip_config.json").is_file():
        return f"local-dir:{name}"
    if Path(name).is_dir():
        form = "one in the format of transformers" if (Path(name) / "config.json").is_file() else "another one"
        raise ValueError(
            f"model_name expected a folder in the format of open_clip (open_clip_config.json beside the weights), got "
            f"{name}, {form}; download an open_clip model, such as laion/CLIP-ViT-B-32-laion2B-s34B-b79K."
        )
    return name


def _reward_notes(name: str) -> dict[str, Any]:
    if not name.startswith("local-dir:"):
        return {}
    with open(Path(name.removeprefix("local-dir:")) / "open_clip_config.json", encoding="utf-8") as file:
        notes: dict[str, Any] = json.load(file).get("reward", {})
    return notes

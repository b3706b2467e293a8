"""Training of a small open_clip model on captioned scenes with hard negatives: the reward that ships."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor

from fklit.atomic import write_json_atomically
from fklit.emoji.training.contrastive import contrastive_loss
from fklit.emoji.training.degrade import Degrade, gaussian_blur
from fklit.emoji.training.denoised_means import DenoisedMeans
from fklit.emoji.training.word_tokenizer import scene_vocabulary, word_tokenizer
from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine
from fklit.rewards.preprocess import ClipPreprocess

_PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}
_MAX_LOGIT_SCALE = math.log(100.0)  # as in Radford et al. 2021, section 2.5


class ClipTask(LightningModule):
    """Trains an open_clip model and writes a folder that open_clip loads as `local-dir:`.

    The image tower is a ModifiedResNet; the text tower a causal transformer over whole words of the captions
    (49,408 byte-pair embeddings would be most of the file). Unknown words share one embedding, which is trained by
    dropping words.

    Args:
        embed_dim: Size of the common embedding.
        image_size: Side to which images are resized.
        vision_layers: Blocks of each of the four stages.
        vision_width: Channels of the stem; the features are 32 times as many.
        text_width: Channels of the text tower.
        text_layers: Its blocks.
        context_length: Longest caption, in words, with its end.
        degrade: What is done to training images.
        denoised: What replaces some of them by denoised predictions; None for nothing.
        word_dropout: Probability of reading a word as unknown.
        typical_range: Written to the folder for `fklit.rewards.CLIPScore`; None omits it.
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        start_from: `open_clip_model.safetensors` to start from; None for random weights.
        export_dir: Folder to write at the end of `fit`; None for none.

    Batches are those of `fklit.emoji.pairs.EmojiPairsDataModule`.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        image_size: int = 96,
        *,
        vision_layers: tuple[int, int, int, int] = (1, 2, 3, 1),
        vision_width: int = 16,
        text_width: int = 96,
        text_layers: int = 2,
        context_length: int = 16,
        degrade: Degrade | None = None,
        denoised: DenoisedMeans | None = None,
        word_dropout: float = 0.02,
        typical_range: tuple[float, float] | None = None,
        learning_rate: float = 2e-3,
        warmup_steps: int = 200,
        start_from: str | None = None,
        export_dir: str | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        if learning_rate <= 0 or not 0 <= word_dropout < 1:
            raise ValueError(
                f"expected learning_rate above 0 and word_dropout in [0, 1), got {learning_rate} and {word_dropout}; "
                "change the one that is outside."
            )
        if image_size % 32:
            raise ValueError(f"expected image_size as a multiple of 32, got {image_size}; round it.")
        self.degrade = degrade or Degrade()
        self.denoised = denoised
        self.word_dropout = word_dropout
        self.typical_range = typical_range
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.start_from, self.export_dir = start_from, export_dir
        self.vocabulary = scene_vocabulary()
        self.model_config: dict[str, Any] = {
            "embed_dim": embed_dim,
            "vision_cfg": {
                "image_size": image_size,
                "layers": list(vision_layers),
                "width": vision_width,
                "head_width": 64,
            },
            "text_cfg": {
                "context_length": context_length,
                "vocab_size": len(self.vocabulary),
                "hf_tokenizer_name": "in this folder",
                "width": text_width,
                "heads": 4,
                "layers": text_layers,
            },
        }
        self.preprocess = ClipPreprocess(image_size, **_PIXELS)  # type: ignore[arg-type]
        self.tokenizer = word_tokenizer(self.vocabulary)
        from open_clip.model import CLIP

        self.model = CLIP(**self.model_config)

    def setup(self, stage: str) -> None:
        """Loads the weights to start from."""
        if self.start_from is not None:
            from safetensors.torch import load_file

            self.model.load_state_dict(load_file(self.start_from))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The weights of a checkpoint go before those to start from."""
        self.start_from = None

    def embed(self, images: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Unit embeddings of images (n, d) and captions (p, d), float32."""
        tokens = torch.tensor(
            self.tokenizer(
                prompts,
                padding="max_length",
                truncation=True,
                max_length=self.model_config["text_cfg"]["context_length"],
            ).input_ids,
            device=self.device,
        )
        if self.training and self.word_dropout:
            word = (tokens > 1) & (tokens < len(self.vocabulary) - 1)
            tokens = tokens.masked_fill(word & (torch.rand(tokens.shape, device=self.device) < self.word_dropout), 1)
        features = self.model.encode_image(self.preprocess(images)), self.model.encode_text(tokens)
        return F.normalize(features[0].float(), dim=-1), F.normalize(features[1].float(), dim=-1)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step; logs `train/loss` and `train/scale`."""
        pictures = self.degrade(batch["images"])
        if self.denoised is not None:
            # The negatives, too, are predicted under the caption of the scene that they are negatives of.
            captions = batch["prompts"][: len(pictures) // 3] * 3
            pictures = self.denoised(pictures, captions)
        images, texts = self.embed(pictures, batch["prompts"])
        scale = self.model.logit_scale.exp()
        loss = contrastive_loss(images, texts, batch["truth"], scale=scale)
        self.log_dict({"train/loss": loss, "train/scale": scale.detach()})
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keeps the inverse temperature at most 100."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs how often a caption prefers its own image to another one.

        To that of its hard negative: `val/wrong_scene`, and `val/blurred` if all are blurred with 3 pixels;
        to its own corrupted copy: `val/corrupted`.
        """
        images = batch["images"]
        if self.degrade.vae_folder is not None:
            images = self.degrade.reconstruct(images)
        count = len(images) // 3
        for name, pictures in (("", images), ("blurred", gaussian_blur(images, images.new_full((len(images),), 3.0)))):
            embedded, texts = self.embed(pictures, batch["prompts"])
            cosine = embedded @ texts.T
            own = cosine.diagonal()[:count]
            wrong = cosine[torch.arange(count) + count, torch.arange(count)]
            corrupted = cosine[torch.arange(count) + 2 * count, torch.arange(count)]
            really = ~batch["truth"][torch.arange(count) + count, torch.arange(count)]
            rates = {
                f"val/{name or 'wrong_scene'}": (own > wrong)[really].float().mean(),
                **({} if name else {"val/corrupted": (own > corrupted).float().mean()}),
            }
            self.log_dict(rates, batch_size=count, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW, decaying matrices and kernels only, with a warm-up and a cosine over all steps of the run."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.98))
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.save_folder(self.export_dir)

    def save_folder(self, folder: str | Path) -> None:
        """Writes config, tokenizer and weights (float16; the statistics of the normalizations in float32)."""
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        notes = {} if self.typical_range is None else {"reward": {"typical_range": list(self.typical_range)}}
        config = {"model_cfg": self.model_config, "preprocess_cfg": _PIXELS, **notes}
        write_json_atomically(target / "open_clip_config.json", config, indent=2)
        self.tokenizer.save_pretrained(target)
        weights = {
            name: (value if ".bn" in name or "running" in name or value.ndim == 0 else value.half()).cpu().contiguous()
            for name, value in self.model.state_dict().items()
        }
        save_file(weights, target / "open_clip_model.safetensors")

"""Training of a small ImageReward on groups of captioned scenes: the reward that ships and sees relations."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from fklit.atomic import write_json_atomically
from fklit.emoji.caption_groups import CAPTIONS, NOTHING, PICTURES, SPOILED
from fklit.emoji.training.degrade import Degrade
from fklit.emoji.training.denoised_means import DenoisedMeans
from fklit.emoji.training.match_losses import grounding_loss, match_loss, patch_loss
from fklit.emoji.training.regenerate import Regenerate
from fklit.emoji.training.relabel import forget_centers, relabel
from fklit.emoji.training.trajectories import Trajectories
from fklit.emoji.training.word_tokenizer import scene_vocabulary, word_tokenizer
from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine
from fklit.rewards.image_text_network import ImageTextNetwork
from fklit.rewards.preprocess import ClipPreprocess

_PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}
IMAGE_SIZE, PATCH = 64, 8


class ImageRewardTask(LightningModule):
    """Trains the network of ImageReward with a convolutional stem and writes a folder that `ImageReward` loads.

    The score is the log odds that the picture shows what the caption says and nothing else. Two losses beside the
    match itself are needed at this size: what each patch shows (alone at first), and where the object of each
    noun is (Zeng et al. 2022, arXiv:2111.08276): without the second, relations stay at chance.

    Args:
        width: Size of the hidden states of both encoders, a multiple of 8 and of `heads`.
        stem: Widths of the convolutional stem, multiples of 8; the last is `width`.
        vision_layers: Layers of the image encoder.
        text_layers: Layers of the text encoder.
        heads: Attention heads of both.
        head: Hidden sizes of the head.
        max_length: Longest caption, in words, with its start and end.
        degrade: What is done to training pictures.
        denoised: What replaces some of them by denoised predictions; None for nothing.
        regenerate: What draws some of them again; None for nothing.
        trajectories: Runs of the generator, on the way to whose pictures the network learns to foresee its own score
            of these; None for none.
        vision_steps: Steps at the beginning with the loss over patches alone.
        word_dropout: Probability of reading a word as unknown.
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        warmup_steps: Optimizer steps of the warm-up.
        start_from: `model.safetensors` of an exported folder to start from; None for random weights.
        export_dir: Folder to write at the end of `fit`; None for none.

    Batches are those of `fklit.emoji.caption_group_data.CaptionGroupsDataModule`.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        width: int = 128,
        stem: tuple[int, int, int] = (32, 64, 128),
        *,
        vision_layers: int = 4,
        text_layers: int = 3,
        heads: int = 4,
        head: tuple[int, ...] = (128, 64, 16),
        max_length: int = 16,
        degrade: Degrade | None = None,
        denoised: DenoisedMeans | None = None,
        regenerate: Regenerate | None = None,
        trajectories: Trajectories | None = None,
        vision_steps: int = 500,
        word_dropout: float = 0.02,
        learning_rate: float = 1e-3,
        warmup_steps: int = 200,
        start_from: str | None = None,
        export_dir: str | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        if learning_rate <= 0 or not 0 <= word_dropout < 1 or vision_steps < 0:
            raise ValueError(
                f"expected learning_rate above 0, word_dropout in [0, 1) and vision_steps of at least 0, got "
                f"{learning_rate}, {word_dropout} and {vision_steps}; change the one that is outside."
            )
        if heads < 1 or width < 1 or width % heads or min(vision_layers, text_layers) < 1:
            raise ValueError(
                f"expected width as a multiple of heads and at least one layer in each encoder, got width {width}, "
                f"heads {heads}, vision_layers {vision_layers} and text_layers {text_layers}; change the one outside."
            )
        if max_length < 3:
            raise ValueError(f"expected max_length of at least 3, got {max_length}; captions of scenes take up to 10.")
        self.degrade = degrade or Degrade()
        self.denoised, self.regenerate, self.trajectories = denoised, regenerate, trajectories
        self.vision_steps, self.word_dropout = vision_steps, word_dropout
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.start_from, self.export_dir = start_from, export_dir
        self.max_length = max_length
        vocabulary = scene_vocabulary(start=True)
        self.tokenizer = word_tokenizer(vocabulary)
        sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": heads}
        self.model_config: dict[str, Any] = {
            "vision": {**sizes, "num_hidden_layers": vision_layers, "image_size": IMAGE_SIZE, "patch_size": PATCH},
            "text": {
                **sizes,
                "num_hidden_layers": text_layers,
                "vocab_size": len(vocabulary),
                "max_position_embeddings": max_length,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "pad_token_id": 0,
                "bos_token_id": None,
                "sep_token_id": None,
            },
            "head": list(head),
            "stem": list(stem),
        }
        self.preprocess = ClipPreprocess(IMAGE_SIZE, **_PIXELS)  # type: ignore[arg-type]
        self.network = ImageTextNetwork(**self.model_config)
        # Used in training only: what a patch shows, and where the object of a word is.
        self.patch_head = nn.Linear(width, SPOILED + 1)
        self.center_head = nn.Linear(width, 2)
        self._word_range = (3, len(vocabulary) - 1)  # words, between the special tokens

    def setup(self, stage: str) -> None:
        """Loads the weights to start from."""
        if self.start_from is not None:
            from safetensors.torch import load_file

            self.network.load_state_dict(load_file(self.start_from))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The weights of a checkpoint go before those to start from."""
        self.start_from = None

    def see(self, pictures: Tensor) -> Tensor:
        """Image tokens (n, 1 + 64, width) of pictures in [0, 1]."""
        return self.network.encode_images(self.preprocess(pictures))

    def match(self, seen: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log odds (g, 4, 2) of all pairs in g groups, and the hidden states (g, 4, 2, l, width) behind them.

        Args:
            seen: Image tokens of the pictures, (g, 4, p, width).
            tokens: Of the captions, (g, 2, l), l at most `max_length`.

        Raises:
            ValueError: The captions are longer than `max_length`.
        """
        groups = len(tokens)
        if tokens.shape[-1] > self.max_length:
            raise ValueError(
                f"expected captions of at most {self.max_length} tokens, got {tokens.shape[-1]}; give the data module "
                "the max_length of the task."
            )
        pairs = seen[:, :, None].expand(-1, -1, CAPTIONS, -1, -1).flatten(0, 2)
        words = tokens[:, None].expand(-1, PICTURES, -1, -1).flatten(0, 2)
        hidden = self.network.read(words, pairs)
        logits = self.network.head(hidden[:, 0])[:, 0].float()
        shape = (groups, PICTURES, CAPTIONS)
        return logits.view(shape), hidden.view(*shape, *hidden.shape[1:])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step; logs each loss under `train/`."""
        groups = len(batch["tokens"])
        truth, labels = batch["truth"], batch["patches"].flatten(0, 1)
        known, centers = torch.ones_like(truth), batch["centers"]
        pictures = batch["pictures"].flatten(0, 1).float() / 255
        # Right and wrong pictures under the same caption: the first in half of the groups, the second in the rest
        shown = torch.arange(groups) % CAPTIONS
        captions = [batch["captions"][group][shown[group]] for group in range(groups) for _ in range(PICTURES)]
        if self.regenerate is not None:
            pictures, which, change = self.regenerate(pictures, captions)
            truth, known, labels = relabel(truth, known, labels, which=which, change=change, shown=shown)
            centers = forget_centers(centers, which=which, change=change)
        pictures = self.degrade(pictures)
        if self.denoised is not None:
            pictures = self.denoised(pictures, captions)
        seen = self.see(pictures)
        side = labels.shape[-1]
        patches = self.patch_head(seen[:, 1:]).float().transpose(1, 2).reshape(len(labels), -1, side, side)
        losses = {"patch": patch_loss(patches, labels, nothing=NOTHING)}
        if self.global_step >= self.vision_steps:
            losses |= self._match_losses(
                seen.view(groups, PICTURES, *seen.shape[1:]),
                {**batch, "truth": truth, "known": known, "centers": centers},
            )
            if self.trajectories is not None:
                losses["trajectory"] = self._trajectory_loss(batch, self.trajectories)
        self.log_dict({f"train/{name}": loss.detach() for name, loss in losses.items()})
        return torch.stack([*losses.values()]).sum()

    def _match_losses(self, seen: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        tokens = batch["tokens"]
        if self.word_dropout:
            word = (tokens >= self._word_range[0]) & (tokens < self._word_range[1])
            tokens = tokens.masked_fill(word & (torch.rand(tokens.shape, device=self.device) < self.word_dropout), 1)
        logits, hidden = self.match(seen, tokens)
        pairwise, share = match_loss(logits, batch["truth"], batch["known"])
        # hidden state of each noun: (g, 4, 2, 2, width)
        places = batch["places"][:, None, :, :, None].expand(-1, PICTURES, -1, -1, hidden.shape[-1])
        centers = self.center_head(hidden.gather(3, places)).float()
        found = grounding_loss(centers.flatten(0, 2), batch["centers"].flatten(0, 2))
        return {"match": pairwise, "choice": share, "grounding": 4 * found}

    def _trajectory_loss(self, batch: dict[str, Any], trajectories: Trajectories) -> Tensor:
        """Cross-entropy of P(match) of denoised predictions against that of the pictures that came of them."""
        count = min(trajectories.prompts, len(batch["tokens"]))
        repeats = trajectories.samples
        texts = [pair[0] for pair in batch["captions"][:count] for _ in range(repeats)]
        tokens = batch["tokens"][:count, 0].repeat_interleave(repeats, 0)
        final, means = trajectories(texts, self.device)
        training = self.network.training
        self.network.eval()  # no dropout in what is to be foreseen
        with torch.no_grad():
            chance = self._score(final, tokens).sigmoid()
        self.network.train(training)
        kept = means.shape[1]
        odds = self._score(means.flatten(0, 1), tokens.repeat_interleave(kept, 0))
        return F.binary_cross_entropy_with_logits(odds, chance.repeat_interleave(kept, 0))

    def _score(self, pictures: Tensor, tokens: Tensor) -> Tensor:
        """Log odds (n,) that pictures (n, 3, 64, 64) match their captions (n, l)."""
        hidden = self.network.read(tokens, self.see(pictures))
        odds: Tensor = self.network.head(hidden[:, 0])[:, 0].float()
        return odds

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs how often a caption prefers its own picture.

        To that of the other caption: `val/other`, and of a relation: `val/relation`; to all the wrong ones of its
        group: `val/best`; to the spoiled one: `val/spoiled`. Pictures go through the autoencoder, if there is one.
        """
        pictures = batch["pictures"].flatten(0, 1).float() / 255
        if self.degrade.vae_folder is not None:
            pictures = self.degrade.reconstruct(pictures)
        groups = len(batch["tokens"])
        seen = self.see(pictures)
        logits, _ = self.match(seen.view(groups, PICTURES, *seen.shape[1:]), batch["tokens"])
        truth = batch["truth"]
        own = torch.stack([logits[:, 0, 0], logits[:, 1, 1]], 1)
        other = torch.stack([logits[:, 1, 0], logits[:, 0, 1]], 1)
        differ = ~torch.stack([truth[:, 1, 0], truth[:, 0, 1]], 1)
        relation = batch["only_relation"][:, None] & differ
        worst = logits.masked_fill(truth, -torch.inf).amax(1)
        rates = {
            "val/other": (own > other)[differ],
            "val/relation": (own > other)[relation],
            "val/best": (own > worst).flatten(),
            "val/spoiled": (own > logits[:, 3]).flatten(),
        }
        for name, hits in rates.items():
            if len(hits):
                self.log(name, hits.float().mean(), batch_size=len(hits), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW, decaying matrices and kernels only, with a warm-up and a cosine over all steps of the run."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
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
        """Writes `config.json`, the tokenizer and `model.safetensors` (float16), as `ImageReward` reads them."""
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(target)
        weights = {name: value.detach().half().cpu().contiguous() for name, value in self.network.state_dict().items()}
        save_file(weights, target / "model.safetensors")
        settings = {
            **self.model_config,
            "pixels": _PIXELS,
            "max_length": self.max_length,
            "output": "log_probability",
            "typical_range": [-10.0, 0.0],
            "suggested_scale": 8.0,
        }
        write_json_atomically(target / "config.json", settings, indent=1)

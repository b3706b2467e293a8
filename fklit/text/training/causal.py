"""Training of a small causal language model of the same vocabulary, to guide what a masked model writes."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor

from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine
from fklit.text.windows import TextBatch


class CausalLanguageModelTask(LightningModule):
    """Trains transformers' `GPT2LMHeadModel` from random weights and writes a folder of transformers.

    Each window is read from the start token of the tokenizer on, so that the first word is predicted, too.

    Args:
        tokenizer: Folder of the tokenizer of the data.
        vocab_size: Tokens, at least those of the tokenizer.
        width: Size of the hidden states, a multiple of `heads`.
        layers: Layers.
        heads: Attention heads.
        max_length: Positions that the model has, the start token included.
        dropout: Of embeddings, attention and what the layers add, in [0, 1).
        learning_rate: The highest, after the warm-up; a cosine takes it to zero at the end of training.
        weight_decay: Of matrices.
        warmup_steps: Optimizer steps of the warm-up.
        export_dir: Folder of the model, written at the end of `fit`; None for none.

    Batches are those of `fklit.text.TextDataModule`. Logs `train/loss`, `val/loss` (both nats a token) and
    `val/bits_per_character`.

    Raises:
        ValueError: A number is out of its range, or (in `setup`) the tokenizer does not fit.
    """

    def __init__(
        self,
        tokenizer: str = "data/text/tokenizer",
        vocab_size: int = 8192,
        *,
        width: int = 192,
        layers: int = 4,
        heads: int = 4,
        max_length: int = 64,
        dropout: float = 0.1,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.1,
        warmup_steps: int = 100,
        export_dir: str | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        if learning_rate <= 0 or weight_decay < 0 or warmup_steps < 0 or not 0 <= dropout < 1:
            raise ValueError(
                "expected learning_rate above 0, weight_decay and warmup_steps of at least 0 and dropout in [0, 1), "
                f"got {learning_rate}, {weight_decay}, {warmup_steps} and {dropout}; change the one outside."
            )
        if heads < 1 or width < 1 or width % heads or layers < 1:
            raise ValueError(
                f"expected width as a multiple of heads and at least one layer, got width {width}, heads {heads} and "
                f"layers {layers}; change the one outside."
            )
        self.tokenizer, self.vocab_size, self.max_length = tokenizer, vocab_size, max_length
        self.width, self.layers, self.heads, self.dropout = width, layers, heads, dropout
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps
        self.export_dir = export_dir
        self.network = self._build()
        self.start: int | None = None

    def _build(self) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=self.vocab_size,
            n_positions=self.max_length,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            resid_pdrop=self.dropout,
            embd_pdrop=self.dropout,
            attn_pdrop=self.dropout,
            bos_token_id=None,
            eos_token_id=None,
        )
        return GPT2LMHeadModel(config)

    def setup(self, stage: str) -> None:
        """Reads the tokenizer."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        if tokenizer.bos_token_id is None or len(tokenizer) > self.vocab_size:
            raise ValueError(
                f"expected a tokenizer with a start token and at most {self.vocab_size} tokens, got {len(tokenizer)} "
                f"and start {tokenizer.bos_token!r} in {self.tokenizer}; set vocab_size or give another folder."
            )
        self.start = int(tokenizer.bos_token_id)

    def losses(self, tokens: Tensor) -> Tensor:
        """`-log p(token | those before it)` in nats, (n, l).

        Args:
            tokens: (n, l), l below `max_length`.
        """
        assert self.start is not None
        before = F.pad(tokens[:, :-1], (1, 0), value=self.start)
        logits = self.network(input_ids=before).logits.float()
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """One step; logs `train/loss`."""
        loss = self.losses(batch["tokens"]).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Adds to `val/loss`."""
        losses = self.losses(batch["tokens"])
        self.log("val/loss", losses.mean(), batch_size=losses.numel(), prog_bar=True, sync_dist=True)
        characters = int(batch["characters"].sum())
        bits = losses.sum() / characters / math.log(2)
        self.log("val/bits_per_character", bits, batch_size=characters, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW, decaying matrices only, with a warm-up and a cosine over all steps of the run."""
        named = list(self.network.named_parameters())
        decaying = [value for name, value in named if value.ndim == 2 and ".h." in name]
        others = [value for name, value in named if value.ndim != 2 or ".h." not in name]
        groups = [
            {"params": decaying, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.98))
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.save_folder(self.export_dir)

    def save_folder(self, folder: str | Path) -> None:
        """Writes a folder for `AutoModelForCausalLM` and `AutoTokenizer`, in float16.

        Args:
            folder: Where to; the parts that are there are replaced.
        """
        from transformers import AutoTokenizer

        network = self._build().half()
        network.load_state_dict(self.network.state_dict())
        network.config.bos_token_id = self.start
        network.generation_config.bos_token_id = self.start
        network.save_pretrained(folder)
        AutoTokenizer.from_pretrained(self.tokenizer).save_pretrained(folder)

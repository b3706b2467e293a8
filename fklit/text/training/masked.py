"""Training of a masked diffusion model on windows of tokens."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from fklit.hyperparameters import save_hyperparameters
from fklit.learning_rate import with_warmup_cosine
from fklit.text.backbone import DiffusionTransformer, TransformerSettings
from fklit.text.folder import load_folder, save_folder
from fklit.text.nelbo import nelbo_at_counts, nelbo_at_times, stratified_counts, stratified_times
from fklit.text.noise_schedule import LogLinearSchedule, NoiseSchedule
from fklit.text.training.optimizer import MuonWithAdamW, split_parameters
from fklit.text.windows import TextBatch


class MaskedDiffusionTask(LightningModule):
    """Trains a `DiffusionTransformer` on the continuous-time NELBO (Sahoo et al. 2024, arXiv:2406.07524).

    Args:
        tokenizer: Folder of the tokenizer of the data; its mask token is the mask.
        network: What the network is made of; `vocab_size` is that of the tokenizer.
        schedule: Noise schedule of the training times; log-linear by default.
        masking: How many tokens of a text are masked in training: each with the probability of a time of the schedule
            (`"times"`, as published), or a number of them, each as probable as any other (`"counts"`), whose loss has
            the same mean whatever the schedule and half the variance on short texts.
        optimizer: `"muon"` for the matrices of the layers with AdamW for the rest, or `"adamw"` for all. Muon computes
            in bfloat16, which is slow on a CPU without instructions for it.
        learning_rate: The highest, of the matrices; a cosine takes it to zero at the end of training.
        adamw_learning_rate: The highest of embedding, head and norms.
        weight_decay: Of the matrices.
        warmup_steps: Optimizer steps of the warm-up.
        smallest_time: Training times are in (this, 1]; what little the interval below adds is left out. Not of counts.
        compile: Compile the layers with `torch.compile`, which pays on a GPU after a minute.
        export_dir: Folder of the model, written at the end of `fit`; None for none.
        start_from: An exported folder, or the name of a model that ships, whose weights `fit` starts from, such as
            "fklit:text_diffusion" for a training on a text of your own; None for random weights. A checkpoint that is
            given (`--ckpt_path`) has the last word.

    Batches are those of `fklit.text.TextDataModule`; they may have `given` positions (see `TextBatch`), which are never
    masked: the bound is then that of the other tokens. Logs `train/loss`, `val/nelbo` (both nats a token that is not
    given) and `val/bits_per_character`.

    Raises:
        ValueError: A number is out of its range, or (in `setup`) the tokenizer or `start_from` does not fit.
        FileNotFoundError: There is no model in `start_from` (in `setup`).
    """

    def __init__(
        self,
        tokenizer: str = "data/text/tokenizer",
        network: TransformerSettings | None = None,
        *,
        schedule: NoiseSchedule | None = None,
        masking: Literal["times", "counts"] = "times",
        optimizer: Literal["muon", "adamw"] = "muon",
        learning_rate: float = 0.02,
        adamw_learning_rate: float = 3e-3,
        weight_decay: float = 0.1,
        warmup_steps: int = 100,
        smallest_time: float = 1e-3,
        compile: bool = False,
        export_dir: str | None = None,
        start_from: str | None = None,
    ) -> None:
        super().__init__()
        save_hyperparameters(self)
        if min(learning_rate, adamw_learning_rate) <= 0 or weight_decay < 0 or warmup_steps < 0:
            raise ValueError(
                "expected learning rates above 0 and weight_decay and warmup_steps of at least 0, got "
                f"{learning_rate}, {adamw_learning_rate}, {weight_decay} and {warmup_steps}; change the one outside."
            )
        if not 0 <= smallest_time < 1:
            raise ValueError(f"expected smallest_time in [0, 1), got {smallest_time}; give a small time such as 1e-3.")
        if optimizer not in ("muon", "adamw"):
            raise ValueError(f"expected optimizer as muon or adamw, got {optimizer!r}; choose one.")
        if masking not in ("times", "counts"):
            raise ValueError(f"expected masking as times or counts, got {masking!r}; choose one.")
        if masking == "counts" and schedule is not None:
            raise ValueError("expected no schedule with masking='counts', whose loss has none; leave one of them out.")
        self.tokenizer = tokenizer
        self.masking = masking
        self.schedule = schedule or LogLinearSchedule()
        self.optimizer = optimizer
        self.learning_rate, self.adamw_learning_rate = learning_rate, adamw_learning_rate
        self.weight_decay, self.warmup_steps = weight_decay, warmup_steps
        self.smallest_time, self.compile_layers, self.export_dir = smallest_time, compile, export_dir
        self.start_from = start_from
        self.network = DiffusionTransformer(network or TransformerSettings())
        self.mask: int | None = None
        self._layers: Any = self.network.hidden

    def setup(self, stage: str) -> None:
        """Reads the tokenizer."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        size = self.network.settings.vocab_size
        if tokenizer.mask_token_id is None or len(tokenizer) > size:
            raise ValueError(
                f"expected a tokenizer with a mask and at most the network's {size} tokens, got {len(tokenizer)} "
                f"and mask {tokenizer.mask_token!r} in {self.tokenizer}; set network.vocab_size or give another folder."
            )
        self.mask = int(tokenizer.mask_token_id)
        if stage == "fit" and self.start_from is not None:
            self._start(self.start_from, tokenizer)

    def _start(self, folder: str, tokenizer: Any) -> None:
        """Takes over the weights of a folder."""
        network, known = load_folder(folder)
        mine = self.network.settings
        if replace(network.settings, dropout=mine.dropout) != mine:
            raise ValueError(
                f"expected the model in {folder} to have the network's settings {mine}, got {network.settings}; set "
                "`network` to those, or leave `start_from` out."
            )
        if known.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"expected the model in {folder} to have the tokens of {self.tokenizer}, got others; set `tokenizer` "
                "to that folder, or leave `start_from` out."
            )
        self.network.load_state_dict(network.state_dict())

    def on_fit_start(self) -> None:
        """Compiles the layers if that was asked for."""
        if self.compile_layers:
            self._layers = torch.compile(self.network.hidden)

    def logits(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Logits (m, v) of the positions `tokens[at]`."""
        if self.compile_layers and self.training:
            head: Tensor = self.network.head(self._layers(tokens)[at])
            return head
        logits: Tensor = self.network(tokens, at)
        return logits

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """One step; logs `train/loss`."""
        assert self.mask is not None
        tokens, given = batch["tokens"], batch.get("given")
        lengths = torch.full((len(tokens),), tokens.shape[1]) if given is None else (~given).sum(dim=1)
        if self.masking == "counts":
            counts = stratified_counts(lengths)
            loss = nelbo_at_counts(self.logits, tokens, counts, mask=self.mask, given=given).mean()
        else:
            times = self.smallest_time + (1 - self.smallest_time) * stratified_times(len(tokens))
            nelbo = nelbo_at_times(self.logits, tokens, times, self.schedule, mask=self.mask, given=given)
            loss = nelbo.mean() * (1 - self.smallest_time)
        loss = loss / lengths.float().mean().clamp(min=1 / len(lengths))  # 0 for a batch that is given whole
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Adds to `val/nelbo`, with the same masks at every validation."""
        assert self.mask is not None
        tokens, given = batch["tokens"], batch.get("given")
        number = len(tokens)
        length = torch.full((number,), tokens.shape[1], device=self.device)
        if given is not None:
            length = (~given).sum(dim=1)
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        # Every number of masked tokens equally often, so that the mean over a batch hardly varies.
        counts = torch.randperm(number, device=self.device, generator=generator) * length // number + 1
        counts = counts.minimum(length)
        nelbo = nelbo_at_counts(self.logits, tokens, counts, mask=self.mask, given=given, generator=generator)
        size = max(1, int(length.sum()))
        self.log("val/nelbo", nelbo.sum() / size, batch_size=size, prog_bar=True, sync_dist=True)
        characters = int(batch["characters"].sum())
        bits = nelbo.sum() / characters / math.log(2)
        self.log("val/bits_per_character", bits, batch_size=characters, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Muon or AdamW with a warm-up and a cosine over all steps of the run."""
        matrices, others = split_parameters(self.network, inside="blocks.")
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            optimizer = MuonWithAdamW(
                matrices,
                others,
                learning_rate=self.learning_rate,
                adamw_learning_rate=self.adamw_learning_rate,
                weight_decay=self.weight_decay,
            )
        else:
            groups = [
                {"params": matrices, "lr": self.learning_rate, "weight_decay": self.weight_decay},
                {"params": others, "lr": self.adamw_learning_rate, "weight_decay": 0.0},
            ]
            optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        return with_warmup_cosine(optimizer, self.warmup_steps, self.trainer)

    def on_fit_end(self) -> None:
        """Writes the folder."""
        if self.export_dir is not None and self.trainer.is_global_zero:
            self.save_folder(self.export_dir)

    def save_folder(self, folder: str | Path) -> None:
        """Writes `config.json`, `model.safetensors` (float16) and the tokenizer.

        Args:
            folder: Where to; the parts that are there are replaced.
        """
        save_folder(self.network, self.tokenizer, folder)

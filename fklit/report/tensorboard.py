"""What a steered or corrected call returned, as scalars, pictures and histograms of TensorBoard."""

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from fklit.pictures import pictures
from fklit.report.family_tree import family_tree
from fklit.report.formatting import number
from fklit.report.raster import rasterize
from fklit.report.record import PromptRecord, parse_record


class Result(Protocol):
    """What is logged of a `SteeringResult` or a `GuidanceResult`."""

    @property
    def prompt_indices(self) -> Sequence[int]:
        """Indices of the B prompts."""
        ...

    @property
    def samples(self) -> torch.Tensor:
        """Images (B, K, C, H, W), videos (B, K, F, C, H, W), waveforms (B, K, C, T) or tokens (B, K, L)."""
        ...

    @property
    def items(self) -> Sequence[Sequence[Any]]:
        """B lists of K samples; read of texts only."""
        ...

    @property
    def sampling_rate(self) -> int | None:
        """Samples a second of waveforms, None for the rest."""
        ...

    @property
    def previews(self) -> torch.Tensor | None:
        """(S, B, K, 3, h, w), or None."""
        ...

    def record(self, b: int) -> dict[str, Any]:
        """Everything about prompt b but the pictures."""
        ...


def log_result(writer: SummaryWriter, result: Result, *, drawn: int | None = None) -> None:
    """Log a result without a trainer, for example what `fklit.steer` or `fklit.correct` returned.

    Args:
        writer: an open `torch.utils.tensorboard.SummaryWriter`.
        result: what a steered or corrected call returned.
        drawn: prompts to draw in full, from the first; None for all. The others only get the scalars over prompts.
    """
    for b, index in enumerate(result.prompt_indices):
        record = parse_record(result.record(b))
        living = record.log_weights[np.isfinite(record.log_weights)]
        over_prompts = {
            "ess": float(record.ess[-1]),
            "final_log_weight_std": float(living.std()) if len(living) else math.nan,
            "log_z": record.log_z,
            "unique_roots": record.unique_roots,
            "seconds": record.budget["seconds"],
        }
        if record.rewards is not None:
            over_prompts["reward_mean"] = record.weighted_mean(record.rewards)
            over_prompts["reward_best"] = float(record.rewards[record.chosen])
        for name, values in record.terms.items():
            tag = re.sub(r"[^\w.-]+", "_", name).strip("_")
            over_prompts[f"terms/{tag}/mean"] = record.weighted_mean(values)
            over_prompts[f"terms/{tag}/best"] = float(values[record.chosen])
        if record.log_weight_std is not None:
            over_prompts["log_weight_std"] = float(record.log_weight_std.mean())
        for name, value in over_prompts.items():
            writer.add_scalar(f"prompts/{name}", value, index)
        if drawn is None or b < drawn:
            _draw(writer, result, record, b)


def _draw(writer: SummaryWriter, result: Result, record: PromptRecord, b: int) -> None:
    tag, slots = f"{record.prompt_index:05d}", record.num_particles
    writer.add_text(f"{tag}/prompt", record.prompt or "(no prompt)")
    if record.modality == "text":
        writer.add_text(f"{tag}/texts", _table(record, result.items[b]), record.num_steps)
    else:
        writer.add_image(f"{tag}/images", make_grid(pictures(result.samples[b]), nrow=slots, padding=2, pad_value=0.5))
    if result.sampling_rate is not None:
        mono = result.samples[b, record.chosen].mean(0, keepdim=True)
        writer.add_audio(f"{tag}/audio", mono, sample_rate=result.sampling_rate)
    if result.previews is not None and len(result.previews):
        shots = result.previews[:, b].flatten(0, 1)
        writer.add_image(f"{tag}/previews", make_grid(shots, nrow=slots, padding=2, pad_value=128))
    for s, step in enumerate([*record.steps.tolist(), record.num_steps]):
        writer.add_scalar(f"{tag}/ess", record.ess[s], step)
        if record.log_weight_std is not None and s < len(record.log_weight_std):
            writer.add_scalar(f"{tag}/log_weight_std", record.log_weight_std[s], step)
        row = record.values[s][np.isfinite(record.values[s])]
        if len(row):
            writer.add_scalar(f"{tag}/reward/min", row.min(), step)
            writer.add_scalar(f"{tag}/reward/mean", row.mean(), step)
            writer.add_scalar(f"{tag}/reward/max", row.max(), step)
    living = record.log_weights[np.isfinite(record.log_weights)]
    if len(living):
        writer.add_histogram(f"{tag}/log_weights", living, record.num_steps)
    if len(record.steps):
        writer.add_image(f"{tag}/lineages", np.asarray(lineage_image(result, b, record)), dataformats="HWC")


def _table(record: PromptRecord, texts: Sequence[str]) -> str:
    """Texts with reward and weight as a table of Markdown, the chosen one in bold."""
    rows = ["| reward | weight | text |", "| --- | --- | --- |"]
    for slot, text in enumerate(texts):
        reward = number(None if record.rewards is None else float(record.rewards[slot]))
        plain = " ".join(text.replace("|", "\\|").split())
        shown = f"**{plain}**" if slot == record.chosen and plain else plain
        rows.append(f"| {reward} | {number(float(record.weights[slot]))} | {shown} |")
    return "\n".join(rows)


def lineage_image(result: Result, b: int, record: PromptRecord | None = None) -> Image.Image:
    """Family tree of prompt `b` as in the HTML report: slots over steps, colored by root, faded where it died out.

    Args:
        result: what a steered or corrected call returned, with at least one weighted step.
        b: position of the prompt in the result.
        record: `parse_record(result.record(b))` where it is at hand.
    """
    record = record or parse_record(result.record(b))
    if record.modality == "text":
        return rasterize(family_tree(record, None, None, texts=result.items[b]))
    previews = None
    if result.previews is not None and len(result.previews) == len(record.steps):
        previews = result.previews[:, b].permute(0, 1, 3, 4, 2).cpu().numpy()
    images = [to_pil_image(sample.clamp(0, 1).cpu()) for sample in pictures(result.samples[b])]
    return rasterize(family_tree(record, images, previews))

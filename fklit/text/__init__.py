"""Text: masked diffusion models, their noise and their training."""

from fklit.text.backbone import DiffusionTransformer, TransformerSettings
from fklit.text.folder import load_folder, save_folder
from fklit.text.nelbo import MaskedDenoiser, masked_loss, nelbo_at_counts, nelbo_at_times, stratified_times
from fklit.text.noise_schedule import CosineSchedule, LogLinearSchedule, NoiseSchedule
from fklit.text.substitution import substitute
from fklit.text.training.causal import CausalLanguageModelTask
from fklit.text.training.masked import MaskedDiffusionTask
from fklit.text.windows import TextBatch, TextDataModule, Windows

__all__ = [
    "CausalLanguageModelTask",
    "CosineSchedule",
    "DiffusionTransformer",
    "LogLinearSchedule",
    "MaskedDenoiser",
    "MaskedDiffusionTask",
    "NoiseSchedule",
    "TextBatch",
    "TextDataModule",
    "TransformerSettings",
    "Windows",
    "load_folder",
    "masked_loss",
    "nelbo_at_counts",
    "nelbo_at_times",
    "save_folder",
    "stratified_times",
    "substitute",
]

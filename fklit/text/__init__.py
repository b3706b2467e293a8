"""Text: masked diffusion models, their noise and their training."""

from fklit.text.ancestral import AncestralModel, TextState
from fklit.text.backbone import DiffusionTransformer, TransformerSettings
from fklit.text.denoising import Denoising, Predictions
from fklit.text.expert import TextExpert
from fklit.text.folder import load_folder, save_folder
from fklit.text.masked_language_model import MaskedLanguageModel
from fklit.text.masked_model import MaskedTextModel
from fklit.text.nelbo import (
    MaskedDenoiser,
    masked_loss,
    nelbo_at_counts,
    nelbo_at_times,
    stratified_counts,
    stratified_times,
)
from fklit.text.noise_schedule import CosineSchedule, LogLinearSchedule, NoiseSchedule
from fklit.text.pipeline_source import TextPipelineSource
from fklit.text.proposals import GradientProposal, TiltedProposal, TokenProposal
from fklit.text.published import load_published
from fklit.text.source import MaskedTextSource
from fklit.text.steered_text import SteeredText, TextSampling
from fklit.text.substitution import substitute
from fklit.text.training.causal import CausalLanguageModelTask
from fklit.text.training.masked import MaskedDiffusionTask
from fklit.text.twisted import StepProposal, TwistedProposal
from fklit.text.unmasking import transition_log_probs
from fklit.text.windows import TextBatch, TextDataModule, Windows

__all__ = [
    "AncestralModel",
    "CausalLanguageModelTask",
    "CosineSchedule",
    "Denoising",
    "DiffusionTransformer",
    "GradientProposal",
    "LogLinearSchedule",
    "MaskedDenoiser",
    "MaskedDiffusionTask",
    "MaskedLanguageModel",
    "MaskedTextModel",
    "MaskedTextSource",
    "NoiseSchedule",
    "Predictions",
    "SteeredText",
    "StepProposal",
    "TextBatch",
    "TextDataModule",
    "TextExpert",
    "TextPipelineSource",
    "TextSampling",
    "TextState",
    "TiltedProposal",
    "TokenProposal",
    "TransformerSettings",
    "TwistedProposal",
    "Windows",
    "load_folder",
    "load_published",
    "masked_loss",
    "nelbo_at_counts",
    "nelbo_at_times",
    "save_folder",
    "stratified_counts",
    "stratified_times",
    "substitute",
    "transition_log_probs",
]

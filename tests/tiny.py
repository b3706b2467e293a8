"""Tiny random pipelines of the real diffusers classes: milliseconds a step, the same weights in every process.

Images are 16 x 16 (latents 4 x 8 x 8, except for DDPM, which draws pixels). The tokenizer is a real CLIPTokenizer
that spells words letter by letter. Every builder takes a folder, into which the pipeline is saved, and leaves the
global random state as it was.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

_TEXT_WIDTH = 16
_MAX_TOKENS = 24


def tiny_tokenizer() -> Any:
    """A CLIPTokenizer whose vocabulary is the printable characters, alone and at the end of a word."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *[f"{letter}</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as name:
        vocabulary, merges = Path(name, "vocab.json"), Path(name, "merges.txt")
        vocabulary.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=_MAX_TOKENS)


def _text_config(projection: int = _TEXT_WIDTH) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=190,
        hidden_size=_TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=_MAX_TOKENS,
        projection_dim=projection,
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=16,
    )


def _unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": _TEXT_WIDTH,
    }
    return UNet2DConditionModel(**{**settings, **changes})


def _ddim() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _finish(pipeline: Any, folder: str | Path | None) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if folder is not None:
        pipeline.save_pretrained(folder, safe_serialization=True)
    return pipeline


def _stable_diffusion(class_name: str, folder: str | Path | None, seed: int) -> Any:
    import diffusers
    from transformers import CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = getattr(diffusers, class_name)(
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config()),
            tokenizer=tiny_tokenizer(),
            unet=_unet(),
            scheduler=_ddim(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return _finish(pipeline, folder)


def tiny_stable_diffusion(folder: str | Path | None = None, *, seed: int = 0) -> Any:
    """A StableDiffusionPipeline with DDIM; saved into ``folder`` if one is given."""
    return _stable_diffusion("StableDiffusionPipeline", folder, seed)


def tiny_img2img(folder: str | Path | None = None, *, seed: int = 0) -> Any:
    """A StableDiffusionImg2ImgPipeline with the same weights; give it ``image`` (16 x 16) and ``strength``."""
    return _stable_diffusion("StableDiffusionImg2ImgPipeline", folder, seed)


def tiny_inpaint(folder: str | Path | None = None, *, seed: int = 0) -> Any:
    """A StableDiffusionInpaintPipeline with the same weights (4 input channels: it edits latents between steps)."""
    return _stable_diffusion("StableDiffusionInpaintPipeline", folder, seed)


def tiny_sdxl(folder: str | Path | None = None, *, seed: int = 0) -> Any:
    """A StableDiffusionXLPipeline with two text encoders and Euler, as SDXL ships."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config()),
            text_encoder_2=CLIPTextModelWithProjection(_text_config()),
            tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_tokenizer(),
            unet=_unet(
                cross_attention_dim=2 * _TEXT_WIDTH,
                addition_embed_type="text_time",
                addition_time_embed_dim=4,
                projection_class_embeddings_input_dim=6 * 4 + _TEXT_WIDTH,
                transformer_layers_per_block=1,
                use_linear_projection=True,
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                steps_offset=1,
                timestep_spacing="leading",
            ),
            add_watermarker=False,
        )
    return _finish(pipeline, folder)


def tiny_ddpm(folder: str | Path | None = None, *, seed: int = 0) -> Any:
    """A DDPMPipeline: unconditional, draws 16 x 16 pixels, ignores ``output_type="latent"``."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DModel(
            sample_size=16,
            in_channels=3,
            out_channels=3,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            add_attention=False,
        )
    return _finish(DDPMPipeline(unet=unet, scheduler=DDPMScheduler()), folder)

"""The parts of the shipped text-to-image pipeline: how they are built, and how the pipeline becomes a folder."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fklit.atomic import write_json_atomically
from fklit.emoji.prompts import all_prompts
from fklit.emoji.training.tokenizer import train_clip_tokenizer
from fklit.metrics.geneval import TAGS


def build_tokenizer(max_length: int) -> Any:
    """A `CLIPTokenizer` that learns its vocabulary from every prompt of the emoji scenes.

    Args:
        max_length: Tokens of a padded caption.
    """
    return train_clip_tokenizer((prompt.text for tag in TAGS for prompt in all_prompts(tag)), max_length=max_length)


def build_text_encoder(tokenizer: Any, *, width: int, layers: int) -> Any:
    """A `CLIPTextModel` with random weights.

    Args:
        tokenizer: Its vocabulary and special tokens.
        width: Size of the embeddings.
        layers: Transformer layers.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(
    block_out_channels: Sequence[int],
    *,
    attention: Sequence[bool],
    layers_per_block: int,
    num_heads: int,
    text_width: int,
    sample_size: int,
    latent_channels: int,
) -> Any:
    """A `UNet2DConditionModel` with random weights; see `TextToImageTask` for the arguments."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    unet = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attention)),
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        attention_head_dim=num_heads,  # diffusers' name for the number of heads
        cross_attention_dim=text_width,
        norm_num_groups=16,
    )
    # Plain attention: sequences are short, and torch's fused one is slow backwards on CPU (99 against 147 latents
    # a second on one core for the shipped model).
    unet.set_attn_processor(AttnProcessor())
    return unet


def build_scheduler() -> Any:
    """A `DDIMScheduler` for velocity prediction.

    The noise schedule is the scaled-linear one of Stable Diffusion with a higher end, so that a fully noised latent
    keeps 1.5 % of its amplitude instead of 7 %: sampling starts from pure noise, and white images would turn gray
    otherwise.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.02,
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        steps_offset=1,  # of no effect with trailing steps; diffusers warns about 0
    )


def save_pipeline(pipeline: Any, folder: str | Path) -> None:
    """Writes a `StableDiffusionPipeline` of these parts as a folder of float16 safetensors.

    Args:
        pipeline: Its networks are left as they are.
        folder: Where to; the parts that are there are replaced.
    """
    for name in ("unet", "text_encoder", "vae"):
        # On copies: rounding the networks themselves would harm a training that goes on.
        setattr(pipeline, name, torch.nn.Module.half(copy.deepcopy(getattr(pipeline, name)).cpu()))
    pipeline.save_pretrained(folder, safe_serialization=True)
    # Without a dtype diffusers loads float32, and transformers what this file says: they must agree.
    config = Path(folder) / "text_encoder" / "config.json"
    write_json_atomically(config, json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}, indent=2)
    # The path that the autoencoder was loaded from is private, and changes what `fingerprint` says of the folder.
    config = Path(folder) / "vae" / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    write_json_atomically(config, {k: v for k, v in settings.items() if k != "_name_or_path"}, indent=2)
    # transformers 5 writes tokenizer.json only; older readers want the two files of the CLIP format.
    pipeline.tokenizer.backend_tokenizer.model.save(str(Path(folder) / "tokenizer"))

"""Text-to-image classes of families of videos: Kandinsky 5 and Cosmos-Predict2."""

from typing import Any

import tiny
import torch
from transformers import CLIPTextModel

from tiny_families.components import assemble, component, euler, kl
from tiny_families.encodings import TOKENS, embeds, encode_by, pooled
from tiny_families.row import Row


def _kandinsky() -> Any:
    network = component(
        "Kandinsky5Transformer3DModel", in_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16,
        out_visual_dim=4, patch_size=(1, 2, 2), model_dim=16, ff_dim=32, num_text_blocks=1, num_visual_blocks=1,
        axes_dims=(2, 2, 4),
    )  # fmt: skip
    pipeline = assemble(
        "Kandinsky5T2IPipeline", transformer=network, vae=kl(4, shift_factor=None), scheduler=euler(shift=3.0),
        text_encoder=CLIPTextModel(tiny._text_config()),
    )  # fmt: skip
    pipeline.resolutions = [(32, 32)]
    pipeline.vae_scale_factor_spatial = 2
    encoded = encode_by(pipeline, embeds(16), pooled(16)).encode_prompt

    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        texts, vectors = encoded(*args, **kwargs)
        return texts, vectors, torch.arange(len(texts) + 1, dtype=torch.int32) * TOKENS

    pipeline.encode_prompt = encode_prompt
    return pipeline


class _Checker(torch.nn.Module):
    """In the place of a safety checker, without which the class does not run: finds everything safe."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def _cosmos() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    network = component(
        "CosmosTransformer3DModel", in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=16,
        num_layers=1, mlp_ratio=2, text_embed_dim=16, adaln_lora_dim=4, max_size=(4, 32, 32), patch_size=(1, 2, 2),
        rope_scale=(2.0, 1.0, 1.0), concat_padding_mask=True, extra_pos_embed_type="learnable",
    )  # fmt: skip
    pipeline = assemble(
        "Cosmos2TextToImagePipeline", transformer=network, vae=component("AutoencoderKLWan"),
        scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True), safety_checker=_Checker(),
    )  # fmt: skip
    return encode_by(pipeline, embeds(16), embeds(16, negative=True))


ROWS = [
    Row("Kandinsky5T2IPipeline", "Kandinsky 5 (images)", _kandinsky,
        "kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers", main=True, loose=True,
        arguments={"height": 32, "width": 32, "guidance_scale": 3.0}),
    Row("Cosmos2TextToImagePipeline", "Cosmos-Predict2 (images)", _cosmos, "nvidia/Cosmos-Predict2-2B-Text2Image",
        main=True, loose=True, arguments={"height": 32, "width": 32, "guidance_scale": 3.0}),
]  # fmt: skip

"""Bria FIBO: a network fed by all layers of a language model."""

from typing import Any

import torch

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import TOKENS, encoding
from tiny_families.row import Row


def _fibo() -> Any:
    network = component(
        "BriaFiboTransformer2DModel", patch_size=1, in_channels=16, num_layers=2, num_single_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=64, text_encoder_dim=32,
        pooled_projection_dim=None, axes_dims_rope=[0, 4, 4],
    )  # fmt: skip
    pipeline = assemble(
        "BriaFiboPipeline", transformer=network, scheduler=euler(), vae=component("AutoencoderKLWan"), tokenizer=None
    )

    def encode_prompt(
        prompt: Any, device: Any = None, num_images_per_prompt: int = 1, guidance_scale: float = 5.0,
        negative_prompt: Any = None, **ignored: Any,
    ) -> Any:  # fmt: skip
        prompts = [prompt] if isinstance(prompt, str) else prompt
        negatives = [negative_prompt or ""] * len(prompts) if not isinstance(negative_prompt, list) else negative_prompt
        rows = num_images_per_prompt * len(prompts)
        both = [encoding(texts, TOKENS, 64, repeats=num_images_per_prompt) for texts in (prompts, negatives)]
        masks = [torch.ones(rows, TOKENS, dtype=torch.int64)] * 2
        layers = [[found[..., :32] * (0.5 + i) for i in range(4)] for found in both]
        return *both, torch.zeros(TOKENS, 3), *masks, *layers

    pipeline.encode_prompt = encode_prompt
    return pipeline


ROWS = [
    Row("BriaFiboPipeline", "Bria FIBO", _fibo, "briaai/FIBO", main=True,
        arguments={"height": 32, "width": 32, "guidance_scale": 3.0}),
]  # fmt: skip

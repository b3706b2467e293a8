"""HiDream-I1: a mixture of experts fed by several layers of a language model."""

from typing import Any

import torch

from tiny_families.components import assemble, component, euler, kl
from tiny_families.encodings import TOKENS, encoding
from tiny_families.row import Row


def _hidream() -> Any:
    network = component(
        "HiDreamImageTransformer2DModel", patch_size=2, in_channels=4, out_channels=4, num_layers=1,
        num_single_layers=1, attention_head_dim=8, num_attention_heads=4, caption_channels=[32, 16], text_emb_dim=64,
        num_routed_experts=4, num_activated_experts=2, axes_dims_rope=(4, 2, 2), max_resolution=(32, 32),
        llama_layers=(0, 1), force_inference_output=True,
    )  # fmt: skip
    pipeline = assemble("HiDreamImagePipeline", transformer=network, scheduler=euler(shift=3.0), vae=kl(4))

    def encode_prompt(
        prompt: Any = None, num_images_per_prompt: int = 1, do_classifier_free_guidance: bool = True,
        negative_prompt: Any = None, **ignored: Any,
    ) -> Any:  # fmt: skip
        prompts = [prompt] if isinstance(prompt, str) else prompt
        negatives = [negative_prompt or ""] * len(prompts) if not isinstance(negative_prompt, list) else negative_prompt
        texts, many = (prompts, negatives), {"repeats": num_images_per_prompt}
        t5 = [encoding(found, TOKENS, 32, **many) for found in texts]
        llama = [torch.stack([encoding(found, TOKENS, 16, **many) * scale for scale in (1, 2)]) for found in texts]
        pooled = [encoding(found, 64, **many) for found in texts]
        return *t5, *llama, *pooled

    pipeline.default_sample_size = 8  # every call is scaled to this area
    pipeline.encode_prompt = encode_prompt
    return pipeline


ROWS = [
    Row("HiDreamImagePipeline", "HiDream-I1", _hidream, "HiDream-ai/HiDream-I1-Full", main=True, loose=True,
        arguments={"height": 16, "width": 16, "guidance_scale": 3.0}),
]  # fmt: skip

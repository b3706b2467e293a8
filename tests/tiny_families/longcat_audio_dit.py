"""LongCat-AudioDiT: speech by flow matching."""

from typing import Any

import torch

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import TOKENS, encoding
from tiny_families.row import Row


def _longcat() -> Any:
    transformer = component(
        "LongCatAudioDiTTransformer", dit_dim=16, dit_depth=2, dit_heads=2, dit_text_dim=16, latent_dim=8,
        use_latent_condition=True, ff_mult=2.0,
    )  # fmt: skip
    vae = component(
        "LongCatAudioDiTVae", channels=8, c_mults=[1, 2], strides=[2, 4], latent_dim=8, encoder_latent_dim=16,
        downsampling_ratio=8, sample_rate=64,
    )  # fmt: skip
    pipeline = assemble("LongCatAudioDiTPipeline", transformer=transformer, vae=vae, scheduler=euler())

    def encode_prompt(prompt: Any, *ignored: Any, **more: Any) -> Any:
        found = encoding(prompt, TOKENS, 16)
        return found, torch.full((len(found),), TOKENS)

    pipeline.encode_prompt = encode_prompt
    return pipeline


ROWS = [
    Row("LongCatAudioDiTPipeline", "LongCat-AudioDiT", _longcat, "meituan-longcat/LongCat-AudioDiT-1B", "audio",
        main=True, loose=True, arguments={"audio_duration_s": 2.0, "guidance_scale": 3.0}),
]  # fmt: skip

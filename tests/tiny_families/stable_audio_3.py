"""Stable Audio 3: flow matching of waveforms in patches."""

from typing import Any

import torch

from tiny_families.components import assemble, component, euler
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row

_HUB = "stabilityai/stable-audio-3-medium"
_SOUND = torch.rand(1, 2, 64, generator=torch.Generator().manual_seed(9)) - 0.5


def _stable_audio_3(name: str) -> Any:
    from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

    transformer = component(
        "StableAudio3DiTModel", io_channels=8, patch_size=1, embed_dim=16, depth=2, num_heads=2, cond_token_dim=16,
        global_cond_dim=16, local_add_cond_dim=9, timestep_features_dim=16, ff_mult=2.0, num_memory_tokens=2,
    )  # fmt: skip
    vae = component(
        "AutoencoderSAME", audio_channels=2, patch_size=4, encoder_channels=8, encoder_c_mults=(1,),
        encoder_strides=(2,), encoder_transformer_depths=(1,), latent_dim=8, dim_heads=8, ff_mult=1, sampling_rate=64,
    )  # fmt: skip
    duration = StableAudio3DurationEmbedder(output_dim=16, fourier_dim=16)
    pipeline = assemble(name, transformer=transformer, vae=vae, scheduler=euler(), duration_embedder=duration)
    return encode_by(pipeline, embeds(16), mask())


ROWS = [
    Row("StableAudio3Pipeline", "Stable Audio 3", lambda: _stable_audio_3("StableAudio3Pipeline"), _HUB, "audio",
        main=True, loose=True, arguments={"duration": 1.0, "guidance_scale": 3.0}),
    Row("StableAudio3AudioToAudioPipeline", "Stable Audio 3",
        lambda: _stable_audio_3("StableAudio3AudioToAudioPipeline"), _HUB, "audio", loose=True,
        arguments={"duration": 1.0, "audio": _SOUND, "init_noise_level": 0.9}),
    Row("StableAudio3InpaintPipeline", "Stable Audio 3", lambda: _stable_audio_3("StableAudio3InpaintPipeline"), _HUB,
        "audio", loose=True,
        arguments={"duration": 1.0, "audio": _SOUND, "mask_start_seconds": 0.2, "mask_end_seconds": 0.6}),
]  # fmt: skip

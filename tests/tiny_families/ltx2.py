"""LTX-2: videos with sound, which is stepped by a copy of the scheduler."""

from typing import Any

from tiny_families.components import assemble, component, euler, pil
from tiny_families.encodings import TOKENS, Part, encode_by, mask
from tiny_families.row import Row

_GIVEN = {"height": 32, "width": 32, "num_frames": 5, "frame_rate": 25.0, "guidance_scale": 3.0}
_HUB = "Lightricks/LTX-2"


def _ltx2(name: str) -> Any:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    transformer = component(
        "LTX2VideoTransformer3DModel", in_channels=4, out_channels=4, patch_size=1, patch_size_t=1,
        num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, audio_in_channels=4,
        audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4, audio_cross_attention_dim=8,
        num_layers=2, caption_channels=16, rope_double_precision=False, rope_type="split",
    )  # fmt: skip
    registers = {"video_connector_num_learnable_registers": None, "audio_connector_num_learnable_registers": None}
    connectors = LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=2, video_connector_num_attention_heads=4,
        video_connector_attention_head_dim=4, video_connector_num_layers=1, audio_connector_num_attention_heads=4,
        audio_connector_attention_head_dim=4, audio_connector_num_layers=1, **registers, rope_double_precision=False,
        rope_type="split",
    )  # fmt: skip
    vae = component(
        "AutoencoderKLLTX2Video", in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8,),
        decoder_block_out_channels=(8,), layers_per_block=(1,), decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,), decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False), downsample_type=("spatial",), upsample_residual=(False,),
        upsample_factor=(1,), patch_size=1, patch_size_t=1, encoder_causal=True, decoder_causal=False,
        down_block_types=("LTX2VideoDownBlock3D",),
    )  # fmt: skip
    vocoder = LTX2Vocoder(
        in_channels=16, hidden_channels=32, out_channels=2, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], output_sampling_rate=16000,
    )  # fmt: skip
    pipeline = assemble(
        name, transformer=transformer, connectors=connectors, vae=vae, audio_vae=_audio_vae(), vocoder=vocoder,
        scheduler=euler(),
    )  # fmt: skip
    return encode_by(
        pipeline, Part((TOKENS, 32)), mask(), Part((TOKENS, 32), negative=True), mask(negative=True)
    )  # fmt: skip


def _audio_vae() -> Any:
    from diffusers import AutoencoderKLLTX2Audio

    return AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, in_channels=2, resolution=32,
        latent_channels=2, mel_bins=8,
    )  # fmt: skip


ROWS = [
    Row("LTX2Pipeline", "LTX-2", lambda: _ltx2("LTX2Pipeline"), _HUB, "video", main=True, loose=True,
        arguments=_GIVEN),
    Row("LTX2ImageToVideoPipeline", "LTX-2", lambda: _ltx2("LTX2ImageToVideoPipeline"), _HUB, "video", loose=True,
        per_sample=("image",), arguments={**_GIVEN, "image": [pil(32)], "image_crf": 0}, shown=("image_crf",)),
]  # fmt: skip

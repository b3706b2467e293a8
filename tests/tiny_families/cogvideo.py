"""CogVideoX: DDIM, and its own solver, which takes the denoised prediction of the step before as an argument."""

from typing import Any

from tiny_families.components import assemble, component, pil
from tiny_families.encodings import TOKENS, embeds, encode_by
from tiny_families.row import Row

_GIVEN = {"height": 16, "width": 16, "num_frames": 8, "guidance_scale": 3.0}
_HUB = "THUDM/CogVideoX-5b"


def _cogvideo(name: str, channels: int = 4, *, solver: bool = False, **options: Any) -> Any:
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler

    transformer = component(
        "CogVideoXTransformer3DModel", num_attention_heads=2, attention_head_dim=16, in_channels=channels,
        out_channels=4, time_embed_dim=2, text_embed_dim=32, num_layers=1, sample_width=2, sample_height=2,
        sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=TOKENS, **options,
    )  # fmt: skip
    vae = component(
        "AutoencoderKLCogVideoX", in_channels=3, out_channels=3, block_out_channels=(8, 8, 8, 8), latent_channels=4,
        layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
    )  # fmt: skip
    kind = CogVideoXDPMScheduler if solver else CogVideoXDDIMScheduler
    scheduler = kind(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True, clip_sample=False
    )
    pipeline = assemble(name, transformer=transformer, vae=vae, scheduler=scheduler)
    return encode_by(pipeline, embeds(32), embeds(32, negative=True))


ROWS = [
    Row("CogVideoXPipeline", "CogVideoX", lambda: _cogvideo("CogVideoXPipeline", solver=True), _HUB, "video",
        main=True, loose=True, arguments=_GIVEN),
    Row("CogVideoXImageToVideoPipeline", "CogVideoX", lambda: _cogvideo("CogVideoXImageToVideoPipeline", 8,
        use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True), "THUDM/CogVideoX-5b-I2V",
        "video", loose=True, per_sample=("image",), arguments={**_GIVEN, "image": [pil(16)]}),
    Row("CogVideoXVideoToVideoPipeline", "CogVideoX", lambda: _cogvideo("CogVideoXVideoToVideoPipeline"),
        "THUDM/CogVideoX-2b", "video", loose=True, per_sample=("video",),
        arguments={"height": 16, "width": 16, "guidance_scale": 3.0, "video": [[pil(16)] * 8], "strength": 0.8}),
    Row("CogVideoXFunControlPipeline", "CogVideoX", lambda: _cogvideo("CogVideoXFunControlPipeline", 8),
        "alibaba-pai/CogVideoX-Fun-V1.1-5b-Pose", "video", loose=True, per_sample=("control_video",),
        arguments={"height": 16, "width": 16, "guidance_scale": 3.0, "control_video": [[pil(16)] * 8]}),
]  # fmt: skip

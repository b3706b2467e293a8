"""Cosmos: world models, of EDM (1.0) and flow matching (2, 2.5)."""

from typing import Any

from tiny_families.components import assemble, component, euler, pil
from tiny_families.encodings import embeds, encode_by
from tiny_families.row import Row

_GIVEN = {"height": 32, "width": 32, "num_frames": 9, "guidance_scale": 3.0}


class _Unchecked:
    """A safety checker that lets everything pass; the real one is a package of its own."""

    def check_text_safety(self, prompt: Any) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video

    def to(self, *args: Any, **kwargs: Any) -> Any:
        return self


def _transformer(channels: int, latents: int = 16, **options: Any) -> Any:
    return component(
        "CosmosTransformer3DModel", in_channels=channels, out_channels=latents, num_attention_heads=2,
        attention_head_dim=16, num_layers=2, mlp_ratio=2, text_embed_dim=32, adaln_lora_dim=4, max_size=(4, 32, 32),
        patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0), concat_padding_mask=True, extra_pos_embed_type="learnable",
        **options,
    )  # fmt: skip


def _ready(name: str, **parts: Any) -> Any:
    pipeline = assemble(name, safety_checker=_Unchecked(), **parts)
    return encode_by(pipeline, embeds(32), embeds(32, negative=True))


def _world(name: str, channels: int) -> Any:
    from diffusers import EDMEulerScheduler

    vae = component(
        "AutoencoderKLCosmos", in_channels=3, out_channels=3, latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8), decode_block_out_channels=(8, 8, 8, 8), attention_resolutions=(8,),
        resolution=64, num_layers=2, patch_size=4, patch_type="haar", scaling_factor=1.0, spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )  # fmt: skip
    scheduler = EDMEulerScheduler(
        sigma_min=0.002, sigma_max=80, sigma_data=0.5, sigma_schedule="karras", num_train_timesteps=1000,
        prediction_type="epsilon", rho=7.0, final_sigmas_type="sigma_min",
    )  # fmt: skip
    return _ready(name, transformer=_transformer(channels, 4), vae=vae, scheduler=scheduler)


def _cosmos_2_5() -> Any:
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    parts = {"transformer": _transformer(17), "vae": component("AutoencoderKLWan"), "scheduler": scheduler}
    return _ready("Cosmos2_5_PredictBasePipeline", **parts)


def _cosmos_2(name: str, channels: int) -> Any:
    scheduler = euler(use_karras_sigmas=True)
    return _ready(name, transformer=_transformer(channels), vae=component("AutoencoderKLWan"), scheduler=scheduler)


ROWS = [
    Row("CosmosTextToWorldPipeline", "Cosmos", lambda: _world("CosmosTextToWorldPipeline", 4),
        "nvidia/Cosmos-1.0-Diffusion-7B-Text2World", "video", main=True, loose=True, arguments=_GIVEN),
    Row("CosmosVideoToWorldPipeline", "Cosmos", lambda: _world("CosmosVideoToWorldPipeline", 5),
        "nvidia/Cosmos-1.0-Diffusion-7B-Video2World", "video", loose=True, arguments={**_GIVEN, "image": pil(32)}),
    Row("Cosmos2TextToImagePipeline", "Cosmos", lambda: _cosmos_2("Cosmos2TextToImagePipeline", 16),
        "nvidia/Cosmos-Predict2-2B-Text2Image", loose=True,
        arguments={"height": 32, "width": 32, "guidance_scale": 3.0}),
    Row("Cosmos2VideoToWorldPipeline", "Cosmos", lambda: _cosmos_2("Cosmos2VideoToWorldPipeline", 17),
        "nvidia/Cosmos-Predict2-2B-Video2World", "video", loose=True, per_sample=("image",),
        arguments={**_GIVEN, "image": [pil(32)]}),
    Row("Cosmos2_5_PredictBasePipeline", "Cosmos", _cosmos_2_5, "nvidia/Cosmos-Predict2.5-2B", "video", loose=True,
        arguments=_GIVEN),
]  # fmt: skip

"""Stable Video Diffusion: a picture and no prompt; guidance grows along the frames."""

from typing import Any

from tiny_families.components import assemble, component, pil
from tiny_families.row import Row


def _image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=224,
            patch_size=56, projection_dim=16,
        )
    )  # fmt: skip


def _svd() -> Any:
    from diffusers import EulerDiscreteScheduler
    from transformers import CLIPImageProcessor

    unet = component(
        "UNetSpatioTemporalConditionModel", block_out_channels=(32, 64), layers_per_block=2, sample_size=32,
        in_channels=8, out_channels=4, down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=16,
        num_attention_heads=8, projection_class_embeddings_input_dim=96, addition_time_embed_dim=32,
    )  # fmt: skip
    vae = component(
        "AutoencoderKLTemporalDecoder", block_out_channels=[32, 64], in_channels=3, out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", interpolation_type="linear",
        num_train_timesteps=1000, prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002, steps_offset=1,
        timestep_spacing="leading", timestep_type="continuous", trained_betas=None, use_karras_sigmas=True,
    )  # fmt: skip
    return assemble(
        "StableVideoDiffusionPipeline", unet=unet, vae=vae, scheduler=scheduler,
        image_encoder=_image_encoder(), feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
    )  # fmt: skip


ROWS = [
    Row("StableVideoDiffusionPipeline", "Stable Video Diffusion", _svd,
        "stabilityai/stable-video-diffusion-img2vid-xt", "video", main=True, loose=True, prompts=None,
        per_sample=("image",), arguments={"height": 32, "width": 32, "num_frames": 2, "image": [pil(32)]}),
]  # fmt: skip

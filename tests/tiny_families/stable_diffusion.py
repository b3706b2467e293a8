"""Stable Diffusion 1.x and 2.x: text-to-image, img2img, inpainting, editing, variation, upscaling."""

from typing import Any

import tiny
import tiny_pipelines

from tiny_families.components import component, picture, recast
from tiny_families.row import Row

_SIZE = {"height": 16, "width": 16}
_GUIDED = {"guidance_scale": 3.0}
_V1 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_FAMILY = "Stable Diffusion"
MASK = (picture(seed=4)[:, :1] > 0.5).float()


def _with_unet(name: str, channels: int, **parts: Any) -> Any:
    options = parts.pop("unet", {})
    return recast(name, tiny.tiny_stable_diffusion(), unet=tiny._unet(in_channels=channels, **options), **parts)


def _upscale() -> Any:
    from diffusers import DDPMScheduler

    vae = component("AutoencoderKL", block_out_channels=(4, 4, 8), down_block_types=("DownEncoderBlock2D",) * 3,
                    up_block_types=("UpDecoderBlock2D",) * 3)  # fmt: skip
    return _with_unet(
        "StableDiffusionUpscalePipeline", 7, unet={"num_class_embeds": 1000, "sample_size": 16}, vae=vae,
        low_res_scheduler=DDPMScheduler(),
    )  # fmt: skip


def _latent_upscale() -> Any:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(prediction_type="original_sample")
    return _with_unet(
        "StableDiffusionLatentUpscalePipeline",
        8,
        unet={"time_cond_proj_dim": 144, "out_channels": 5},
        scheduler=scheduler,
    )


def _unclip() -> Any:
    from diffusers import PriorTransformer, UnCLIPScheduler
    from transformers import CLIPTextModelWithProjection

    base = tiny_pipelines.tiny_unclip_img2img()
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=16, num_layers=1, num_embeddings=24
    )
    return recast(
        "StableUnCLIPPipeline", base, prior=prior, prior_tokenizer=tiny.tiny_tokenizer(),
        prior_text_encoder=CLIPTextModelWithProjection(tiny._text_config()),
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample"),
    )  # fmt: skip


ROWS = [
    Row("StableDiffusionPipeline", _FAMILY, tiny.tiny_stable_diffusion, _V1, main=True,
        arguments={**_SIZE, **_GUIDED}),
    Row("StableDiffusionImg2ImgPipeline", _FAMILY, tiny.tiny_img2img, _V1,
        arguments={"image": picture(), "strength": 0.8, **_GUIDED}),
    Row("StableDiffusionInpaintPipeline", _FAMILY, lambda: _with_unet("StableDiffusionInpaintPipeline", 9),
        "stable-diffusion-v1-5/stable-diffusion-inpainting",
        arguments={**_SIZE, "image": picture(), "mask_image": MASK, "strength": 1.0, **_GUIDED}),
    Row("StableDiffusionDepth2ImgPipeline", _FAMILY, lambda: _with_unet("StableDiffusionDepth2ImgPipeline", 5),
        "stabilityai/stable-diffusion-2-depth",
        arguments={"image": picture(), "depth_map": picture()[:, 0], "strength": 0.8, **_GUIDED}),
    Row("StableDiffusionInstructPix2PixPipeline", _FAMILY, tiny_pipelines.tiny_instruct_pix2pix,
        "timbrooks/instruct-pix2pix", arguments={"image": picture(), **_GUIDED}),
    Row("StableDiffusionImageVariationPipeline", _FAMILY, tiny_pipelines.tiny_image_variation,
        "lambdalabs/sd-image-variations-diffusers", prompts=None, per_sample=("image",),
        arguments={**_SIZE, "image": picture(rows=2), **_GUIDED}),
    Row("StableDiffusionUpscalePipeline", _FAMILY, _upscale, "stabilityai/stable-diffusion-x4-upscaler",
        per_sample=("image",), arguments={"image": picture(8), "noise_level": 20, **_GUIDED}),
    Row("StableDiffusionLatentUpscalePipeline", _FAMILY,
        _latent_upscale, "stabilityai/sd-x2-latent-upscaler",
        per_sample=("image",), arguments={"image": picture(), **_GUIDED}),
    Row("StableUnCLIPImg2ImgPipeline", _FAMILY, tiny_pipelines.tiny_unclip_img2img,
        "stabilityai/stable-diffusion-2-1-unclip", per_sample=("image",),
        arguments={**_SIZE, "image": picture(rows=2), "noise_level": 400, **_GUIDED}),
    Row("StableUnCLIPPipeline", _FAMILY, _unclip, "stabilityai/stable-diffusion-2-1-unclip-small",
        arguments={**_SIZE, "prior_num_inference_steps": 2, **_GUIDED}),
]  # fmt: skip

"""Tiny random pipelines of further diffusers classes, beside those of ``tiny``: what their calls take differs most."""

import functools
from collections.abc import Callable
from typing import Any

import tiny
import torch


def _seeded(build: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(build)
    def seeded() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipeline = build()
        return tiny._finish(pipeline, None)

    return seeded


def _checkerless() -> dict[str, Any]:
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _text_parts() -> dict[str, Any]:
    from transformers import CLIPTextModel

    return {"text_encoder": CLIPTextModel(tiny._text_config()), "tokenizer": tiny.tiny_tokenizer()}


def _controlnet(unet: Any) -> Any:
    from diffusers import ControlNetModel

    net = ControlNetModel.from_unet(unet, conditioning_channels=3, conditioning_embedding_out_channels=(4, 8))
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):  # zero convolutions would hide what the condition does
            torch.nn.init.normal_(part.weight, std=0.1)
    return net


@_seeded
def tiny_controlnet() -> Any:
    """A StableDiffusionControlNetPipeline; give it ``image`` (16 x 16)."""
    from diffusers import StableDiffusionControlNetPipeline

    unet = tiny._unet()
    return StableDiffusionControlNetPipeline(
        vae=tiny._vae(), unet=unet, controlnet=_controlnet(unet), scheduler=tiny._ddim(), **_text_parts(),
        **_checkerless(),
    )  # fmt: skip


@_seeded
def tiny_multi_controlnet() -> Any:
    """A StableDiffusionControlNetPipeline with two nets, each of which takes an image of its own."""
    from diffusers import StableDiffusionControlNetPipeline

    unet = tiny._unet()
    return StableDiffusionControlNetPipeline(
        vae=tiny._vae(), unet=unet, controlnet=[_controlnet(unet), _controlnet(unet)], scheduler=tiny._ddim(),
        **_text_parts(), **_checkerless(),
    )  # fmt: skip


@_seeded
def tiny_sdxl_controlnet() -> Any:
    """A StableDiffusionXLControlNetPipeline."""
    from diffusers import StableDiffusionXLControlNetPipeline

    parts = tiny.tiny_sdxl().components
    taken = ("vae", "unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
    return StableDiffusionXLControlNetPipeline(
        **{name: parts[name] for name in taken}, controlnet=_controlnet(parts["unet"]), add_watermarker=False
    )


@_seeded
def tiny_sdxl_img2img() -> Any:
    """A StableDiffusionXLImg2ImgPipeline."""
    from diffusers import StableDiffusionXLImg2ImgPipeline

    parts = tiny.tiny_sdxl().components
    taken = ("vae", "unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
    return StableDiffusionXLImg2ImgPipeline(**{name: parts[name] for name in taken}, add_watermarker=False)


@_seeded
def tiny_instruct_pix2pix() -> Any:
    """A StableDiffusionInstructPix2PixPipeline; the image's latents are channels beside the samples."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    return StableDiffusionInstructPix2PixPipeline(
        vae=tiny._vae(), unet=tiny._unet(in_channels=8), scheduler=tiny._ddim(), **_text_parts(), **_checkerless()
    )


@_seeded
def tiny_image_variation() -> Any:
    """A StableDiffusionImageVariationPipeline: an image and no prompt."""
    from diffusers import StableDiffusionImageVariationPipeline
    from transformers import CLIPImageProcessor

    return StableDiffusionImageVariationPipeline(
        vae=tiny._vae(), image_encoder=_image_encoder(), unet=tiny._unet(), scheduler=tiny._ddim(),
        safety_checker=None, feature_extractor=CLIPImageProcessor(size=16, crop_size=16),
        requires_safety_checker=False,
    )  # fmt: skip


def _image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16,
            patch_size=8, projection_dim=16,
        )
    )  # fmt: skip


@_seeded
def tiny_unclip_img2img() -> Any:
    """A StableUnCLIPImg2ImgPipeline: an image, whose noised embedding is a class label, and a prompt."""
    from diffusers import DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPImageProcessor

    return StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(size=16, crop_size=16), image_encoder=_image_encoder(),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=16), image_noising_scheduler=DDPMScheduler(),
        unet=tiny._unet(class_embed_type="projection", projection_class_embeddings_input_dim=32),
        scheduler=tiny._ddim(), vae=tiny._vae(), **_text_parts(),
    )  # fmt: skip


@_seeded
def tiny_kandinsky_decoder() -> Any:
    """A KandinskyV22Pipeline: image embeddings and no prompt; draws 16 x 16 at ``height=16, width=16``."""
    from diffusers import DDPMScheduler, KandinskyV22Pipeline, UNet2DConditionModel, VQModel

    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=8, addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", block_out_channels=(8, 16), layers_per_block=1,
        encoder_hid_dim=16, encoder_hid_dim_type="image_proj", cross_attention_dim=16, attention_head_dim=4,
        norm_num_groups=4, resnet_time_scale_shift="scale_shift", class_embed_type=None,
    )  # fmt: skip
    movq = VQModel(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), norm_num_groups=8, norm_type="spatial",
        num_vq_embeddings=12, layers_per_block=1, latent_channels=4, vq_embed_dim=4, in_channels=3, out_channels=3,
    )  # fmt: skip
    return KandinskyV22Pipeline(unet=unet, scheduler=DDPMScheduler(clip_sample=False), movq=movq)


def _t5() -> dict[str, Any]:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=190, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return {"text_encoder": T5EncoderModel(config).eval(), "tokenizer": tiny.tiny_tokenizer()}


def _pixel_unet(in_channels: int, **changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, in_channels=in_channels, out_channels=6, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=16,
        encoder_hid_dim=16, attention_head_dim=4, addition_embed_type="text", addition_embed_type_num_heads=2,
        norm_num_groups=4, resnet_time_scale_shift="scale_shift", act_fn="gelu", **changes,
    )  # fmt: skip


def _learned_ddpm() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(variance_type="learned_range", clip_sample=False)


@_seeded
def tiny_if() -> Any:
    """An IFPipeline (DeepFloyd): pixels of 16 x 16, T5."""
    from diffusers import IFPipeline

    return IFPipeline(
        unet=_pixel_unet(3), scheduler=_learned_ddpm(), safety_checker=None, feature_extractor=None, watermarker=None,
        requires_safety_checker=False, **_t5(),
    )  # fmt: skip


@_seeded
def tiny_if_super_resolution() -> Any:
    """An IFSuperResolutionPipeline; one image a prompt is its rule."""
    from diffusers import DDPMScheduler, IFSuperResolutionPipeline

    return IFSuperResolutionPipeline(
        unet=_pixel_unet(6, class_embed_type="timestep"), scheduler=_learned_ddpm(),
        image_noising_scheduler=DDPMScheduler(), safety_checker=None, feature_extractor=None, watermarker=None,
        requires_safety_checker=False, **_t5(),
    )  # fmt: skip


@_seeded
def tiny_pixart() -> Any:
    """A PixArtAlphaPipeline: a transformer, T5 and attention masks."""
    from diffusers import PixArtAlphaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, caption_channels=16,
        in_channels=4, cross_attention_dim=16, out_channels=8, attention_bias=True, norm_type="ada_norm_single",
        num_embeds_ada_norm=1000, norm_elementwise_affine=False, norm_eps=1e-6,
    )  # fmt: skip
    return PixArtAlphaPipeline(vae=tiny._vae(), transformer=transformer, scheduler=tiny._ddim(), **_t5())


@_seeded
def tiny_dit() -> Any:
    """A DiTPipeline: class labels and no prompt."""
    from diffusers import DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    return DiTPipeline(transformer=transformer, vae=tiny._vae(), scheduler=tiny._ddim())


@_seeded
def tiny_ldm_super_resolution() -> Any:
    """An LDMSuperResolutionPipeline: a batch of images and no prompt."""
    from diffusers import LDMSuperResolutionPipeline, UNet2DModel, VQModel

    unet = UNet2DModel(
        sample_size=16, in_channels=6, out_channels=3, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4,
    )  # fmt: skip
    vqvae = VQModel(
        block_out_channels=(8, 16), in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=3, norm_num_groups=4,
    )  # fmt: skip
    return LDMSuperResolutionPipeline(vqvae=vqvae, unet=unet, scheduler=tiny._ddim())


@_seeded
def tiny_animatediff() -> Any:
    """An AnimateDiffPipeline, which accepts ``num_videos_per_prompt`` and ignores it."""
    from diffusers import AnimateDiffPipeline, MotionAdapter

    adapter = MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2
    )
    return AnimateDiffPipeline(
        vae=tiny._vae(), unet=tiny._unet(), motion_adapter=adapter, scheduler=tiny._ddim(), **_text_parts()
    )

"""Tiny random flow-matching pipelines of the real diffusers classes, with random text encodings in place of encoders.

`PIPELINES` names a builder and the arguments of a call for each family; pictures are 16 or 32 pixels wide. What is
initialized to zero is perturbed, so that every input matters.
"""

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import torch

_TOKENS = 6


def embedding(texts: Any, *shape: int, repeats: int = 1) -> torch.Tensor:
    """A random encoding (N, *shape) of each text, equal for equal texts, rows of one text side by side."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    rows = []
    for text in texts:
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        rows += [torch.randn(*shape, generator=torch.Generator().manual_seed(seed))] * repeats
    return torch.stack(rows)


def _negative(prompt: Any, negative: Any) -> list[str]:
    count = 1 if isinstance(prompt, str) else len(prompt)
    negative = negative or ""
    return [negative] * count if isinstance(negative, str) else list(negative)


def _perturbed(*networks: Any) -> None:
    for network in networks:
        network.eval().requires_grad_(False)
        for parameter in network.parameters():
            if float(parameter.abs().max()) == 0:
                parameter.normal_(0, 0.2)


def _euler(**options: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def _kl(latents: int, **options: Any) -> Any:
    from diffusers import AutoencoderKL

    given = {
        "in_channels": 3, "out_channels": 3, "block_out_channels": (4, 4), "layers_per_block": 1, "norm_num_groups": 1,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": latents, "sample_size": 32, "use_quant_conv": False, "use_post_quant_conv": False,
        "shift_factor": 0.06, "scaling_factor": 1.5,
    }  # fmt: skip
    return AutoencoderKL(**{**given, **options})


def stable_diffusion_3() -> Any:
    """SD3: guidance in one call of twice the rows."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=32, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=32, pooled_projection_dim=16, out_channels=4,
    )  # fmt: skip
    pipeline = StableDiffusion3Pipeline(
        transformer, _euler(shift=3.0), _kl(4), None, None, None, None, None, None
    )  # fmt: skip

    def encode_prompt(prompt: Any, num_images_per_prompt: int = 1, negative_prompt: Any = None, **ignored: Any) -> Any:
        both = (prompt, _negative(prompt, negative_prompt))
        given = {"repeats": num_images_per_prompt}
        return (
            *(embedding(texts, _TOKENS, 32, **given) for texts in both), *(embedding(t, 16, **given) for t in both),
        )  # fmt: skip

    return _ready(pipeline, encode_prompt)


def _flux_parts(guidance: bool) -> tuple[Any, ...]:
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=guidance,
    )  # fmt: skip
    return _euler(use_dynamic_shifting=True), _kl(1), None, None, None, None, transformer


def _flux_encode(prompt: Any, num_images_per_prompt: int = 1, **ignored: Any) -> Any:
    given = {"repeats": num_images_per_prompt}
    return embedding(prompt, _TOKENS, 32, **given), embedding(prompt, 32, **given), torch.zeros(_TOKENS, 3)


def flux(name: str = "FluxPipeline", *, guidance: bool = True) -> Any:
    """Flux dev (distilled guidance) and its relatives by name; schnell without the embedding of guidance."""
    import diffusers

    return _ready(getattr(diffusers, name)(*_flux_parts(guidance)), _flux_encode)


def flux_2() -> Any:
    """Flux 2: the autoencoder normalizes by running moments."""
    from diffusers import AutoencoderKLFlux2, Flux2Pipeline, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, timestep_guidance_channels=256, axes_dims_rope=[4, 4, 4, 4],
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        sample_size=32, block_out_channels=(4,), layers_per_block=1, latent_channels=1, norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    pipeline = Flux2Pipeline(_euler(use_dynamic_shifting=True), vae, None, None, transformer)

    def encode_prompt(prompt: Any, num_images_per_prompt: int = 1, **ignored: Any) -> Any:
        found = embedding(prompt, _TOKENS, 16, repeats=num_images_per_prompt)
        return found, torch.zeros(found.shape[0], _TOKENS, 4)

    return _ready(pipeline, encode_prompt)


def chroma() -> Any:
    """Chroma: guidance in two calls."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the class itself uses a deprecated one
        transformer = ChromaTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=[4, 4, 8], approximator_hidden_dim=32,
            approximator_layers=1, approximator_num_channels=16,
        )  # fmt: skip
    pipeline = ChromaPipeline(_euler(use_dynamic_shifting=True), _kl(1), None, None, transformer)

    def encode_prompt(prompt: Any, negative_prompt: Any = None, num_images_per_prompt: int = 1, **ignored: Any) -> Any:
        found = []
        for texts in (prompt, _negative(prompt, negative_prompt)):
            rows = embedding(texts, _TOKENS, 32, repeats=num_images_per_prompt)
            found += [rows, torch.zeros(_TOKENS, 3), torch.ones(rows.shape[0], _TOKENS)]
        return tuple(found)

    return _ready(pipeline, encode_prompt)


def qwen_image() -> Any:
    """Qwen-Image: true guidance in two calls; a video autoencoder with one frame."""
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=24, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.0, 0.3], latents_std=[1.0, 0.5, 2.0, 1.5],
    )  # fmt: skip
    pipeline = QwenImagePipeline(_euler(use_dynamic_shifting=True), vae, None, None, transformer)

    def encode_prompt(prompt: Any, num_images_per_prompt: int = 1, **ignored: Any) -> Any:
        found = embedding(prompt, _TOKENS, 16, repeats=num_images_per_prompt)
        return found, torch.ones(found.shape[0], _TOKENS, dtype=torch.long)

    return _ready(pipeline, encode_prompt)


def wan() -> Any:
    """Wan 2.1: UniPC on a flow grid, videos, guidance in two calls."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipeline = WanPipeline(None, None, vae, scheduler, transformer)

    def encode_prompt(prompt: Any, negative_prompt: Any = None, num_videos_per_prompt: int = 1, **ignored: Any) -> Any:
        both = (prompt, _negative(prompt, negative_prompt))
        return tuple(embedding(texts, _TOKENS, 32, repeats=num_videos_per_prompt) for texts in both)

    return _ready(pipeline, encode_prompt)


def _masked(width: int) -> Callable[..., Any]:
    """Embeddings and masks of the prompts, then of the negative prompts."""

    def encode_prompt(
        prompt: Any,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Any = None,
        num_images_per_prompt: int = 1,
        **ignored: Any,
    ) -> Any:
        # AuraFlow has the negative prompt in second place.
        negative = negative_prompt if isinstance(do_classifier_free_guidance, bool) else do_classifier_free_guidance
        found: list[Any] = []
        for texts in (prompt, _negative(prompt, negative)):
            rows = embedding(texts, _TOKENS, width, repeats=num_images_per_prompt)
            found += [rows, torch.ones(rows.shape[0], _TOKENS, dtype=torch.long)]
        return tuple(found)

    return encode_prompt


def aura_flow() -> Any:
    """AuraFlow: guidance in one call."""
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel

    transformer = AuraFlowTransformer2DModel(
        sample_size=32, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32, out_channels=4,
        pos_embed_max_size=256,
    )  # fmt: skip
    pipeline = AuraFlowPipeline(None, None, _kl(4, shift_factor=None), transformer, _euler(shift=1.73))
    return _ready(pipeline, _masked(32))


def lumina_2() -> Any:
    """Lumina 2: the network's output is negated before the step."""
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    transformer = Lumina2Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, hidden_size=8, num_layers=2, num_attention_heads=1,
        num_kv_heads=1, multiple_of=16, ffn_dim_multiplier=None, norm_eps=1e-5, scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2], cap_feat_dim=8,
    )  # fmt: skip
    return _ready(Lumina2Pipeline(transformer, _euler(shift=6.0), _kl(4), None, None), _masked(8))


def sana() -> Any:
    """Sana: a deep-compression autoencoder."""
    from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel

    transformer = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
        sample_size=32,
    )  # fmt: skip
    blocks = ("ResBlock", "EfficientViTBlock")
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1), decoder_layers_per_block=[1, 1],
        downsample_block_type="conv", upsample_block_type="interpolate", decoder_norm_types="rms_norm",
        decoder_act_fns="silu", scaling_factor=0.41407,
    )  # fmt: skip
    return _ready(SanaPipeline(None, None, vae, transformer, _euler(shift=3.0)), _masked(8))


def cogview_4() -> Any:
    """CogView 4: guidance in two calls, dynamic shifting by its own formula."""
    from diffusers import CogView4Pipeline, CogView4Transformer2DModel

    transformer = CogView4Transformer2DModel(
        patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=4, out_channels=4,
        text_embed_dim=32, time_embed_dim=8, condition_dim=4,
    )  # fmt: skip
    scheduler = _euler(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear")
    pipeline = CogView4Pipeline(None, None, _kl(4), transformer, scheduler)

    def encode_prompt(
        prompt: Any, negative_prompt: Any = None, guided: bool = True, num_images_per_prompt: int = 1, **ignored: Any
    ) -> Any:
        both = (prompt, _negative(prompt, negative_prompt))
        return tuple(embedding(texts, 16, 32, repeats=num_images_per_prompt) for texts in both)

    return _ready(pipeline, encode_prompt)


def z_image() -> Any:
    """Z-Image: lists of samples and of embeddings; the network's output is negated."""
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, norm_eps=1e-5, qk_norm=True, cap_feat_dim=16, rope_theta=256.0, t_scale=1000.0,
        axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    pipeline = ZImagePipeline(_euler(shift=3.0), _kl(16), None, None, transformer)

    def encode_prompt(prompt: Any, negative_prompt: Any = None, **ignored: Any) -> Any:
        if isinstance(prompt, list):  # the real one edits the list in place, too
            for i, text in enumerate(prompt):
                prompt[i] = f"<{text}>"
        both = (prompt, _negative(prompt, negative_prompt))
        return tuple(list(embedding(texts, _TOKENS, 16)) for texts in both)

    return _ready(pipeline, encode_prompt)


def ltx() -> Any:
    """LTX-Video: packed latents of videos."""
    from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
        cross_attention_dim=32, num_layers=1, caption_channels=32,
    )  # fmt: skip
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False), decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5, upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, patch_size=1,
        patch_size_t=1,
    )  # fmt: skip
    pipeline = LTXPipeline(_euler(use_dynamic_shifting=True), vae, None, None, transformer)

    def encode_prompt(
        prompt: Any, negative_prompt: Any = None, do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1, **ignored: Any,
    ) -> Any:  # fmt: skip
        return _masked(32)(prompt, True, negative_prompt, num_videos_per_prompt)

    return _ready(pipeline, encode_prompt)


def _ready(pipeline: Any, encode_prompt: Callable[..., Any]) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.encode_prompt = encode_prompt
    _perturbed(*[part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)])
    return pipeline


SQUARE = {"height": 16, "width": 16}
PICTURE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(9))
PIPELINES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "sd3": (stable_diffusion_3, {**SQUARE, "guidance_scale": 3.0}),
    "flux-dev": (flux, SQUARE),
    "flux-true-cfg": (flux, {**SQUARE, "true_cfg_scale": 2.0, "negative_prompt": "bad"}),
    "flux-schnell": (lambda: flux(guidance=False), {**SQUARE, "guidance_scale": 0.0}),
    "flux-img2img": (lambda: flux("FluxImg2ImgPipeline"), {**SQUARE, "image": PICTURE, "strength": 0.8}),
    "flux-kontext": (
        lambda: flux("FluxKontextPipeline"),
        {**SQUARE, "image": PICTURE, "max_area": 256, "_auto_resize": False},
    ),
    "flux2": (flux_2, SQUARE),
    "chroma": (chroma, {**SQUARE, "guidance_scale": 3.0}),
    "qwen-image": (qwen_image, {**SQUARE, "true_cfg_scale": 3.0, "negative_prompt": "bad"}),
    "aura-flow": (aura_flow, {**SQUARE, "guidance_scale": 3.0}),
    "lumina2": (lumina_2, {**SQUARE, "guidance_scale": 3.0}),
    "sana": (sana, {"height": 32, "width": 32, "guidance_scale": 3.0, "use_resolution_binning": False}),
    "cogview4": (cogview_4, {**SQUARE, "guidance_scale": 3.0}),
    "z-image": (z_image, {"height": 32, "width": 32, "guidance_scale": 3.0}),
    "wan": (wan, {**SQUARE, "num_frames": 1, "guidance_scale": 3.0}),
    "ltx": (ltx, {"height": 32, "width": 32, "num_frames": 1, "guidance_scale": 3.0}),
}


def make(name: str) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a family, with the same weights in every process, and arguments of its call."""
    build, arguments = PIPELINES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(), dict(arguments)

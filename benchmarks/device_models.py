"""Text-to-image and text-to-video models at full size with random weights, made on the device one at a time.

No text encoder is built: the calls take random prompt embeddings of the right shapes. Weights are normal with
variance 1 / fan-in, which keeps activations of order one; the cost of a step does not depend on their values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DIFFUSION_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
IMAGE_DECODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
# The shrunken models run on a CPU in seconds; what they test is this script.
SMALL_DECODER = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


_WITHOUT_TEXT = {"text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None}


@dataclass(frozen=True)
class Model:
    """A pipeline that can be built, and what it is called with.

    Attributes:
        name: of the row.
        make_networks: makes the networks by name, on the default device and in the default precision.
        assemble: makes the pipeline of them; schedulers compute their grids on the CPU in float32.
        embeddings: shapes of the prompt embeddings by argument, without the axis of prompts.
        call: further arguments of the call.
    """

    name: str
    make_networks: Callable[[], dict[str, nn.Module]]
    assemble: Callable[..., Any]
    embeddings: dict[str, tuple[int, ...]]
    call: dict[str, Any]

    def pipeline(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The pipeline on `device`, with weights in `dtype`, in evaluation mode."""
        parts = self.networks(device, dtype)
        source = torch.Generator(device).manual_seed(0)
        for network in parts.values():
            for parameter in network.parameters():
                if parameter.ndim > 1:  # biases and the scales of norms stay as they are
                    parameter.normal_(0, parameter[0].numel() ** -0.5, generator=source)
        pipeline = self.assemble(**parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def networks(self, device: torch.device, dtype: torch.dtype) -> dict[str, nn.Module]:
        """The networks on `device`; what diffusers keeps in float32 when it loads a model is so here."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                parts = self.make_networks()
        finally:
            torch.set_default_dtype(before)
        for network in parts.values():
            network.eval().requires_grad_(False)
            kept = getattr(network, "_keep_in_fp32_modules", None) or ()
            for name, parameter in network.named_parameters():
                if any(part in kept for part in name.split(".")):
                    parameter.data = parameter.data.float()
            if device.type != "meta":  # tables that were computed by NumPy
                torch.nn.Module.to(network, device)
        return parts

    def arguments(self, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments of a call for one prompt, with random embeddings."""
        source = torch.Generator().manual_seed(1)
        found: dict[str, Tensor] = {
            name: torch.randn(1, *shape, generator=source).to(device, dtype) for name, shape in self.embeddings.items()
        }
        return {**found, **self.call}


def stable_diffusion_xl(small: bool) -> Model:
    """SDXL: a U-Net of 2.6 billion parameters, 1024 x 1024, guidance in one call of two rows a sample."""

    def make_networks() -> dict[str, nn.Module]:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        unet = {
            "sample_size": 128, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 2,
            "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
            "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }  # fmt: skip
        if small:
            unet |= {
                "sample_size": 8, "block_out_channels": (8, 16),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1, "norm_num_groups": 4,
                "transformer_layers_per_block": 1, "attention_head_dim": (1, 2), "cross_attention_dim": 16,
                "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 16,
            }  # fmt: skip
        vae = {"latent_channels": 4, "scaling_factor": 0.13025, "sample_size": 1024, **IMAGE_DECODER}
        return {
            "vae": AutoencoderKL(**(vae | SMALL_DECODER if small else vae)), "unet": UNet2DConditionModel(**unet),
        }  # fmt: skip

    def assemble(**parts: nn.Module) -> Any:
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        scheduler = EulerDiscreteScheduler(**DIFFUSION_BETAS, timestep_spacing="leading")
        return StableDiffusionXLPipeline(**parts, **_WITHOUT_TEXT, scheduler=scheduler, add_watermarker=False)

    tokens, pooled = ((6, 16), (16,)) if small else ((77, 2048), (1280,))
    return Model(
        "SDXL", make_networks, assemble,
        {"prompt_embeds": tokens, "negative_prompt_embeds": tokens, "pooled_prompt_embeds": pooled,
         "negative_pooled_prompt_embeds": pooled},
        {**_square(16 if small else 1024), "guidance_scale": 5.0},
    )  # fmt: skip


def stable_diffusion_3_medium(small: bool) -> Model:
    """Stable Diffusion 3.5 medium: a transformer of 2.5 billion parameters, 1024 x 1024, guidance as in SDXL."""

    def make_networks() -> dict[str, nn.Module]:
        from diffusers import SD3Transformer2DModel

        transformer = {
            "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
            "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
            "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm",
        }  # fmt: skip
        if small:
            transformer |= {
                "sample_size": 16, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
                "joint_attention_dim": 16, "caption_projection_dim": 16, "pooled_projection_dim": 16,
                "pos_embed_max_size": 16, "dual_attention_layers": (0,),
            }  # fmt: skip
        return {"transformer": SD3Transformer2DModel(**transformer), "vae": _latents_of_16(1.5305, 0.0609, small)}

    def assemble(**parts: nn.Module) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

        rest = {**_WITHOUT_TEXT, "text_encoder_3": None, "tokenizer_3": None}
        return StableDiffusion3Pipeline(**parts, **rest, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))

    tokens, pooled = ((6, 16), (16,)) if small else ((333, 4096), (2048,))
    return Model(
        "SD3.5-medium", make_networks, assemble,
        {"prompt_embeds": tokens, "negative_prompt_embeds": tokens, "pooled_prompt_embeds": pooled,
         "negative_pooled_prompt_embeds": pooled},
        {**_square(16 if small else 1024), "guidance_scale": 4.5},
    )  # fmt: skip


def flux_1(small: bool) -> Model:
    """FLUX.1 dev: a transformer of 12 billion parameters, 1024 x 1024, distilled guidance (one row a sample)."""

    def make_networks() -> dict[str, nn.Module]:
        from diffusers import FluxTransformer2DModel

        transformer = {
            "patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
            "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
            "guidance_embeds": True,
        }  # fmt: skip
        if small:
            transformer |= {
                "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
                "joint_attention_dim": 16, "pooled_projection_dim": 16, "axes_dims_rope": (4, 4, 8),
            }  # fmt: skip
        return {"transformer": FluxTransformer2DModel(**transformer), "vae": _latents_of_16(0.3611, 0.1159, small)}

    def assemble(**parts: nn.Module) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
        return FluxPipeline(**parts, **_WITHOUT_TEXT, scheduler=scheduler)

    return Model(
        "FLUX.1", make_networks, assemble,
        {"prompt_embeds": (6, 16) if small else (512, 4096), "pooled_prompt_embeds": (16,) if small else (768,)},
        {**_square(16 if small else 1024), "guidance_scale": 3.5},
    )  # fmt: skip


def wan_small(small: bool) -> Model:
    """Wan 2.1 of 1.3 billion parameters, 33 frames of 480 x 832, guidance in two calls of one row a sample."""

    def make_networks() -> dict[str, nn.Module]:
        from diffusers import AutoencoderKLWan, WanTransformer3DModel

        transformer = {
            "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16, "out_channels": 16,
            "text_dim": 4096, "freq_dim": 256, "ffn_dim": 8960, "num_layers": 30,
        }  # fmt: skip
        if small:
            transformer |= {
                "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "ffn_dim": 32, "num_layers": 1,
                "rope_max_seq_len": 32,
            }  # fmt: skip
        vae = {"base_dim": 3, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1} if small else {}
        return {"transformer": WanTransformer3DModel(**transformer), "vae": AutoencoderKLWan(**vae)}

    def assemble(**parts: nn.Module) -> Any:
        from diffusers import UniPCMultistepScheduler, WanPipeline

        scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
        return WanPipeline(tokenizer=None, text_encoder=None, scheduler=scheduler, **parts)

    tokens = (6, 16) if small else (512, 4096)
    size = {**_square(16), "num_frames": 5} if small else {"height": 480, "width": 832, "num_frames": 33}
    return Model(
        "Wan 1.3B",
        make_networks,
        assemble,
        {"prompt_embeds": tokens, "negative_prompt_embeds": tokens},
        {**size, "guidance_scale": 5.0},
    )


MODELS: dict[str, Callable[[bool], Model]] = {
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3_medium,
    "flux": flux_1,
    "wan": wan_small,
}


def _latents_of_16(scale: float, shift: float, small: bool) -> Any:
    from diffusers import AutoencoderKL

    given = {
        "latent_channels": 16, "scaling_factor": scale, "shift_factor": shift, "sample_size": 1024,
        "use_quant_conv": False, "use_post_quant_conv": False, **IMAGE_DECODER,
    }  # fmt: skip
    return AutoencoderKL(**(given | SMALL_DECODER if small else given))


def _square(size: int) -> dict[str, int]:
    return {"height": size, "width": size}

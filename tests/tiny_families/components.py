"""A tiny network of any class of diffusers, made from its constructor's signature."""

import importlib
import inspect
from typing import Any

import torch

# What a constructor that has an argument of this name is given.
TINY: dict[str, Any] = {
    "patch_size": 2, "patch_size_t": 1, "num_layers": 1, "num_single_layers": 1, "num_mmdit_layers": 1,
    "num_single_dit_layers": 1, "num_refiner_layers": 1, "n_refiner_layers": 1, "n_layers": 2, "depth": 1,
    "num_attention_heads": 2, "n_heads": 2, "num_heads": 2, "attention_head_dim": 8, "in_channels": 4,
    "out_channels": 4, "sample_size": 8, "norm_num_groups": 2, "layers_per_block": 1, "ffn_dim": 32,
    "cross_attention_dim": 16, "caption_channels": 16, "joint_attention_dim": 16, "pooled_projection_dim": 16,
    "caption_projection_dim": 16, "text_dim": 16, "text_embed_dim": 16, "pos_embed_max_size": 64,
}  # fmt: skip

# Where the table does not fit, or says too little: by class.
OVERRIDES: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {
        "in_channels": 3, "out_channels": 3, "block_out_channels": (4, 8), "latent_channels": 4, "sample_size": 16,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    },
    "AutoencoderKLWan": {
        "base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True], "in_channels": 3, "out_channels": 3, "patch_size": None,
    },
    "AutoencoderKLQwenImage": {
        "base_dim": 24, "z_dim": 4, "dim_mult": [1, 2, 4], "num_res_blocks": 1, "temperal_downsample": [False, True],
        "latents_mean": [0.1, -0.2, 0.0, 0.3], "latents_std": [1.0, 0.5, 2.0, 1.5],
    },
    "AutoencoderDC": {
        "in_channels": 3, "latent_channels": 4, "attention_head_dim": 2,
        "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "EfficientViTBlock"), "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8), "encoder_qkv_multiscales": ((), (5,)),
        "decoder_qkv_multiscales": ((), (5,)), "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": [1, 1], "downsample_block_type": "conv", "upsample_block_type": "interpolate",
        "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu", "scaling_factor": 0.41407,
    },
}  # fmt: skip


def component(name: str, *, seed: int = 0, **options: Any) -> Any:
    """A network of a class of diffusers with random weights, the same in every process.

    What is initialized to zero is perturbed, so that every input matters.

    Args:
        name: of the class.
        seed: of its weights.
        options: arguments of the constructor that neither table has, or that differ.
    """
    import diffusers

    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    given = {key: value for key, value in TINY.items() if key in known}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(**{**given, **OVERRIDES.get(name, {}), **options})
        perturb(network)
    return network


def rebuilt(network: Any, **options: Any) -> Any:
    """A network of the same class and configuration but for some options."""
    known = inspect.signature(type(network).__init__).parameters
    config = {key: value for key, value in network.config.items() if key in known}
    return type(network)(**{**config, **options})


def perturb(*networks: Any) -> None:
    """Draw the parameters that are zero, and switch to evaluation."""
    for network in networks:
        network.eval().requires_grad_(False)
        for parameter in network.parameters():
            if parameter.numel() and float(parameter.abs().max()) == 0:
                parameter.normal_(0, 0.2)


def assemble(name: str, **parts: Any) -> Any:
    """A pipeline of a class of diffusers; components that are not given are None."""
    import diffusers

    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    needed = [key for key, value in known.items() if key != "self" and value.default is value.empty]
    pipeline = kind(**{**dict.fromkeys(needed), **parts})
    perturb(*[part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)])
    return pipeline


def recast(name: str, pipeline: Any, **parts: Any) -> Any:
    """A pipeline of a class of diffusers with the components and text encodings of another one, and further parts."""
    import diffusers

    known = inspect.signature(getattr(diffusers, name).__init__).parameters
    given = {key: value for key, value in pipeline.components.items() if key in known}
    switches = {"requires_safety_checker": False, "add_watermarker": False}
    given |= {key: value for key, value in switches.items() if key in known}
    found = assemble(name, **{**given, **parts})
    if "encode_prompt" in vars(pipeline):
        found.encode_prompt = pipeline.encode_prompt
    return found


def euler(**options: Any) -> Any:
    """The scheduler of most flow-matching models."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**options)


def kl(latents: int, **options: Any) -> Any:
    """An image autoencoder as those of flow-matching models: without quantization layers, shifted and scaled."""
    given = {
        "latent_channels": latents, "use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06,
        "scaling_factor": 1.5,
    }  # fmt: skip
    return component("AutoencoderKL", **{**given, **options})


def picture(size: int = 16, *, rows: int = 1, seed: int = 9) -> torch.Tensor:
    """Pictures (rows, 3, size, size) in [0, 1]."""
    return torch.rand(rows, 3, size, size, generator=torch.Generator().manual_seed(seed))


def pil(size: int = 32) -> Any:
    """A picture for a class that takes no tensors."""
    from PIL import Image

    return Image.fromarray((picture(size)[0].permute(1, 2, 0) * 255).byte().numpy())


def shrink_areas(module: str, area: int = 32 * 32) -> None:
    """Have a module's `calculate_dimensions` aim at no larger area: a million pixels would take hours."""
    found = importlib.import_module(module)
    original = getattr(found.calculate_dimensions, "original", found.calculate_dimensions)

    def calculate_dimensions(target_area: float, ratio: float) -> Any:
        return original(min(target_area, area), ratio)

    calculate_dimensions.original = original  # type: ignore[attr-defined]
    found.calculate_dimensions = calculate_dimensions  # type: ignore[attr-defined]

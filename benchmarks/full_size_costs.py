"""What a denoiser, its decoder, a tiny decoder and a reward cost at full size: operations counted, nothing computed.

    python benchmarks/full_size_costs.py

The networks of SDXL and FLUX.1 are made on the meta device, called once for one sample of 1024 x 1024, and their
multiplications and additions counted. "Equal seconds on SDXL" in `benchmarks/beyond.py` takes seconds to be in
proportion to these: a model, not a measurement.
"""

import json
from functools import cache
from typing import Any

import torch
from device_models import MODELS
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")
NAMES = {"sdxl": "SDXL", "flux": "FLUX.1"}


def operations(function: Any, *arguments: Any, **options: Any) -> float:
    """Multiplications and additions of a call on the meta device, in units of 10^12."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*arguments, **options)
    return counter.get_total_flops() / 1e12


@cache
def costs(name: str, *, small: bool = False) -> dict[str, float]:
    """Operations for one sample, in units of 10^12.

    Args:
        name: "sdxl" or "flux".
        small: shrunken networks, to test this script.

    Returns:
        "denoiser" of a step, with both rows of guidance where the model has them; "decode"; "tiny" decode; "reward".
    """
    model = MODELS[name](small)
    parts = model.networks(META, torch.float32)
    side = model.call["height"] // 2 ** (len(parts["vae"].config.block_out_channels) - 1)
    latents = torch.empty(1, parts["vae"].config.latent_channels, side, side, device=META)
    denoise = {"sdxl": _unet, "flux": _flux}[name]
    return {
        "denoiser": denoise(parts, latents, model.embeddings),
        "decode": operations(parts["vae"].decode, latents),
        "tiny": operations(_tiny(latents.shape[1]).decode, latents),
        "reward": _image_reward(),
    }


def _unet(parts: dict[str, Any], latents: Any, embeddings: dict[str, tuple[int, ...]]) -> float:
    both = latents.expand(2, -1, -1, -1)  # with and without the prompt
    text = torch.empty(2, *embeddings["prompt_embeds"], device=META)
    added = {
        "text_embeds": torch.empty(2, *embeddings["pooled_prompt_embeds"], device=META),
        "time_ids": torch.empty(2, 6, device=META),
    }
    time = torch.empty(2, device=META)
    return operations(parts["unet"], both, time, encoder_hidden_states=text, added_cond_kwargs=added)


def _flux(parts: dict[str, Any], latents: Any, embeddings: dict[str, tuple[int, ...]]) -> float:
    patches, words = latents.shape[-1] ** 2 // 4, embeddings["prompt_embeds"][0]
    one = torch.empty(1, device=META)
    return operations(
        parts["transformer"],
        hidden_states=torch.empty(1, patches, 4 * latents.shape[1], device=META),
        timestep=one,
        guidance=one,
        pooled_projections=torch.empty(1, *embeddings["pooled_prompt_embeds"], device=META),
        encoder_hidden_states=torch.empty(1, *embeddings["prompt_embeds"], device=META),
        txt_ids=torch.zeros(words, 3, device=META),
        img_ids=torch.zeros(patches, 3, device=META),
    )


def _tiny(channels: int) -> Any:
    """The architecture of TAESD and its relatives."""
    from diffusers import AutoencoderTiny

    with META:
        return AutoencoderTiny(latent_channels=channels)


def _image_reward() -> float:
    """ImageReward: BLIP's ViT-L/16 on 224 x 224, and its text encoder with cross-attention on 35 tokens."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    wide = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    with META:
        vision = BlipVisionModel(BlipVisionConfig(**wide, image_size=224, patch_size=16))
        text = BlipTextModel(BlipTextConfig(encoder_hidden_size=1024), add_pooling_layer=False)
    words, tokens = torch.zeros(1, 35, dtype=torch.long, device=META), torch.empty(1, 197, 1024, device=META)
    seen = operations(vision, torch.empty(1, 3, 224, 224, device=META))
    return seen + operations(text, words, encoder_hidden_states=tokens, is_decoder=False)


def equal_n(cell: dict[str, Any], runs: float, steps: int, unit: dict[str, float]) -> float:
    """Unsteered samples, decoded and scored, that cost as much as a steered prompt.

    Args:
        cell: "decodes", "preview_decodes" and "reward_calls" of the prompt.
        runs: its denoiser calls in units of those of one unsteered sample.
        steps: of a sample.
        unit: from `costs`.
    """
    ours = runs * steps * unit["denoiser"] + cell["reward_calls"] * unit["reward"]
    ours += cell["decodes"] * unit["decode"] + cell.get("preview_decodes", 0) * unit["tiny"]
    return ours / (steps * unit["denoiser"] + unit["decode"] + unit["reward"])


if __name__ == "__main__":
    print(json.dumps({NAMES[name]: costs(name) for name in NAMES}, indent=1))

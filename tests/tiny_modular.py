"""Tiny random modular pipelines of diffusers, with a block of random text encodings in place of the encoders.

`MODULAR` names a builder and the arguments of a call for each; networks are those of `tiny_flow` and `tiny`.
"""

from collections.abc import Callable
from typing import Any

import tiny
import tiny_flow
import torch
from tiny_flow import SQUARE, embedding

_TOKENS = 6


def random_text(*, as_list: bool = False, **shapes: tuple[int, ...]) -> Any:
    """A block that encodes prompts and negative prompts at random: equal texts get equal rows.

    Args:
        as_list: whether an output is a list of one tensor a prompt.
        shapes: of each output, without the axis of prompts; masks of ones are those whose names end with "mask".
    """
    from diffusers.modular_pipelines import ModularPipelineBlocks
    from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam

    class RandomText(ModularPipelineBlocks):
        @property
        def expected_components(self) -> list[Any]:
            return []

        @property
        def inputs(self) -> list[Any]:
            return [InputParam("prompt", required=True), InputParam("negative_prompt")]

        @property
        def intermediate_outputs(self) -> list[Any]:
            return [OutputParam(name, kwargs_type="denoiser_input_fields") for name in shapes]

        @torch.no_grad()
        def __call__(self, components: Any, state: Any) -> Any:
            block = self.get_block_state(state)
            prompts = [block.prompt] if isinstance(block.prompt, str) else list(block.prompt)
            negative = block.negative_prompt or ""
            negatives = [negative] * len(prompts) if isinstance(negative, str) else list(negative)
            for name, shape in shapes.items():
                rows = embedding(negatives if name.startswith("negative") else prompts, *shape)
                rows = torch.ones(len(rows), *shape, dtype=torch.long) if name.endswith("mask") else rows
                setattr(block, name, list(rows) if as_list else rows)
            self.set_block_state(state, block)
            return components, state

    return RandomText()


def _modular(name: str, source: Any, text: Any, **components: Any) -> Any:
    """A modular pipeline with the networks of another pipeline, whose text block is replaced."""
    import diffusers

    kind = getattr(diffusers, name)
    blocks = getattr(diffusers, kind.default_blocks_name)()
    blocks.sub_blocks["text_encoder"] = text
    blocks.sub_blocks.pop("prompt_upsampler", None)  # which takes one prompt at a time
    pipeline = kind(blocks=blocks)
    parts = ("unet", "transformer", "transformer_2", "vae", "scheduler")
    found = {part: getattr(source, part, None) for part in parts}
    wanted = {part: item for part, item in found.items() if item is not None and hasattr(pipeline, part)}
    pipeline.update_components(**{**wanted, **components})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stable_diffusion_xl() -> Any:
    """SDXL, with DDIM."""
    pipeline = tiny.tiny_sdxl()
    width = pipeline.unet.config.cross_attention_dim
    pooled = pipeline.text_encoder_2.config.projection_dim
    text = {"prompt_embeds": (_TOKENS, width), "pooled_prompt_embeds": (pooled,)}
    text |= {f"negative_{name}": shape for name, shape in text.items()}
    return _modular("StableDiffusionXLModularPipeline", pipeline, random_text(**text), scheduler=tiny._ddim())


def _both(*, as_list: bool = False, **shapes: tuple[int, ...]) -> Any:
    return random_text(as_list=as_list, **shapes, **{f"negative_{name}": shape for name, shape in shapes.items()})


def stable_diffusion_3() -> Any:
    """SD3: guidance in two calls."""
    text = _both(prompt_embeds=(_TOKENS, 32), pooled_prompt_embeds=(16,))
    return _modular("StableDiffusion3ModularPipeline", tiny_flow.stable_diffusion_3(), text)


def flux() -> Any:
    """Flux dev: distilled guidance."""
    text = random_text(prompt_embeds=(_TOKENS, 32), pooled_prompt_embeds=(32,))
    return _modular("FluxModularPipeline", tiny_flow.flux(), text)


def flux_2() -> Any:
    """Flux 2."""
    return _modular("Flux2ModularPipeline", tiny_flow.flux_2(), random_text(prompt_embeds=(_TOKENS, 16)))


def wan() -> Any:
    """Wan 2.1: UniPC on a flow grid."""
    return _modular("WanModularPipeline", tiny_flow.wan(), _both(prompt_embeds=(_TOKENS, 32)))


def qwen_image() -> Any:
    """Qwen-Image: a patchifier is a component."""
    text = _both(prompt_embeds=(_TOKENS, 16), prompt_embeds_mask=(_TOKENS,))
    return _modular("QwenImageModularPipeline", tiny_flow.qwen_image(), text)


def z_image() -> Any:
    """Z-Image: lists of samples and of embeddings."""
    return _modular("ZImageModularPipeline", tiny_flow.z_image(), _both(as_list=True, prompt_embeds=(_TOKENS, 16)))


def ltx() -> Any:
    """LTX-Video: a patchifier is a component."""
    text = _both(prompt_embeds=(_TOKENS, 32), prompt_attention_mask=(_TOKENS,))
    return _modular("LTXModularPipeline", tiny_flow.ltx(), text)


def flux_3(name: str = "Flux3ModularPipeline") -> Any:
    """FLUX.3, which exists only as a modular pipeline; its distilled sibling predicts jumps, not velocities."""
    from diffusers import Flux3Transformer2DModel

    distilled = "Distilled" in name
    source = tiny_flow.flux_2()
    transformer = Flux3Transformer2DModel(
        in_channels=4, cond_in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 4, 4, 4), flow_map=distilled,
    )  # fmt: skip
    tiny_flow._perturbed(transformer)
    text = random_text(prompt_embeds=(_TOKENS, 16)) if distilled else _both(prompt_embeds=(_TOKENS, 16))
    return _modular(name, source, text, transformer=transformer, scheduler=tiny_flow._euler(shift=3.0))


def flux_2_klein() -> Any:
    """Flux 2 klein, not distilled: guidance in two calls."""
    return _modular("Flux2KleinBaseModularPipeline", tiny_flow.flux_2(), _both(prompt_embeds=(_TOKENS, 16)))


def wan_22() -> Any:
    """Wan 2.2: a second transformer takes over at low noise, with a guider of its own."""
    source = tiny_flow.wan()
    source.transformer_2 = tiny_flow.wan().transformer
    return _modular("Wan22ModularPipeline", source, _both(prompt_embeds=(_TOKENS, 32)))


MODULAR: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "sdxl": (stable_diffusion_xl, SQUARE),
    "sd3": (stable_diffusion_3, SQUARE),
    "flux": (flux, SQUARE),
    "flux2": (flux_2, SQUARE),
    "wan": (wan, {**SQUARE, "num_frames": 5}),
    "qwen-image": (qwen_image, SQUARE),
    "z-image": (z_image, {"height": 32, "width": 32}),
    "flux3": (flux_3, SQUARE),
    "flux2-klein": (flux_2_klein, SQUARE),
    "wan22": (wan_22, {**SQUARE, "num_frames": 5}),
    "ltx": (ltx, {"height": 32, "width": 32, "num_frames": 9}),
}


def make(name: str) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a family, with the same weights in every process, and arguments of its call."""
    build, arguments = MODULAR[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(), dict(arguments)

"""Qwen-Image: text-to-image, img2img, editing and control."""

from typing import Any

import tiny
import tiny_flow

from tiny_families.components import component, picture, pil, recast, shrink_areas
from tiny_families.encodings import embeds, encode_by, mask
from tiny_families.row import Row
from tiny_families.stable_diffusion import MASK

_SQUARE = {"height": 16, "width": 16}
_GUIDED = {"true_cfg_scale": 3.0, "negative_prompt": "bad"}
_HUB = "Qwen/Qwen-Image"
_FAMILY = "Qwen-Image"


def _qwen(name: str, **parts: Any) -> Any:
    return encode_by(recast(name, tiny_flow.qwen_image(), **parts), embeds(16), mask())


def _small(name: str, module: str) -> Any:
    """An editing class, which scales every picture to a fixed area: to a small one."""
    from transformers import CLIPTextModel

    shrink_areas(f"diffusers.pipelines.qwenimage.{module}")
    return _qwen(name, text_encoder=CLIPTextModel(tiny._text_config()))


def _edit() -> Any:
    return _small("QwenImageEditPipeline", "pipeline_qwenimage_edit")


def _edit_plus() -> Any:
    return _small("QwenImageEditPlusPipeline", "pipeline_qwenimage_edit_plus")


def _layered() -> Any:
    return _small("QwenImageLayeredPipeline", "pipeline_qwenimage_layered")


def _control() -> Any:
    net = component(
        "QwenImageControlNetModel", patch_size=2, in_channels=16, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    return _qwen("QwenImageControlNetPipeline", controlnet=net)


ROWS = [
    Row("QwenImagePipeline", _FAMILY, tiny_flow.qwen_image, _HUB, main=True, arguments={**_SQUARE, **_GUIDED},
        loose=True),
    Row("QwenImageImg2ImgPipeline", _FAMILY, lambda: _qwen("QwenImageImg2ImgPipeline"), _HUB, loose=True,
        arguments={**_SQUARE, "image": picture(), "strength": 0.8, **_GUIDED}),
    Row("QwenImageInpaintPipeline", _FAMILY, lambda: _qwen("QwenImageInpaintPipeline"), _HUB, loose=True,
        arguments={**_SQUARE, "image": picture(), "mask_image": MASK, "strength": 0.8, **_GUIDED}),
    Row("QwenImageEditPipeline", _FAMILY, _edit, "Qwen/Qwen-Image-Edit", loose=True,
        arguments={**_SQUARE, "image": pil(), **_GUIDED}),
    Row("QwenImageEditPlusPipeline", _FAMILY, _edit_plus,
        "Qwen/Qwen-Image-Edit-2511", loose=True, prompts=("a cat",), arguments={**_SQUARE, "image": pil(), **_GUIDED}),
    Row("QwenImageControlNetPipeline", _FAMILY, _control, _HUB, loose=True,
        arguments={**_SQUARE, "control_image": picture(), **_GUIDED}),
    Row("QwenImageLayeredPipeline", _FAMILY, _layered, "Qwen/Qwen-Image-Layered",
        loose=True, arguments={"image": pil(), "layers": 2, "resolution": 640, **_GUIDED}),
]  # fmt: skip

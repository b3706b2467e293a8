"""The published checkpoint of ImageReward: its names and sizes in those of `ImageTextNetwork`."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_HEAD_SIZE = 64  # of each attention head, in ViT-L and in BERT-base
_RENAMED = (
    (r"blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision.encoder.layers.\1.self_attn.qkv."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
    (r"blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"blip\.text_encoder\.", "text."),
    (r"mlp\.layers\.", "head."),
)
# The projections belong to other losses of BLIP; position numbers are no weights.
_UNUSED = re.compile(r"blip\.(vision_proj|text_proj)\.|.*position_ids$")


def rename_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Published weights under the names of `ImageTextNetwork`; what has no counterpart keeps its name.

    Args:
        weights: The dictionary in `ImageReward.pt`.
    """
    found = {}
    for name, tensor in weights.items():
        if _UNUSED.match(name):
            continue
        for pattern, replacement in _RENAMED:
            new, count = re.subn(f"^{pattern}", replacement, name)
            if count:
                break
        found[new if count else name] = tensor
    return found


def read_sizes(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `ImageTextNetwork` for weights under its names.

    The file holds no configuration: sizes follow from shapes, with attention heads of 64 as in ViT-L and BERT-base.

    Raises:
        KeyError: A weight that tells a size is missing.
    """
    vision = weights["vision.embeddings.class_embedding"].shape[-1]
    patch = weights["vision.embeddings.patch_embedding.weight"].shape[-1]
    patches = weights["vision.embeddings.position_embedding"].shape[1] - 1
    words, text = weights["text.embeddings.word_embeddings.weight"].shape
    head = [
        tensor.shape[0]
        for name, tensor in weights.items()
        if re.fullmatch(r"head\.\d+\.weight", name) and isinstance(tensor, Tensor)
    ]
    return {
        "vision": {
            "hidden_size": vision,
            "intermediate_size": weights["vision.encoder.layers.0.mlp.fc1.weight"].shape[0],
            "num_hidden_layers": _count(weights, r"vision\.encoder\.layers\.(\d+)\."),
            "num_attention_heads": max(vision // _HEAD_SIZE, 1),
            "image_size": round(patches**0.5) * patch,
            "patch_size": patch,
            "layer_norm_eps": 1e-6,
        },
        "text": {
            "hidden_size": text,
            "intermediate_size": weights["text.encoder.layer.0.intermediate.dense.weight"].shape[0],
            "num_hidden_layers": _count(weights, r"text\.encoder\.layer\.(\d+)\."),
            "num_attention_heads": max(text // _HEAD_SIZE, 1),
            "vocab_size": words,
            "max_position_embeddings": weights["text.embeddings.position_embeddings.weight"].shape[0],
            "layer_norm_eps": 1e-12,
            "bos_token_id": None,
            "sep_token_id": None,
        },
        "head": head[:-1],
    }


def _count(weights: Mapping[str, Any], pattern: str) -> int:
    return 1 + max(int(found[1]) for name in weights if (found := re.match(pattern, name)))

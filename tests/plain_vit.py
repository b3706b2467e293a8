"""A vision transformer for classification read a second time (Dosovitskiy et al. 2021), and its published layout."""

import json

import torch
from plain_clip import gelu, norm, random_weights, transformer

PARTS = {
    "attn.out_proj": "attention.output.dense",
    "mlp.c_fc": "intermediate.dense",
    "mlp.c_proj": "output.dense",
    "ln_1": "layernorm_before",
    "ln_2": "layernorm_after",
}


def published_shapes(width, layers, patch, size, labels):
    """Keys and shapes of `ViTForImageClassification` as transformers has saved it since 2020."""
    shapes = {
        "vit.embeddings.cls_token": (1, 1, width),
        "vit.embeddings.position_embeddings": (1, (size // patch) ** 2 + 1, width),
        "vit.embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "vit.embeddings.patch_embeddings.projection.bias": (width,),
    }
    for layer in range(layers):
        at = f"vit.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes[f"{at}.attention.attention.{part}.weight"] = (width, width)
            shapes[f"{at}.attention.attention.{part}.bias"] = (width,)
        for part, (out, inside) in {
            "attention.output.dense": (width, width),
            "intermediate.dense": (4 * width, width),
            "output.dense": (width, 4 * width),
        }.items():
            shapes |= {f"{at}.{part}.weight": (out, inside), f"{at}.{part}.bias": (out,)}
        for part in ("layernorm_before", "layernorm_after"):
            shapes |= {f"{at}.{part}.weight": (width,), f"{at}.{part}.bias": (width,)}
    shapes |= {"vit.layernorm.weight": (width,), "vit.layernorm.bias": (width,)}
    return shapes | {"classifier.weight": (labels, width), "classifier.bias": (labels,)}


def published_config(width, layers, heads, patch, size, labels, **settings):
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_act": "gelu",
        "hidden_size": width,
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "image_size": size,
        "intermediate_size": 4 * width,
        "label2id": {label: str(number) for number, label in enumerate(labels)},
        "layer_norm_eps": 1e-12,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "patch_size": patch,
        "qkv_bias": True,
        **settings,
    }


def write_classifier(folder, labels, *, layers=2, **settings):
    """A folder with 28 x 28 pixels, patches of 7 and random weights, which are returned."""
    weights = random_weights(published_shapes(32, layers, 7, 28, len(labels)))
    (folder / "config.json").write_text(json.dumps(published_config(32, layers, 2, 7, 28, labels, **settings)))
    processor = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "size": 28,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    torch.save(weights, folder / "pytorch_model.bin")
    return weights


def logits(images, weights, heads=2):
    """Logits of images (n, 3, s, s) in [0, 1] that have the size of the model."""
    kernel = weights["vit.embeddings.patch_embeddings.projection.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    pixels = (images - 0.5) / 0.5
    tiles = pixels.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = tiles @ kernel.reshape(width, -1).T + weights["vit.embeddings.patch_embeddings.projection.bias"]
    first = weights["vit.embeddings.cls_token"].expand(len(tokens), 1, width)
    x = torch.cat([first, tokens], 1) + weights["vit.embeddings.position_embeddings"]
    blocks, layer = {}, 0
    while f"vit.encoder.layer.{layer}.output.dense.bias" in weights:
        at = f"vit.encoder.layer.{layer}"
        for kind in ("weight", "bias"):
            three = [weights[f"{at}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            blocks[f"blocks.{layer}.attn.in_proj_{kind}"] = torch.cat(three)
            for ours, theirs in PARTS.items():
                blocks[f"blocks.{layer}.{ours}.{kind}"] = weights[f"{at}.{theirs}.{kind}"]
        layer += 1
    x = transformer(x, blocks, "blocks", heads, gelu, False, eps=1e-12)
    return norm(x[:, 0], weights, "vit.layernorm", 1e-12) @ weights["classifier.weight"].T + weights["classifier.bias"]

"""A CLIP folder in the format and with the keys that transformers wrote when PickScore and OpenAI's were published."""

import json
import re

import torch


def write_tokenizer(folder, *, letters_only=False):
    """CLIP's published vocabulary (49,408 words), which open_clip brings, as transformers wants it, or its letters."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    table = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(word, word): number for word, number in table.encoder.items()}
    merges = list(table.bpe_ranks)
    if letters_only:  # read in no time
        letters = [word for word, number in vocabulary.items() if number < 512]
        vocabulary = {word: number for number, word in enumerate([*letters, *renamed.values()])}
        merges = []
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)


def write_processor(folder, size, **settings):
    """The `preprocessor_config.json` of OpenAI's models, with another size."""
    config = {
        "crop_size": size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": size,
        **settings,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def config_of(width, layers, heads, patch, size, embed, *, text_width, text_layers, text_heads, act="gelu"):
    """A `config.json` as published."""
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": embed,
        "text_config": {
            "hidden_act": act,
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_attention_heads": text_heads,
            "num_hidden_layers": text_layers,
        },
        "vision_config": {
            "hidden_act": act,
            "hidden_size": width,
            "image_size": size,
            "intermediate_size": 4 * width,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "patch_size": patch,
        },
    }


_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "logit_scale": "logit_scale",
}
_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}


def to_transformers(weights):
    """Weights with open_clip's keys under the keys of transformers (projections transposed, attention in three)."""
    renamed = {}
    for name, tensor in weights.items():
        block = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
        if block:
            model, part, kind = "vision_model" if block[1] else "text_model", block[3], block[4]
            at = f"{model}.encoder.layers.{block[2]}"
            if part == "attn.in_proj":
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[f"{at}.self_attn.{letter}_proj.{kind}"] = third.contiguous()
            else:
                renamed[f"{at}.{_PARTS[part]}.{kind}"] = tensor
        elif name in _NAMES:
            renamed[_NAMES[name]] = tensor.T.contiguous() if name.endswith("proj") or "projection" in name else tensor
        else:
            prefix, _, kind = name.rpartition(".")
            renamed[f"{_NORMS[prefix]}.{kind}"] = tensor
    # Early versions of transformers saved the numbers of the positions, too.
    renamed["vision_model.embeddings.position_ids"] = torch.arange(len(weights["visual.positional_embedding"]))[None]
    if "positional_embedding" in weights:
        renamed["text_model.embeddings.position_ids"] = torch.arange(len(weights["positional_embedding"]))[None]
    return renamed

"""ImageReward read a second time (Xu et al. 2023, arXiv:2304.05977), in plain functions of its published state dict.

BLIP's image encoder is a pre-norm ViT (eps 1e-6), its text encoder a post-norm BERT (eps 1e-12) whose every layer
attends to the caption, in both directions, and then to the image; the head is affine.
"""

import torch
from plain_clip import gelu, norm, transformer

HEAD = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}  # layer of the published file -> size of its output


def published_shapes(
    vision=1024, layers=24, patch=16, size=224, text=768, text_layers=12, inner=3072, words=30524, places=512
):
    """Keys and shapes of `ImageReward.pt`; the defaults are its own sizes."""
    shapes = {}

    def linear(name, out, inside):
        shapes.update({f"{name}.weight": (out, inside), f"{name}.bias": (out,)})

    def scale(name, width):
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    image = "blip.visual_encoder"
    shapes[f"{image}.cls_token"] = (1, 1, vision)
    shapes[f"{image}.pos_embed"] = (1, (size // patch) ** 2 + 1, vision)
    shapes[f"{image}.patch_embed.proj.weight"] = (vision, 3, patch, patch)
    shapes[f"{image}.patch_embed.proj.bias"] = (vision,)
    for layer in range(layers):
        at = f"{image}.blocks.{layer}"
        scale(f"{at}.norm1", vision)
        linear(f"{at}.attn.qkv", 3 * vision, vision)
        linear(f"{at}.attn.proj", vision, vision)
        scale(f"{at}.norm2", vision)
        linear(f"{at}.mlp.fc1", 4 * vision, vision)
        linear(f"{at}.mlp.fc2", vision, 4 * vision)
    scale(f"{image}.norm", vision)
    caption = "blip.text_encoder"
    shapes[f"{caption}.embeddings.position_ids"] = (1, places)
    shapes[f"{caption}.embeddings.word_embeddings.weight"] = (words, text)
    shapes[f"{caption}.embeddings.position_embeddings.weight"] = (places, text)
    scale(f"{caption}.embeddings.LayerNorm", text)
    for layer in range(text_layers):
        at = f"{caption}.encoder.layer.{layer}"
        for kind, seen in (("attention", text), ("crossattention", vision)):
            linear(f"{at}.{kind}.self.query", text, text)
            linear(f"{at}.{kind}.self.key", text, seen)
            linear(f"{at}.{kind}.self.value", text, seen)
            linear(f"{at}.{kind}.output.dense", text, text)
            scale(f"{at}.{kind}.output.LayerNorm", text)
        linear(f"{at}.intermediate.dense", inner, text)
        linear(f"{at}.output.dense", text, inner)
        scale(f"{at}.output.LayerNorm", text)
    linear("blip.vision_proj", 256, vision)  # of BLIP's other losses, not used
    linear("blip.text_proj", 256, text)
    width = text
    for layer, out in HEAD.items():
        linear(f"mlp.layers.{layer}", out, width)
        width = out
    return shapes


def _linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def see(pixels, weights, heads):
    """Tokens (n, 1 + patches, vision) of normalized pixels (n, 3, s, s)."""
    image = "blip.visual_encoder"
    kernel = weights[f"{image}.patch_embed.proj.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    tiles = pixels.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = tiles @ kernel.reshape(width, -1).T + weights[f"{image}.patch_embed.proj.bias"]
    first = weights[f"{image}.cls_token"].expand(len(tokens), 1, width)
    x = torch.cat([first, tokens], 1) + weights[f"{image}.pos_embed"]
    names = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    blocks = {}
    for name, tensor in weights.items():
        if name.startswith(f"{image}.blocks."):
            layer, _, rest = name.removeprefix(f"{image}.blocks.").partition(".")
            part, _, kind = rest.rpartition(".")
            known = f"attn.in_proj_{kind}" if part == "attn.qkv" else f"{names[part]}.{kind}"
            blocks[f"blocks.{layer}.{known}"] = tensor
    return norm(transformer(x, blocks, "blocks", heads, gelu, False, eps=1e-6), weights, f"{image}.norm", 1e-6)


def _attend(x, seen, mask, weights, name, heads):
    """A BERT attention with its residual: x (n, t, d) asks, seen answers, of which mask (n, s) counts."""
    split = [
        _linear(source, weights, f"{name}.self.{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
        for part, source in (("query", x), ("key", seen), ("value", seen))
    ]
    q, k, v = split
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    logits = logits.masked_fill(~mask[:, None, None, :], -torch.inf)
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return norm(x + _linear(mixed, weights, f"{name}.output.dense"), weights, f"{name}.output.LayerNorm", 1e-12)


def read(ids, mask, seen, weights, heads):
    """Hidden states (n, t, d) of ids (n, t), of which mask (n, t) counts, that attend to seen (n, p, vision)."""
    caption = "blip.text_encoder"
    places = weights[f"{caption}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = weights[f"{caption}.embeddings.word_embeddings.weight"][ids] + places
    x = norm(x, weights, f"{caption}.embeddings.LayerNorm", 1e-12)
    all_seen = torch.ones(seen.shape[:2], dtype=torch.bool)
    layer = 0
    while f"{caption}.encoder.layer.{layer}.output.dense.bias" in weights:
        at = f"{caption}.encoder.layer.{layer}"
        x = _attend(x, x, mask, weights, f"{at}.attention", heads)
        x = _attend(x, seen, all_seen, weights, f"{at}.crossattention", heads)
        inner = gelu(_linear(x, weights, f"{at}.intermediate.dense"))
        x = norm(x + _linear(inner, weights, f"{at}.output.dense"), weights, f"{at}.output.LayerNorm", 1e-12)
        layer += 1
    return x


def raw_reward(ids, mask, pixels, weights, vision_heads, text_heads):
    """The head's output (n,) at the first token; the published reward is (raw - 0.16717...) / 1.03333..."""
    x = read(ids, mask, see(pixels, weights, vision_heads), weights, text_heads)[:, 0]
    for layer in HEAD:
        x = _linear(x, weights, f"mlp.layers.{layer}")
    return x[:, 0]


MEAN_OF_REWARDS, STD_OF_REWARDS = 0.16717362830052426, 1.0333394966054072

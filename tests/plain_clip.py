"""CLIP's two encoders read a second time, from the papers, in plain functions of a state dict with open_clip's keys."""

import math

import torch

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def norm(x, weights, name, eps=1e-5):
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def transformer(x, weights, prefix, heads, act, causal, eps=1e-5):
    """Pre-norm blocks (Radford et al. 2021): x (n, t, d)."""
    count, length, width = x.shape
    layer = 0
    while f"{prefix}.{layer}.ln_1.weight" in weights:
        block = f"{prefix}.{layer}"
        mixed = norm(x, weights, f"{block}.ln_1", eps)
        mixed = mixed @ weights[f"{block}.attn.in_proj_weight"].T + weights[f"{block}.attn.in_proj_bias"]
        q, k, v = (part.view(count, length, heads, -1).transpose(1, 2) for part in mixed.split(width, -1))
        logits = q @ k.transpose(-1, -2) / (width / heads) ** 0.5
        if causal:
            logits = logits.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(count, length, width)
        x = x + mixed @ weights[f"{block}.attn.out_proj.weight"].T + weights[f"{block}.attn.out_proj.bias"]
        hidden = norm(x, weights, f"{block}.ln_2", eps) @ weights[f"{block}.mlp.c_fc.weight"].T
        hidden = act(hidden + weights[f"{block}.mlp.c_fc.bias"])
        x = x + hidden @ weights[f"{block}.mlp.c_proj.weight"].T + weights[f"{block}.mlp.c_proj.bias"]
        layer += 1
    assert layer, prefix
    return x


def embed_image(pixels, weights, heads, act=gelu):
    """Unit embeddings of normalized pixels (n, 3, s, s)."""
    kernel = weights["visual.conv1.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    tiles = pixels.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = tiles @ kernel.reshape(width, -1).T
    first = weights["visual.class_embedding"].expand(len(tokens), 1, width)
    x = torch.cat([first, tokens], 1) + weights["visual.positional_embedding"]
    x = transformer(norm(x, weights, "visual.ln_pre"), weights, "visual.transformer.resblocks", heads, act, False)
    features = norm(x[:, 0], weights, "visual.ln_post") @ weights["visual.proj"]
    return features / features.square().sum(-1, keepdim=True).sqrt()


def embed_text(ids, weights, heads, act=gelu):
    """Unit embeddings of token ids (n, t), whose last word has the highest id."""
    x = weights["token_embedding.weight"][ids] + weights["positional_embedding"][: ids.shape[1]]
    x = norm(transformer(x, weights, "transformer.resblocks", heads, act, True), weights, "ln_final")
    features = x[torch.arange(len(ids)), ids.argmax(-1)] @ weights["text_projection"]
    return features / features.square().sum(-1, keepdim=True).sqrt()


def expected_shapes(width, layers, patch, size, embed, *, text_width=None, text_layers=0, vocabulary=49408, context=77):
    """Keys and shapes of open_clip's CLIP, written down independently of it."""

    def blocks(prefix, width, layers):
        for layer in range(layers):
            at = f"{prefix}.{layer}"
            for name, shape in {
                "attn.in_proj": (3 * width, width),
                "attn.out_proj": (width, width),
                "mlp.c_fc": (4 * width, width),
                "mlp.c_proj": (width, 4 * width),
            }.items():
                joint = "_" if name.endswith("in_proj") else "."
                yield f"{at}.{name}{joint}weight", shape
                yield f"{at}.{name}{joint}bias", shape[:1]
            for name in ("ln_1", "ln_2"):
                yield f"{at}.{name}.weight", (width,)
                yield f"{at}.{name}.bias", (width,)

    shapes = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((size // patch) ** 2 + 1, width),
        "visual.proj": (width, embed),
        "visual.conv1.weight": (width, 3, patch, patch),
        **{f"visual.{name}.{kind}": (width,) for name in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
        **dict(blocks("visual.transformer.resblocks", width, layers)),
    }
    if text_width:
        shapes |= {
            "logit_scale": (),
            "positional_embedding": (context, text_width),
            "text_projection": (text_width, embed),
            "token_embedding.weight": (vocabulary, text_width),
            "ln_final.weight": (text_width,),
            "ln_final.bias": (text_width,),
            **dict(blocks("transformer.resblocks", text_width, text_layers)),
        }
    return shapes


def random_weights(shapes, seed=0):
    """Weights of these shapes at the scale of trained ones, so that no part is too small to be seen."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        inputs = math.prod(shape[1:]) if len(shape) > 1 else 4
        is_scale = name.endswith("weight") and len(shape) == 1
        weights[name] = 1 + 0.2 * noise if is_scale else noise * 1.5 / inputs**0.5
    return weights

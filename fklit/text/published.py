"""The published masked diffusion model of MDLM, read from its files without running code that comes with them."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from fklit.text.backbone import DiffusionTransformer, TransformerSettings
from fklit.text.reading import readable

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
# Beginnings of names, published and ours.
_NAMES = (
    ("vocab_embed.embedding", "embedding.weight"),
    ("sigma_map.mlp.", "level."),
    ("output_layer.norm_final.", "norm."),
    ("output_layer.linear.", "head."),
    ("output_layer.adaLN_modulation.", "modulation."),
)


def published_settings(config: dict[str, Any]) -> TransformerSettings:
    """What the network is made of, from the published `config.json`.

    Args:
        config: Its content.

    Raises:
        ValueError: It is of another model, or of one that is told the time.
    """
    keys = {"vocab_size", "hidden_dim", "cond_dim", "n_blocks", "n_heads"}
    missing = sorted(keys - config.keys())
    if missing:
        raise ValueError(
            f"expected the config.json of an MDLM model, got one without {', '.join(missing)}; give another folder."
        )
    if config.get("time_conditioning"):
        raise ValueError(
            "expected time_conditioning=false, as of mdlm-owt, got true; a network that is told the time is not "
            "supported."
        )
    return TransformerSettings(
        vocab_size=int(config["vocab_size"]),
        width=int(config["hidden_dim"]),
        layers=int(config["n_blocks"]),
        heads=int(config["n_heads"]),
        dropout=float(config.get("dropout", 0.1)),
        activation="gelu",
        norm="layer",
        bias=True,
        tied=False,
        condition_width=int(config["cond_dim"]),
    )


def our_name(published: str) -> str | None:
    """Our name of a published parameter; None for what we compute, such as the rotary frequencies.

    Args:
        published: For example `backbone.blocks.0.adaLN_modulation.weight`.
    """
    name = published.removeprefix("backbone.")
    if name.startswith("rotary_emb."):
        return None
    for theirs, ours in _NAMES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name.replace(".adaLN_modulation.", ".modulation.")


def load_published(source: str, *, revision: str | None = None) -> DiffusionTransformer:
    """Reads `kuleshov-group/mdlm-owt`, or a model of the same layout.

    Args:
        source: A folder with `config.json` and `model.safetensors`, or an id on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; None for the newest.

    Returns:
        The network in float32 and in evaluation mode. Its mask is the last token; the tokenizer is that of GPT-2.

    Raises:
        FileNotFoundError: The folder lacks a file.
        OSError: A file cannot be read, or there is no such model on the hub.
        ValueError: The files are of another model.
    """
    from safetensors.torch import load_file

    config, weights = (_file(source, name, revision) for name in (_CONFIG, _WEIGHTS))
    network = DiffusionTransformer(published_settings(json.loads(config.read_text(encoding="utf-8"))))
    state: dict[str, Tensor] = {}
    with readable("weights", source):
        found = load_file(weights)
    for name, value in found.items():
        if (ours := our_name(name)) is not None:
            state[ours] = value.float()
    expected = network.state_dict()
    wrong = sorted(
        name
        for name in state.keys() | expected.keys()
        if name not in state or name not in expected or state[name].shape != expected[name].shape
    )
    if wrong:
        raise ValueError(
            f"expected the weights of an MDLM model, got {source} with {len(wrong)} that are missing, unknown or of "
            f"another shape ({wrong[0]}); give another folder."
        )
    network.load_state_dict(state)
    return network.eval()


def _file(source: str, name: str, revision: str | None) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"expected {name} in {folder}, got no such file; download the model again.")
        return folder / name
    from huggingface_hub import hf_hub_download

    with readable(name, source):
        return Path(hf_hub_download(source, name, revision=revision))

"""A masked model as a folder: `config.json`, `model.safetensors` and the files of a transformers tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch

from fklit import assets
from fklit.atomic import write_atomically, write_json_atomically
from fklit.text.backbone import DiffusionTransformer, TransformerSettings

_KIND = "fklit_masked_diffusion"


def save_folder(
    network: DiffusionTransformer, tokenizer: str | Path, folder: str | Path, *, dtype: torch.dtype = torch.float16
) -> None:
    """Writes a network with its tokenizer.

    Args:
        network: What to save.
        tokenizer: Folder of the tokenizer, as `AutoTokenizer` reads it.
        folder: Where to; the parts that are there are replaced.
        dtype: Of the weights in the file.
    """
    from safetensors.torch import save
    from transformers import AutoTokenizer

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(target)
    weights = network.state_dict()
    if network.settings.tied:
        del weights["head.weight"]
    stored = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
    with write_atomically(target / "model.safetensors") as file:
        file.write(save(stored))
    write_json_atomically(target / "config.json", {"kind": _KIND, **network.settings.as_config()}, indent=1)


def load_folder(folder: str | Path) -> tuple[DiffusionTransformer, Any]:
    """Reads a folder that `save_folder` wrote.

    Args:
        folder: Where it is, or the name of a model that ships with fklit, such as "fklit:text_diffusion".

    Returns:
        The network in float32 and in evaluation mode, and the tokenizer.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds another model, or none of that name ships.
    """
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    folder = assets.shipped(str(folder)) or Path(folder).expanduser()
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"expected a masked model in {folder}, got no config.json; give an exported folder.")
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("kind", None) != _KIND:
        raise ValueError(f"expected a masked model of fklit in {folder}, got another; give an exported folder.")
    network = DiffusionTransformer(TransformerSettings(**config))
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    if network.settings.tied:
        weights["head.weight"] = weights["embedding.weight"]
    network.load_state_dict(weights)
    return network.eval(), AutoTokenizer.from_pretrained(folder)

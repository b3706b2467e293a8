"""Which file of a model's folder is damaged: libraries say what is wrong, but not with which file."""

import json
from pathlib import Path


def broken_file(folder: Path) -> str | None:
    """The first file of a folder that cannot be read, with what is wrong with it.

    Args:
        folder: Folder of a pipeline or model.

    Returns:
        Such as `"unet/diffusion_pytorch_model.safetensors is empty"`, or None if headers and JSON files are whole.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json", ".bin") and path.is_file():
            if fault := _fault(path):
                return f"{path.relative_to(folder).as_posix()} {fault}"
    return None


def _fault(path: Path) -> str | None:
    if path.stat().st_size == 0:
        return "is empty"
    with open(path, "rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"<"):
        return "is an HTML page, as a failed download leaves it"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself"
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt"):
                pass
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:  # safetensors has an error of its own, below Exception
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        return f"is truncated or damaged ({said})"
    return None

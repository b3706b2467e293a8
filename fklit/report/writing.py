"""Writing the folder of a run: what `reading` reads. Every file appears complete or not at all."""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import fklit
from fklit.atomic import make_folder, remove_leftovers, write_atomically, write_json_atomically, write_text_atomically
from fklit.report.media import DEFAULT_FRAME_RATE, one_picture, sample_files
from fklit.report.texts import TEXTS, write_texts

_PACKAGES = ("torch", "diffusers", "transformers", "lightning")


def package_versions(*more: str) -> dict[str, str]:
    """Versions of Python, of the packages that every run depends on, and of further ones by name."""
    # Its own version from the code that runs: the metadata of an editable installation may be older.
    own = {"python": platform.python_version(), "fklit": fklit.__version__}
    return own | {name: version(name) for name in (*_PACKAGES, *more)}


def write_run(folder: Path, settings: Mapping[str, Any], settings_hash: str, *packages: str) -> None:
    """Writes `run.json`: what was asked for, its hash, and the versions of packages.

    Args:
        folder: Output folder of the run; made if it does not exist.
        settings: Settings of the run.
        settings_hash: Their hash.
        packages: Further packages whose versions matter.
    """
    make_folder(folder)
    run = {"settings": settings, "settings_hash": settings_hash, "versions": package_versions(*packages)}
    write_json_atomically(folder / "run.json", run, indent=2, sort_keys=True)


def write_prompt(
    folder: Path,
    record: Mapping[str, Any],
    items: Sequence[Any],
    metadata: Mapping[str, Any],
    previews: torch.Tensor | None = None,
    *,
    details: Sequence[Mapping[str, Any]] | None = None,
    frame_rate: float = DEFAULT_FRAME_RATE,
) -> None:
    """Writes one prompt's folder, the record last; what another run left there is removed first.

    Args:
        folder: Where to.
        record: `record(b)` of the result, with `"settings_hash"`.
        items: K samples in particle order, as `result.items` has them.
        metadata: The prompt's metadata, with `"prompt"`.
        previews: Denoised predictions, uint8 (S, K, 3, h, w), or None.
        details: What else is known of each of K texts, see `write_texts`; None for nothing.
        frame_rate: Frames a second of videos.

    Raises:
        ValueError: The samples are of another modality than pictures, videos, audio and texts.
    """
    modality, rate = str(record.get("modality", "image")), record.get("sampling_rate")
    if modality == "text":
        _start(folder, metadata)
        checksums = {TEXTS: write_texts(folder, record, items, details)}
        files = {"checksums": checksums, "files": ["metadata.jsonl", TEXTS]}
        write_json_atomically(folder / "record.json", {**record, **files})
        return
    if modality not in ("image", "video", "audio"):
        raise ValueError(
            f"expected pictures, videos, audio or texts to write, got samples of modality {modality!r}; write "
            "result.items by the tools of their field."
        )
    written = [sample_files(item, modality, frame_rate=frame_rate, sampling_rate=rate) for item in items]
    _start(folder, metadata)
    make_folder(folder / "samples")
    names, sums = ["grid.png", "metadata.jsonl"], {}
    for slot, sample in enumerate(written):
        name = f"samples/{slot:04d}"
        _save_image(folder / f"{name}.png", sample.picture)
        names.append(f"{name}.png")
        if sample.media is not None:
            with write_atomically(folder / f"{name}{sample.suffix}") as file:
                file.write(sample.media)
            names.append(f"{name}{sample.suffix}")
            sums[names[-1]] = hashlib.sha256(sample.media).hexdigest()
    _save_image(folder / "grid.png", _side_by_side([one_picture(s.picture, s.frames) for s in written]))
    if previews is not None:
        names.append("previews.npz")
        with write_atomically(folder / "previews.npz") as file:
            np.savez_compressed(file, previews=previews.permute(0, 1, 3, 4, 2).contiguous().numpy())
    # What these formats lack: a checksum by which damage shows.
    media = {"checksums": sums, "strip_frames": written[0].frames} if sums else {}
    write_json_atomically(folder / "record.json", {**record, **media, "files": sorted(names)})


def _start(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Removes what another run left in a prompt's folder, and writes the prompt's metadata."""
    (folder / "record.json").unlink(missing_ok=True)  # from here on the folder does not count as done
    shutil.rmtree(folder / "samples", ignore_errors=True)
    for stale in ("grid.png", "previews.npz", "scores.json", TEXTS):
        (folder / stale).unlink(missing_ok=True)
    remove_leftovers(folder, older_than=0.0)
    make_folder(folder)
    write_text_atomically(folder / "metadata.jsonl", json.dumps(metadata, ensure_ascii=False) + "\n")


def _save_image(path: Path, image: Image.Image) -> None:
    with write_atomically(path) as file:
        image.save(file, format="PNG")


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    width, height = images[0].size
    grid = Image.new(images[0].mode, (width * len(images), height))
    for slot, image in enumerate(images):
        grid.paste(image, (slot * width, 0))
    return grid

"""Writes what ``predict`` makes, one folder a prompt, so that a run that was killed goes on where it stopped."""

import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from fklit.sampling.describe import settings_hash

_PACKAGES = ("fklit", "torch", "diffusers", "transformers", "lightning")


class SampleWriter(BasePredictionWriter):
    """Writes each steered or corrected prompt into a folder of its own.

    ::

        output_dir/run.json                  settings of the run, their hash, versions of packages
        output_dir/00007/metadata.jsonl      the prompt and its metadata (with samples/, the layout GenEval evaluates)
        output_dir/00007/samples/0000.png    K samples in particle order
        output_dir/00007/grid.png            the same side by side
        output_dir/00007/previews.npz        denoised predictions, "previews" uint8 (S, K, h, w, 3), if they were kept
        output_dir/00007/record.json         rewards, weights, lineages, cost; written last

    A prompt is done when its ``record.json`` is there with the same settings (by hash) and the same prompt. A
    run that is started again leaves done prompts alone, and loads no model if nothing is left. Results of other
    settings are never mixed in or replaced unless ``overwrite`` is set. Every file appears whole or not at all.

    Works with any number of processes, each writes its own prompts.

    Args:
        output_dir: Folder of the run; made if it does not exist.
        overwrite: Whether results of other settings in this folder are replaced. Results of the same settings are kept.

    Raises:
        ValueError: When the run starts: the folder holds results of other settings.
    """

    def __init__(self, output_dir: str, *, overwrite: bool = False) -> None:
        super().__init__("batch")
        self.output_dir = output_dir
        self.overwrite = overwrite
        self._hash = ""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds out what is done, before any weights are loaded; the first process writes ``run.json``."""
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        task: Any = pl_module
        if not callable(getattr(task, "settings", None)):
            raise TypeError(
                f"SampleWriter was given to a {type(task).__name__}; it writes what a SteeringTask or a "
                "GuidanceTask predicts."
            )
        settings = task.settings()
        self._hash = settings_hash(settings)
        folder = Path(self.output_dir).expanduser()
        self._check_run(folder)
        items = getattr(getattr(trainer, "datamodule", None), "items", ())
        task.done = frozenset(self._done((item["index"], item["prompt"]) for item in items))
        # Every process has looked before the first one writes.
        trainer.strategy.barrier("fklit.writer.checked")
        if trainer.is_global_zero:
            for record in _records(folder) if self.overwrite else ():
                if (_read(record) or {}).get("settings_hash") != self._hash:
                    record.unlink()  # no reader shall take what is left of the other run for a part of this one
            folder.mkdir(parents=True, exist_ok=True)
            run = {"settings": settings, "settings_hash": self._hash, "versions": _versions()}
            _write(folder / "run.json", json.dumps(run, indent=2, sort_keys=True).encode())
        if task.done:
            rank_zero_info(f"{len(task.done)} of {len(items)} prompts are done already in {folder}.")

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Looks once more, for prompts that come from no DataModule of fklit's."""
        task: Any = pl_module
        if isinstance(batch, Mapping) and {"indices", "prompts"} <= batch.keys():
            task.done = task.done.union(self._done(zip(batch["indices"], batch["prompts"], strict=True)))

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the prompts of one result; nothing if all were done."""
        if not prediction:
            return
        metadata = batch.get("metadata") or [{"prompt": prompt} for prompt in batch["prompts"]]
        by_index = dict(zip(batch["indices"], metadata, strict=True))
        for b, index in enumerate(prediction.prompt_indices):
            record = {**prediction.record(b), "settings_hash": self._hash}
            previews = None if prediction.previews is None else prediction.previews[:, b]
            write_prompt(self._folder(index), record, prediction.images[b], by_index[index], previews)

    def _folder(self, index: int) -> Path:
        return Path(self.output_dir).expanduser() / f"{index:05d}"

    def _check_run(self, folder: Path) -> None:
        found = _read(folder / "run.json")
        foreign = next((part for part in folder.glob("[0-9]" * 5) if any(part.iterdir())), None)
        if found is None and foreign is not None and not self.overwrite:
            raise ValueError(
                f"{foreign} holds files and {folder} no run.json, so they are not of a run of fklit; "
                "give another output_dir, or overwrite: true to replace them."
            )
        if found is not None and found.get("settings_hash") != self._hash and not self.overwrite:
            raise ValueError(
                f"{folder} holds a run with other settings (hash {str(found.get('settings_hash'))[:8]}, this run has "
                f"{self._hash[:8]}); give another output_dir, or overwrite: true to replace it."
            )

    def _done(self, prompts: Iterable[tuple[int, str]]) -> list[int]:
        done = []
        for index, prompt in prompts:
            folder = self._folder(index)
            record = _read(folder / "record.json")
            if record is None:
                continue
            same_settings, same_prompt = record.get("settings_hash") == self._hash, record.get("prompt") == prompt
            if same_settings and same_prompt:
                done.append(int(index))
            elif not self.overwrite:
                what = "with other settings" if same_prompt else f"of another prompt ({record.get('prompt')!r})"
                raise ValueError(
                    f"{folder} holds a result {what}; give another output_dir, or overwrite: true to replace it."
                )
        return done


def write_prompt(
    folder: Path,
    record: Mapping[str, Any],
    images: Sequence[Any],
    metadata: Mapping[str, Any],
    previews: torch.Tensor | None = None,
) -> None:
    """Writes one prompt's folder, the record last; what another run left there is removed first.

    Args:
        folder: Where to.
        record: ``record(b)`` of the result, with ``"settings_hash"``.
        images: K PIL images in particle order.
        metadata: The prompt's metadata, with ``"prompt"``.
        previews: Denoised predictions, uint8 (S, K, 3, h, w), or None.
    """
    (folder / "record.json").unlink(missing_ok=True)  # from here on the folder does not count as done
    shutil.rmtree(folder / "samples", ignore_errors=True)
    for stale in ("previews.npz", "scores.json"):
        (folder / stale).unlink(missing_ok=True)
    (folder / "samples").mkdir(parents=True)
    _write(folder / "metadata.jsonl", (json.dumps(metadata, ensure_ascii=False) + "\n").encode())
    for slot, image in enumerate(images):
        _save_image(folder / "samples" / f"{slot:04d}.png", image)
    _save_image(folder / "grid.png", _side_by_side(images))
    if previews is not None:
        arrays = previews.permute(0, 1, 3, 4, 2).contiguous().numpy()
        part = folder / "previews.part"
        with open(part, "wb") as file:
            np.savez_compressed(file, previews=arrays)
        os.replace(part, folder / "previews.npz")
    _write(folder / "record.json", json.dumps(record, allow_nan=False).encode())


def _save_image(path: Path, image: Any) -> None:
    part = path.with_suffix(".part")
    image.save(part, format="PNG")
    os.replace(part, path)


def _side_by_side(images: Sequence[Any]) -> Any:
    from PIL import Image

    width, height = images[0].size
    grid = Image.new(images[0].mode, (width * len(images), height))
    for slot, image in enumerate(images):
        grid.paste(image, (slot * width, 0))
    return grid


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:  # not written by this writer, whose files are whole: as if it were from another run
        return {}
    return found if isinstance(found, dict) else {}


def _records(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]" * 5 + "/record.json"))


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}

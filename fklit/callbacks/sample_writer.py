"""Writes what `predict` samples, one folder per prompt, so that a run that was killed goes on where it stopped."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from fklit.report.versions import old_version
from fklit.report.writing import write_prompt, write_run
from fklit.sampling.describe import settings_hash

_PROMPT = "[0-9]" * 5  # folder of a prompt
_REMEDY = "choose another output_dir, or set overwrite: true to replace"


class SampleWriter(BasePredictionWriter):
    """Writes each steered or corrected prompt into a folder of its own.

    ```text
    output_dir/run.json                  settings of the run, their hash, versions of packages
    output_dir/00007/metadata.jsonl      the prompt and its metadata (with samples/, the layout GenEval evaluates)
    output_dir/00007/samples/0000.png    K samples in particle order
    output_dir/00007/grid.png            the same side by side
    output_dir/00007/previews.npz        denoised predictions, "previews" uint8 (S, K, h, w, 3), if they were kept
    output_dir/00007/record.json         rewards, weights, lineages, cost; written last
    ```

    A prompt is done when its `record.json` is there with the same settings (by hash) and the same prompt. A
    run that is started again leaves done prompts alone, and loads no model if nothing is left. Results of other
    settings are never mixed in or replaced unless `overwrite` is set. Every file appears complete or not at all.

    Works with any number of processes, each writes its own prompts.

    Args:
        output_dir: Folder of the run; made if it does not exist.
        overwrite: Whether results of other settings in this folder are replaced. Results of the same settings are kept.

    Raises:
        ValueError: When the run starts: the folder holds results of other settings or of fklit 0.1.
    """

    def __init__(self, output_dir: str, *, overwrite: bool = False) -> None:
        super().__init__("batch")
        self.output_dir = output_dir
        self.overwrite = overwrite
        self._hash = ""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds out what is done, before any weights are loaded; the first process writes `run.json`."""
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        task: Any = pl_module
        if not callable(getattr(task, "settings", None)):
            raise TypeError(
                f"SampleWriter: expected a task that samples (SteeringTask or GuidanceTask), got a "
                f"{type(task).__name__}; remove the callback."
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
            for record in sorted(folder.glob(f"{_PROMPT}/record.json")) if self.overwrite else ():
                if (_read(record) or {}).get("settings_hash") != self._hash:
                    record.unlink()  # no reader shall take what is left of the other run for a part of this one
            write_run(folder, settings, self._hash)
        if task.done:
            rank_zero_info(f"{len(task.done)} of {len(items)} prompts are done already in {folder}.")

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Looks once more, for prompts that come from another DataModule than fklit's."""
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
        foreign = next((part for part in folder.glob(_PROMPT) if any(part.iterdir())), None)
        if self.overwrite:
            return
        if found is None and foreign is not None:
            raise ValueError(
                f"output_dir: expected an empty folder or a run of fklit, got files in {foreign} without {folder}/"
                f"run.json; {_REMEDY} them."
            )
        if found is not None and (old := old_version(found)):
            raise ValueError(
                f"output_dir: expected an empty folder or a run of fklit 0.2 or newer, got {folder} of fklit {old}; "
                f"{_REMEDY} it."
            )
        if found is not None and found.get("settings_hash") != self._hash:
            raise ValueError(
                f"output_dir: expected a run with the same settings (hash {self._hash[:8]}), got {folder} with other "
                f"settings (hash {str(found.get('settings_hash'))[:8]}); {_REMEDY} it."
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
                    f"output_dir: expected results of this run, got {folder} with a result {what}; {_REMEDY} it."
                )
        return done


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:  # not written by this writer, whose files are complete: as if it were from another run
        return {}
    return found if isinstance(found, dict) else {}

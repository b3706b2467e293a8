"""Writes what `predict` samples, one folder per prompt, so that a run that was killed goes on where it stopped."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from fklit.atomic import remove_leftovers
from fklit.callbacks.evaluation_folders import Evaluation, EvaluationFolders
from fklit.callbacks.folder_writer import FolderWriter
from fklit.callbacks.started_run import PROMPT_FOLDER, check_run, done_prompts, read_json
from fklit.evaluation.sampled import Samples
from fklit.report.media import DEFAULT_FRAME_RATE, check_video_writer
from fklit.report.writing import write_prompt, write_run
from fklit.sampling.describe import settings_hash


class SampleWriter(FolderWriter):
    """Writes each steered or corrected prompt into a folder of its own.

    ```text
    output_dir/run.json                  settings of the run, their hash, versions of packages
    output_dir/00007/metadata.jsonl      the prompt and its metadata (with samples/, the layout GenEval evaluates)
    output_dir/00007/samples/0000.png    K samples in particle order (frames of a video side by side; a waveform)
    output_dir/00007/samples/0000.mp4    the videos, or 0000.wav for audio
    output_dir/00007/texts.jsonl         of texts in place of samples/: text, reward, weight, ancestor, tokens and steps
    output_dir/00007/grid.png            the same side by side
    output_dir/00007/previews.npz        denoised predictions, "previews" uint8 (S, K, h, w, 3), if they were kept
    output_dir/00007/record.json         rewards, weights, lineages, cost; written last
    output_dir/evaluation/hps/           what the scorer of a benchmark reads, written at the end if asked for
    ```

    A prompt is done when its `record.json` is there with the same settings (by hash) and the same prompt, and every
    file that it lists can be read. A run that is started again leaves done prompts alone, samples damaged ones again
    and says so, and loads no model if nothing is left. Results of other settings are never mixed in or replaced unless
    `overwrite` is set; a folder without any result belongs to whoever comes. Every file appears complete or not at all.

    Works with any number of processes, each writes its own prompts. One run at a time writes to a folder,
    which `run.lock` says.

    Args:
        output_dir: Folder of the run; made if it does not exist. None takes the trainer's `default_root_dir`.
        overwrite: Whether results of other settings in this folder are replaced. Results of the same settings are kept.
        frame_rate: Frames a second of videos; what the model was trained with is on its card (Wan 16, LTX 24).
        evaluation: Benchmarks whose scorers shall be able to read the images: "geneval", "geneval2", "evalscope",
            "hps", "image_reward", "drawbench", "parti" or a `fklit.evaluation.Benchmark`; or "auto" for the one that
            `PromptDataModule` read the prompts as. One, a list, or None.
        evaluation_samples: Which samples these get: "chosen" for the one that the method chose, or "all" for all K.

    Raises:
        ValueError: A benchmark is not known or takes one sample a prompt. When the run starts: the folder holds results
            of other settings or of fklit 0.1, another run writes to it, or a benchmark lacks something in the
            metadata.
    """

    def __init__(
        self,
        output_dir: str | None = None,
        *,
        overwrite: bool = False,
        frame_rate: float = DEFAULT_FRAME_RATE,
        evaluation: Evaluation | list[Evaluation] | None = None,
        evaluation_samples: Samples = "chosen",
    ) -> None:
        super().__init__(output_dir)
        if not 0 < frame_rate < math.inf:
            raise ValueError(f"frame_rate expected a number above 0, got {frame_rate!r}; give frames a second.")
        self.overwrite = overwrite
        self.frame_rate = frame_rate
        self.evaluation = evaluation
        self.evaluation_samples: Samples = evaluation_samples
        self._folders = EvaluationFolders(evaluation, evaluation_samples)
        self._hash = ""
        self._run: Path | None = None
        self._looked_at: set[int] = set()

    def results(self, trainer: L.Trainer) -> dict[str, Path]:
        """Where the results are, by what they are."""
        folder = self.folder(trainer)
        count = len(list(folder.glob(f"{PROMPT_FOLDER}/record.json")))
        return {f"{count} prompt{'' if count == 1 else 's'}": folder, **self._folders.folders(trainer, folder)}

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
        self._folders.check(trainer)
        settings = task.settings()
        self._hash = settings_hash(settings)
        folder = self._run = self.take(trainer)
        self._looked_at = set()
        if not self.overwrite:
            check_run(folder, settings, self._hash)
        items = getattr(getattr(trainer, "datamodule", None), "items", ())
        task.done = frozenset(self._done((item["index"], item["prompt"]) for item in items))
        # Every process has looked before the first one writes.
        trainer.strategy.barrier("fklit.writer.checked")
        if trainer.is_global_zero:
            for record in sorted(folder.glob(f"{PROMPT_FOLDER}/record.json")) if self.overwrite else ():
                if (read_json(record) or {}).get("settings_hash") != self._hash:
                    record.unlink()  # no reader shall take what is left of the other run for a part of this one
            remove_leftovers(folder, older_than=0.0)  # nobody else writes here: the folder is locked
            write_run(folder, settings, self._hash)
        if task.done:
            rank_zero_info(f"{len(task.done)} of {len(items)} prompts are done already in {folder}.")

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Looks once more, for prompts that come from another DataModule than fklit's."""
        task: Any = pl_module
        modality = getattr(task, "modality", None)
        if modality == "video":
            check_video_writer()  # not after the first prompt was sampled
        if modality not in (None, "image") and self._folders:
            raise ValueError(f"expected images with evaluation, got a pipeline of {modality}; set evaluation to null.")
        if isinstance(batch, Mapping) and {"indices", "prompts"} <= batch.keys():
            new = zip(batch["indices"], batch["prompts"], strict=True)
            task.done = task.done.union(self._done(row for row in new if row[0] not in self._looked_at))

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
            details = getattr(prediction, "details", None)
            write_prompt(
                self._folder(index),
                record,
                prediction.items[b],
                by_index[index],
                previews,
                details=None if details is None else details[b],
                frame_rate=self.frame_rate,
            )

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes for the scorers when every process has written its prompts."""
        if not self._folders:
            return
        trainer.strategy.barrier("fklit.writer.written")
        if trainer.is_global_zero:
            self._folders.write(trainer, self.folder(trainer))
        trainer.strategy.barrier("fklit.writer.evaluation")

    def _folder(self, index: int) -> Path:
        assert self._run is not None
        return self._run / f"{index:05d}"

    def _done(self, prompts: Iterable[tuple[int, str]]) -> list[int]:
        assert self._run is not None
        asked = list(prompts)
        self._looked_at.update(index for index, _ in asked)
        return done_prompts(self._run, asked, self._hash, overwrite=self.overwrite)

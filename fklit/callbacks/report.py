"""A callback that turns what a predict run wrote into one HTML page."""

from pathlib import Path

import lightning as L

from fklit.callbacks.folder_writer import FolderWriter


class Report(L.Callback):
    """Writes `report.html` at the end of `predict`, on the first process.

    It reads the folder that `SampleWriter` filled, whether `SteeringTask` or `GuidanceTask` ran.

    Args:
        output_dir: folder of the run; None takes that of another callback of the trainer (`SampleWriter`).
        base: folder of an unsteered run of the same prompts (of guidance: with `correction: 0`), to show beside this
            one.
        best_of_n: folder of a best-of-n run of the same prompts, to show beside this one.
        name: file name of the page within `output_dir`.
        title: heading of the page; None for one that names the method.
        max_prompts: prompts that are shown in full, the first ones; the others have a small card. None for all.

    Raises:
        ValueError: `max_prompts` is negative, or `name` is not the name of an HTML file.
    """

    def __init__(
        self,
        output_dir: str | None = None,
        *,
        base: str | None = None,
        best_of_n: str | None = None,
        name: str = "report.html",
        title: str | None = None,
        max_prompts: int | None = 32,
    ) -> None:
        if max_prompts is not None and max_prompts < 0:
            raise ValueError(f"expected max_prompts of at least 0, or None for all prompts, got {max_prompts}.")
        if not name.endswith(".html") or Path(name).name != name:
            raise ValueError(f"expected a file name that ends in .html, without folders, got name={name!r}.")
        self.output_dir = output_dir
        self.base = base
        self.best_of_n = best_of_n
        self.name = name
        self.title = title
        self.max_prompts = max_prompts

    def _folder(self, trainer: L.Trainer) -> Path:
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, FolderWriter):
                return callback.folder(trainer)
            if callback is not self and getattr(callback, "output_dir", None) is not None:
                return Path(callback.output_dir)
        raise ValueError(
            "Report: expected output_dir, or another callback of the trainer that has one, got neither; set "
            "output_dir or add SampleWriter."
        )

    def results(self, trainer: L.Trainer) -> dict[str, Path]:
        """Where the page is."""
        return {"report": self._folder(trainer) / self.name}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Fail before the run, not after it, when there is nothing to report on."""
        if stage == "predict":
            self._folder(trainer)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait until every process has written its prompts, then write the page."""
        from fklit.report.page import write_report
        from fklit.report.reading import read_run

        trainer.strategy.barrier("fklit.report")
        if trainer.is_global_zero:
            folder = self._folder(trainer)
            corrects = read_run(folder).corrects
            write_report(
                folder / self.name,
                base=self.base,
                best_of_n=self.best_of_n,
                steered=None if corrects else folder,
                corrected=folder if corrects else None,
                title=self.title,
                max_prompts=self.max_prompts,
            )
        trainer.strategy.barrier("fklit.report.written")

"""A callback that shows a predict run in TensorBoard while it goes on: grids, rewards, ESS, weights and lineages."""

from typing import TYPE_CHECKING, Any

import lightning as L

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardParticles(L.Callback):
    """Logs each steered or corrected prompt under its index.

    Every process writes an event file of its own, so that all prompts of a DDP run are seen.

    For prompt 7 (tags `00007/...`; scalars are over scheduler steps, 0 the noisiest, the last one is the end):
    `images` the K samples (of texts `texts`, a table with reward and weight), `previews` the denoised predictions (a
    row for each scored step, a column for each slot),
    `lineages` the family tree, `ess`, `log_weights` the histogram at the end; with a reward `reward/min`,
    `reward/mean`, `reward/max`; of corrected guidance `log_weight_std`, the standard deviation of the step's log
    weights. Over prompts (tags `prompts/...`, the step is the prompt index): `ess`, `final_log_weight_std` (standard
    deviation of the log weights of living particles at the end), `log_z`, `unique_roots`, `seconds`; with a reward
    `reward_mean` (by weight) and `reward_best`, of one that is made of others also `terms/NAME/mean` and
    `terms/NAME/best` (that of the sample whose whole reward is highest); of corrected guidance
    `log_weight_std`, the mean over steps.

    Args:
        max_prompts: prompts that each process draws in full; of later ones only the scalars over prompts are kept.
            None draws all.
        log_dir: folder of the event files; None takes the trainer's (its logger's, else `default_root_dir`).

    Raises:
        ValueError: `max_prompts` is negative.
    """

    def __init__(self, *, max_prompts: int | None = 32, log_dir: str | None = None) -> None:
        if max_prompts is not None and max_prompts < 0:
            raise ValueError(f"expected max_prompts of at least 0, or None for all prompts, got {max_prompts}.")
        self.max_prompts = max_prompts
        self.log_dir = log_dir
        self._writer: "SummaryWriter | None" = None
        self._drawn = 0

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open this process's event file."""
        from torch.utils.tensorboard import SummaryWriter

        folder = trainer.log_dir or trainer.default_root_dir  # asked on every process: it is broadcast from the first
        self._writer = SummaryWriter(self.log_dir or folder, filename_suffix=f".predict.{trainer.global_rank}")
        self._drawn = 0

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log what the step returned: a result, or nothing if all prompts of the batch were done before."""
        if not outputs or self._writer is None:
            return
        from fklit.report.tensorboard import log_result

        log_result(self._writer, outputs, drawn=self._still_drawn(len(outputs.prompt_indices)))
        self._writer.flush()

    def _still_drawn(self, prompts: int) -> int:
        """How many of the next prompts are drawn in full."""
        drawn = prompts if self.max_prompts is None else min(prompts, self.max_prompts - self._drawn)
        self._drawn += drawn
        return drawn

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the event file."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the event file, so that what was logged is kept."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

"""A callback that shows a predict run in TensorBoard while it goes on: grids, rewards, ESS, weights and lineages."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import lightning as L
import numpy as np
import torch

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

    from fklit.report.record import PromptRecord


class Result(Protocol):
    """What is logged of a ``SteeringResult`` or a ``GuidanceResult``."""

    @property
    def prompt_indices(self) -> Sequence[int]:
        """Indices of the B prompts."""
        ...

    @property
    def samples(self) -> torch.Tensor:
        """(B, K, C, H, W)."""
        ...

    @property
    def previews(self) -> torch.Tensor | None:
        """(S, B, K, 3, h, w), or None."""
        ...

    def record(self, b: int) -> dict[str, Any]:
        """Everything about prompt b but the pictures."""
        ...


class TensorBoardParticles(L.Callback):
    """Logs each steered or corrected prompt under its index, in an event file of its own process.

    So all prompts of a DDP run are seen.

    For prompt 7 (tags ``00007/...``; scalars are over scheduler steps, 0 the noisiest, the last one is the end):
    ``images`` the K samples, ``previews`` the denoised predictions (a row a scored step, a column a slot), ``lineages``
    the family tree, ``ess``, ``log_weights`` the histogram at the end; with a reward ``reward/min``, ``reward/mean``,
    ``reward/max``; of corrected guidance ``spread``, the standard deviation of the step's log weights.
    Over prompts (tags ``prompts/...``, the step is the prompt index): ``ess``, ``log_weight_spread`` (standard
    deviation of the log weights of living particles at the end), ``log_z``, ``unique_roots``, ``seconds``; with a
    reward ``reward_mean`` (by weight) and ``reward_best``; of corrected guidance ``spread``, the mean over steps.

    Args:
        max_prompts: prompts a process draws in full; of later ones only the scalars over prompts are kept. None draws
            all.
        log_dir: folder of the event files; None takes the trainer's (its logger's, else ``default_root_dir``).

    Raises:
        ValueError: ``max_prompts`` is negative.
    """

    def __init__(self, *, max_prompts: int | None = 32, log_dir: str | None = None) -> None:
        if max_prompts is not None and max_prompts < 0:
            raise ValueError(f"max_prompts={max_prompts} was given; give a number from 0, or None for all prompts.")
        self.max_prompts = max_prompts
        self.log_dir = log_dir
        self._writer: SummaryWriter | None = None
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
        log_result(self._writer, outputs, drawn=self._room(len(outputs.prompt_indices)))
        self._writer.flush()

    def _room(self, prompts: int) -> int:
        room = prompts if self.max_prompts is None else min(prompts, self.max_prompts - self._drawn)
        self._drawn += room
        return room

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


def log_result(writer: "SummaryWriter", result: Result, *, drawn: int | None = None) -> None:
    """Log a result without a trainer, for example what ``fklit.steer`` or ``fklit.correct`` returned.

    Args:
        writer: an open ``torch.utils.tensorboard.SummaryWriter``.
        result: what a steered or corrected call returned.
        drawn: prompts to draw in full, from the first; None for all. The others only get the scalars over prompts.
    """
    from fklit.report.record import parse_record

    for b, index in enumerate(result.prompt_indices):
        record = parse_record(result.record(b))
        living = record.log_weights[np.isfinite(record.log_weights)]
        over_prompts = {
            "ess": float(record.ess[-1]),
            "log_weight_spread": float(living.std()) if len(living) else math.nan,
            "log_z": math.nan if record.raw["log_z"] is None else float(record.raw["log_z"]),
            "unique_roots": record.unique_roots,
            "seconds": record.budget["seconds"],
        }
        if record.rewards is not None:
            over_prompts["reward_mean"] = record.weighted_mean(record.rewards)
            over_prompts["reward_best"] = float(record.rewards[record.chosen])
        if record.spread is not None:
            over_prompts["spread"] = float(record.spread.mean())
        for name, value in over_prompts.items():
            writer.add_scalar(f"prompts/{name}", value, index)
        if drawn is None or b < drawn:
            _draw(writer, result, record, b)


def _draw(writer: "SummaryWriter", result: Result, record: "PromptRecord", b: int) -> None:
    from torchvision.utils import make_grid

    tag, slots = f"{record.prompt_index:05d}", record.num_particles
    writer.add_text(f"{tag}/prompt", record.prompt or "(no prompt)")
    writer.add_image(f"{tag}/images", make_grid(result.samples[b], nrow=slots, padding=2, pad_value=0.5))
    if result.previews is not None and len(result.previews):
        shots = result.previews[:, b].flatten(0, 1)
        writer.add_image(f"{tag}/previews", make_grid(shots, nrow=slots, padding=2, pad_value=128))
    for s, step in enumerate([*record.steps.tolist(), record.num_steps]):
        writer.add_scalar(f"{tag}/ess", record.ess[s], step)
        if record.spread is not None and s < len(record.spread):
            writer.add_scalar(f"{tag}/spread", record.spread[s], step)
        row = record.values[s][np.isfinite(record.values[s])]
        if len(row):
            writer.add_scalar(f"{tag}/reward/min", row.min(), step)
            writer.add_scalar(f"{tag}/reward/mean", row.mean(), step)
            writer.add_scalar(f"{tag}/reward/max", row.max(), step)
    living = record.log_weights[np.isfinite(record.log_weights)]
    if len(living):
        writer.add_histogram(f"{tag}/log_weights", living, record.num_steps)
    if len(record.steps):
        writer.add_figure(f"{tag}/lineages", lineage_figure(result, b))


def lineage_figure(result: Result, b: int) -> "Figure":
    """Family tree of prompt ``b`` as a matplotlib figure: slots over steps, colored by root, faded where it died out.

    Args:
        result: what a steered or corrected call returned, with at least one step that weighed.
        b: position of the prompt in the result.
    """
    from matplotlib.figure import Figure

    from fklit.report.lineages import trace
    from fklit.report.record import parse_record
    from fklit.report.svg import root_color

    record = parse_record(result.record(b))
    family = trace(record.ancestors, record.chosen)
    xs = [*record.steps.tolist(), record.num_steps]
    slots = family.alive.shape[1]
    # Not through pyplot: it keeps every figure and picks a backend for the whole process.
    figure = Figure(figsize=(1.2 + 0.6 * min(len(xs), 30), 1.0 + 0.35 * slots), layout="constrained")
    axes = figure.add_subplot()
    for s, slot in np.ndindex(family.parents.shape):
        alive, chosen = family.alive[s + 1, slot], family.chosen[s + 1, slot]
        axes.plot(
            xs[s : s + 2],
            [family.parents[s, slot], slot],
            color=root_color(int(family.roots[s + 1, slot])),
            alpha=1.0 if alive else 0.25,
            linewidth=3.0 if chosen else 1.5,
        )
    for s, slot in np.ndindex(family.alive.shape):
        axes.plot(
            xs[s],
            slot,
            "o",
            markersize=4,
            color=root_color(int(family.roots[s, slot])),
            alpha=1.0 if family.alive[s, slot] else 0.25,
        )
    axes.set(xlabel="scheduler step", ylabel="slot", yticks=range(slots) if slots <= 16 else [0, slots - 1])
    axes.invert_yaxis()
    axes.set_title(record.prompt[:80] or "(no prompt)", fontsize=9, parse_math=False)
    return figure

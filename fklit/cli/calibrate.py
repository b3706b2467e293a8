"""`fklit calibrate --config FILE`: measures what scores on the way tell of the end, for the run that FILE describes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from fklit.feynman_kac.schedule import Schedule
from fklit.report import write_calibration
from fklit.steering.calibration import Calibrated, Calibration, Proposal, propose, summarize, table
from fklit.steering.calibration.api import DEFAULT_SAMPLES, DEFAULT_SEED
from fklit.steering.calibration.proposal import DEFAULT_OVERHEAD
from fklit.steering.task import SteeringTask

_FILE = "calibration.json"


class CalibratingTrainer(Trainer):
    """Lightning's trainer, which can also calibrate a `SteeringTask`."""

    def calibrate(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        *,
        num_prompts: int | None = 16,
        num_samples: int = DEFAULT_SAMPLES,
        schedule: Schedule | None = None,
        upper_bound: float | None = None,
        seed: int = DEFAULT_SEED,
        nats: float | None = None,
        effective: float | None = None,
        overhead: float = DEFAULT_OVERHEAD,
        path: str | None = None,
    ) -> Calibration:
        """Measure what scores on the way tell of the end, and propose a scale, a schedule and potentials.

        Writes a calibration (JSON) and a page beside it, and prints both as a table. The file is the one that the
        configuration names as `calibration`, so that the same configuration runs with it afterwards.

        Args:
            model: A `SteeringTask`.
            datamodule: Prompts like those that will be steered.
            num_prompts: Prompts to take, evenly spread over the data; null for all.
            num_samples: Samples of each prompt, at least 2.
            schedule: Steps that are scored; null for every twentieth of the run from 0.1 to 0.95 of it.
            upper_bound: What no reward exceeds; null for the reward's own bound.
            seed: Of the samples, which should not be that of the runs to come.
            nats: Budget of the proposed scale: nats from the base (KL); null for the goals' own.
            effective: Budget in effective samples of a prompt's samples in place of nats.
            overhead: Seconds of scores that may be spent for each second of the denoiser, for the proposed schedule.
            path: File to write; null for the one that the configuration names, or calibration.json in the output
                folder.

        Returns:
            The calibration.

        Raises:
            ValueError: The model does not steer, there are no prompts, or more than one process runs.
        """
        if not isinstance(model, SteeringTask):
            raise ValueError(
                f"expected a SteeringTask to calibrate, got a {type(model).__name__}; give a configuration of steering."
            )
        if self.world_size > 1:
            raise ValueError(f"expected one process, got {self.world_size}; say --trainer.devices 1.")
        rows, at_once = _prompts(datamodule, num_prompts)
        model.source.load().enable_offload(self.strategy.root_device)
        model.to(self.strategy.root_device)
        with _progress(len(rows), shown=bool(self.progress_bar_callback)) as advance:
            found = model.calibrate(
                [row[0] for row in rows],
                [row[1] for row in rows],
                [row[2] for row in rows],
                num_samples=num_samples,
                schedule=schedule,
                upper_bound=upper_bound,
                seed=seed,
                batch_size=max(1, at_once * model.num_particles // num_samples),
                on_batch=advance,
            )
        file = found.save(path or Path(self.default_root_dir, _FILE))
        proposals, refused = _proposals(found, nats, effective, overhead)
        summary = summarize(found, proposals, reward_scale=model.sampling.reward_scale)
        page = write_calibration(file.with_suffix(".html"), summary)
        print(table(summary))
        if refused:
            print(f"nothing is proposed: {refused}")
        print(f"calibration: {file}\npage: {page}", flush=True)
        return found


def without_calibration(settings: Namespace) -> None:
    """Let a task be built that has no calibration yet: its goal and its calibrated potential are left out.

    The file that it names is where the calibration goes, unless `path` says so; callbacks and loggers are of other
    subcommands.

    Args:
        settings: Of `calibrate`, changed in place.
    """
    named = None
    given = settings.model.get("init_args") if settings.get("model") else None
    if given is not None:
        named = given.get("calibration")
        potential = given.get("potential")
        if isinstance(potential, Namespace) and str(potential.get("class_path")).endswith(f".{Calibrated.__name__}"):
            named = named or potential.init_args.calibration
            given.potential = "difference"
        for name in ("goal", "calibration"):
            if name in given:
                given[name] = None
    settings.trainer.callbacks, settings.trainer.logger = None, False
    if settings.get("path") is None and named is not None:
        folder = settings.get("output_dir")
        settings.path = str(named if folder is None else Path(folder, Path(named).name))


def _prompts(data: LightningDataModule | None, number: int | None) -> tuple[list[tuple[str, int, Any]], int]:
    """Prompts with their indices and metadata, and how many the data give at once."""
    if data is None:
        raise ValueError("expected prompts, got no data; give a configuration with data, or --data PromptDataModule.")
    if number is not None and number < 1:
        raise ValueError(f"expected num_prompts of at least 1 or null, got {number}; give one such as 16.")
    data.prepare_data()
    data.setup("predict")
    rows, at_once = [], 1
    for batch in data.predict_dataloader():
        metadata = batch.get("metadata") or [{}] * len(batch["prompts"])
        rows += list(zip(batch["prompts"], [int(index) for index in batch["indices"]], metadata, strict=True))
        at_once = max(at_once, len(batch["prompts"]))
    if not rows:
        raise ValueError("expected prompts, got none; give some in data.")
    count = len(rows) if number is None else min(number, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)], at_once


def _proposals(
    found: Calibration, nats: float | None, effective: float | None, overhead: float
) -> tuple[list[Proposal], str | None]:
    """What is proposed for each goal, or why nothing is; a budget of the user's own that cannot be is refused."""
    try:
        return [
            propose(found, goal, nats_from_base=nats, effective=effective, overhead=overhead)
            for goal in ("best", "sample")
        ], None
    except ValueError as error:
        return [], str(error)


@contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Any]:
    """A bar; gives a function that takes the number of prompts that are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("calibrating"), BarColumn(), MofNCompleteColumn(), TextColumn("prompts"))
    with Progress(*columns, TimeRemainingColumn(), disable=not shown) as progress:
        task = progress.add_task("calibrating", total=total)
        yield lambda done: progress.update(task, completed=done)

"""Attaches metrics to the validation and test of any task that returns what it samples or classifies."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torchmetrics import Metric

from fklit.callbacks.base_comparison import BaseComparison
from fklit.callbacks.metric_checks import check_metric, check_name, check_start
from fklit.callbacks.same_model import warn_of_same_model
from fklit.metrics.prompt_metric import PromptMetric
from fklit.metrics.sample_metric import SampleMetric
from fklit.sampling.repeated import loader_at, repeated_rows


class MetricsCallback(Callback):
    """Computes metrics in every validation and test, and logs them as `val/NAME` and `test/NAME`.

    ```yaml
    trainer:
      callbacks:
        - class_path: MetricsCallback
          init_args:
            metrics:
              clip_score: {class_path: MeanCLIPScore, init_args: {model_name: fklit:emoji_clip}}
              image_reward: {class_path: RewardMetric, init_args: {reward: {class_path: ImageReward}}}
    ```

    It takes what a task returns from its steps and leaves everything else of the task alone. A metric of several
    numbers logs each as `val/NAME/KEY`. Weights of metrics are loaded before the first batch, and only then. Logged
    numbers are over all processes; what a distributed sampler repeats counts once.

    **Reward hacking.** A `test` of a task that steers or corrects also draws one sample of each prompt without it (one
    particle, at 1/K of the cost), and logs for the reward and for every metric of the chosen sample `test/base/NAME`,
    `test/steered/NAME`, their mean difference `test/gain/NAME` and its paired standard error `test/gain_se/NAME`, also
    by tag. Where the reward rises while a metric falls, each by more than two standard errors, it warns
    (`RewardHackingWarning`); a fall within two is said to be undecided. A metric that measures by the model that guides
    is warned of (`SameModelWarning`) and never counts as evidence.

    A task of your own takes part if it has a class attribute `evaluates` and returns from `validation_step` and
    `test_step`: with "samples" `{"samples": (B, K, ...), "batch": SampleBatch}`; with "particles" the same without
    prompts and images; with "classes" `{"scores": (N, classes), "y": (N,)}`.

    Args:
        metrics: Metrics by name: those of `fklit.metrics`, of your own with `update(samples, batch)`, metrics of
            torchmetrics for images in a `fklit.metrics.ChosenSamples`; for tasks that classify any metric of
            `torchmetrics.classification`.
        base: Whether a test also samples without the method, as above.
        by: Key of the metadata by which the gains are also taken, where prompts have it; None for none.

    Raises:
        ValueError: There is no metric, or a name is taken. When the run starts: a metric does not fit the task.
    """

    def __init__(self, metrics: dict[str, Metric], *, base: bool = True, by: str | None = "tag") -> None:
        if not metrics:
            raise ValueError("MetricsCallback expected at least one metric by name, got none; leave the callback out.")
        for name in metrics:
            check_name(name)
        self.metrics = nn.ModuleDict(metrics)
        self.base = base
        self.by = by
        self._blind: list[str] = []
        self._comparison: BaseComparison | None = None
        self._seen: dict[int, int] = {}

    def _named(self) -> list[tuple[str, Metric]]:
        return [(name, metric) for name, metric in self.metrics.items() if isinstance(metric, Metric)]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses metrics that do not fit the task, before anything is loaded."""
        if stage == "predict":
            return
        guide, self._blind = getattr(pl_module, "reward", None), []
        for name, metric in self._named():
            check_metric(name, metric, pl_module)
            measures = metric.reward if isinstance(metric, SampleMetric) else None
            if warn_of_same_model(name, measures, guide):
                self._blind.append(name)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Loads the weights of the metrics, and refuses runs that are too small for one."""
        self.metrics.to(pl_module.device)
        for name, metric in self._named():
            if isinstance(metric, SampleMetric):
                metric.load()
            check_start(name, metric, pl_module, world_size=trainer.world_size)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Loads the weights of the metrics, and refuses runs that are too small for one."""
        self.on_validation_start(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._seen = {}
        for _, metric in self._named():
            metric.reset()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self.on_validation_epoch_start(trainer, pl_module)
        task: Any = pl_module
        measures = {name: item for name, item in self._named() if isinstance(item, PromptMetric) and item.of_chosen}
        self._comparison = None
        if self.base and measures and hasattr(task, "sample_base") and task.num_particles > 1:
            self._comparison = BaseComparison(measures, by=self.by, blind=self._blind)
            self._comparison.to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Adds what the task returned of a batch; nothing in the check before training."""
        if not trainer.sanity_checking and outputs is not None:
            self._add(outputs, pl_module, loader_at(trainer.val_dataloaders, dataloader_idx), dataloader_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Adds what the task returned of a batch."""
        if outputs is not None:
            self._add(outputs, pl_module, loader_at(trainer.test_dataloaders, dataloader_idx), dataloader_idx)

    def _add(self, outputs: Any, task: LightningModule, loader: Any, dataloader_idx: int) -> None:
        if not isinstance(outputs, Mapping):
            raise TypeError(
                f"MetricsCallback expected a dictionary from the steps of {type(task).__name__}, got a "
                f"{type(outputs).__name__}; return the one that its documentation asks for."
            )
        if task.evaluates == "classes":
            seen, count = self._seen.get(dataloader_idx, 0), len(outputs["y"])
            self._seen[dataloader_idx] = seen + count
            new = ~torch.tensor(repeated_rows(loader, seen, count), dtype=torch.bool, device=outputs["y"].device)
            if new.any():
                for _, metric in self._named():
                    metric.update(outputs["scores"][new], outputs["y"][new])
            return
        samples, known = outputs["samples"], outputs["batch"]
        measured: dict[str, torch.Tensor] = {}
        for name, metric in self._named():
            if isinstance(metric, PromptMetric):
                measured[name] = metric.measure(samples, known)
                metric.update(samples, known, measured[name])
            elif len(samples) or isinstance(metric, SampleMetric):
                # an empty batch is for those that know what to exchange then
                metric.update(samples, known)
        if self._comparison is not None:
            self._comparison.add(known, measured, task)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs `val/NAME`."""
        if not trainer.sanity_checking:
            self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs `test/NAME`, and what steering gained."""
        self._log(pl_module, "test")
        if self._comparison is not None:
            self._comparison.log(pl_module)
            self._comparison = None

    def _log(self, task: LightningModule, stage: str) -> None:
        for name, metric in self._named():
            for key, value in _numbers(name, metric, metric.compute()).items():
                # Equal on all processes already; the mean over them only tells Lightning so.
                task.log(f"{stage}/{key}", value, sync_dist=True)


def _numbers(name: str, metric: Metric, value: Any) -> dict[str, torch.Tensor]:
    """What a metric says by the names under which it is logged."""
    values = value if isinstance(value, dict) else {"": value}
    plain = "mean" if isinstance(metric, PromptMetric) else ""
    found = {}
    for key, number in values.items():
        tensor = torch.as_tensor(number)
        if tensor.numel() != 1:
            raise ValueError(
                f"{name} ({type(metric).__name__}) expected numbers to log, got a tensor {tuple(tensor.shape)}; "
                "average it, or leave it out."
            )
        found[name if key in ("", plain) else f"{name}/{key}"] = tensor.reshape(()).float()
    return found

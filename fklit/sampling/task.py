"""What tasks that sample from pretrained pipelines share under Lightning: loading, prompts, metrics, no training."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fklit.metrics.prompt_mean import PromptMean
from fklit.metrics.samples import SampleBatch
from fklit.pipelines.modality import Modality, modality_of
from fklit.pipelines.source import PipelineSource
from fklit.sampling.describe import describe
from fklit.sampling.no_training import NoTraining
from fklit.sampling.prompts import check_metadata
from fklit.sampling.result import PipelineResult
from fklit.sampling.settings import SamplingSettings
from fklit.sampling.threads import check_threads, pinned_threads


class SamplingTask(NoTraining):
    """`predict` and `test` of a method that samples prompts with a pretrained pipeline; nothing is trained.

    The samples of a prompt depend on the settings, the seed and the prompt's index, not on batch size, number of
    processes or order (bit for bit with a fixed `max_batch` and `num_threads`). Nothing here is saved in checkpoints:
    there is nothing to resume but the writer's folder.

    Args:
        source: Where the pipeline comes from; loaded when the run starts.
        settings: Of the method.
        reported: Names of the figures that `figures` gives.
        metrics: Metrics for `test` by name; their `update(samples, batch)` gets all samples (B, K, C, H, W) in [0, 1]
            with a `SampleBatch`.
        num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they are.
    """

    def __init__(
        self,
        source: PipelineSource,
        settings: SamplingSettings,
        *,
        reported: Sequence[str],
        metrics: Mapping[str, Metric] | None = None,
        num_threads: int | None = 1,
    ) -> None:
        super().__init__()
        self.source = source
        self.sampling = settings
        self.reward = settings.reward  # a module: it follows this one to its device
        self.done: frozenset[int] = frozenset()  # prompts that are on disk already; set by the writer
        self.num_threads = check_threads(num_threads)
        self.means = nn.ModuleDict({name: PromptMean() for name in reported})
        self.metrics = nn.ModuleDict(dict(metrics or {}))

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: there are no checkpoints.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{cls.__name__} expected its own arguments, got a checkpoint; it trains nothing, so there is nothing to "
            "load: build it from its configuration."
        )

    def settings(self) -> dict[str, Any]:
        """Everything that determines the samples, JSON-able: weights, reward and method; not paths or batch size.

        Raises:
            TypeError: The reward does not tell its arguments, see `fklit.sampling.describe`.
        """
        return {"source": self.source.settings(), **describe(self.sampling.keywords())}

    @abstractmethod
    def sample(
        self, prompts: list[str], indices: list[int], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> PipelineResult:
        """Run the method on prompts with their indices and what else is known about them."""

    @abstractmethod
    def figures(self, result: Any) -> dict[str, Tensor]:
        """Figures of each prompt (B,) by name, for `test`."""

    def chosen(self, result: Any) -> Tensor:
        """Slot of the sample of each prompt that metrics see, (B,)."""
        best: Tensor = result.best_index()
        return best

    @property
    def modality(self) -> Modality | None:
        """What the pipeline makes; None before it is loaded."""
        if not self.source.is_loaded:
            return None
        return modality_of(self.source.pipeline, self.sampling.pipeline_kwargs or {})

    def configure_model(self) -> None:
        """Load the weights, unless every prompt of this run is done; calling it again does nothing."""
        data = getattr(self.trainer, "datamodule", None)
        items = getattr(data, "items", None)
        if items is not None and self.done.issuperset(item["index"] for item in items):
            return
        if self.reward is not None:  # the smaller one first: what is wrong shows before gigabytes are read
            reward: Any = self.reward
            reward.load()
        self.source.load().enable_offload(self.trainer.strategy.root_device)

    def on_test_start(self) -> None:
        """Refuse metrics with more processes than prompts: they would wait for one that saw none.

        Raises:
            ValueError: There are.
        """
        items = getattr(getattr(self.trainer, "datamodule", None), "items", None)
        if items is not None and len(self.metrics) and self.trainer.world_size > len(items):
            raise ValueError(
                f"expected a prompt for each of {self.trainer.world_size} processes with metrics, got {len(items)}; "
                f"use at most {len(items)} devices."
            )

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Sample the prompts of a batch that are not done.

        Args:
            batch: `{"prompts": [...], "indices": [...], ...}` as `PromptDataModule` gives it.
            batch_idx: Place of the batch; unused.
            dataloader_idx: Place of the loader; unused.

        Returns:
            The result, or an empty tuple if all prompts of the batch are done (Lightning warns of None).
        """
        todo = [row for row in zip(*_columns(batch), strict=True) if row[1] not in self.done]
        if not todo:
            return ()
        with pinned_threads(self.num_threads):
            return self.sample([row[0] for row in todo], [row[1] for row in todo], [row[2] for row in todo])

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Sample the prompts of a batch and add them to the metrics."""
        prompts, indices, metadata = _columns(batch)
        if not prompts:  # of a process that has nothing to do: what is gathered from it has no rows
            for mean in self.means.values():
                assert isinstance(mean, PromptMean)
                mean.update(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64))
            return
        with pinned_threads(self.num_threads):
            result = self.sample(prompts, indices, metadata)
        where = torch.tensor(indices)
        for name, values in self.figures(result).items():
            mean = self.means[name]
            assert isinstance(mean, PromptMean)
            mean.update(where, values)
        samples = result.samples.to(self.device)
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            metric.update(samples, SampleBatch(prompts, metadata, self.chosen(result), where))

    def on_test_epoch_end(self) -> None:
        """Log the means over all prompts of all processes; a metric of several numbers logs each."""
        for name, metric in (*self.means.items(), *self.metrics.items()):
            assert isinstance(metric, Metric)
            value = metric.compute()
            values = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
            # Equal on all processes already; the mean over them only tells Lightning so.
            self.log_dict({f"test/{key}": v.float() for key, v in values.items()}, sync_dist=True)
            metric.reset()


def cost_figures(result: PipelineResult) -> dict[str, Tensor]:
    """Each prompt's share of what a call cost, (B,): denoiser calls and seconds."""
    count, budget = result.num_groups, result.budget
    return {
        "denoiser_calls": torch.full((count,), budget.denoiser_calls / count),
        "seconds": torch.full((count,), budget.seconds / count),
    }


def _columns(batch: Any) -> tuple[list[str], list[int], list[Mapping[str, Any]]]:
    """Prompts, indices and metadata of a batch."""
    if not isinstance(batch, Mapping) or not {"prompts", "indices"} <= batch.keys():
        raise ValueError(
            f"expected a batch {{'prompts': [...], 'indices': [...]}}, got a {type(batch).__name__}; use "
            "PromptDataModule: the noise of a prompt follows from its index."
        )
    prompts = list(batch["prompts"])
    metadata = check_metadata(batch.get("metadata") or None, prompts)
    return prompts, [int(index) for index in batch["indices"]], metadata

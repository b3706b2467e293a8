"""What tasks that sample from pretrained pipelines share under Lightning: loading, prompts, metrics, no training."""

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fklit.metrics.prompt_mean import PromptMean
from fklit.pipelines.source import PipelineSource
from fklit.sampling.no_training import NoTraining
from fklit.sampling.threads import check_threads, pinned_threads


class Sampled(Protocol):
    """Samples of B prompts with K particles each, as every result has them."""

    @property
    def samples(self) -> Tensor:
        """(B, K, C, H, W)."""
        ...


class SamplingTask(NoTraining):
    """``predict`` and ``test`` of a method that samples prompts with a pretrained pipeline; nothing is trained.

    Args:
        source: Where the pipeline comes from; loaded when the run starts.
        reported: Names of the figures that ``figures`` gives.
        metrics: Metrics for ``test`` by name, see :class:`fklit.steering.task.SteeringTask`.
        num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they are.
    """

    def __init__(
        self,
        source: PipelineSource,
        *,
        reported: Sequence[str],
        metrics: Mapping[str, Metric] | None = None,
        num_threads: int | None = 1,
    ) -> None:
        super().__init__()
        self.source = source
        self.done: frozenset[int] = frozenset()  # prompts that are on disk already; set by the writer
        self.num_threads = check_threads(num_threads)
        self.means = nn.ModuleDict({name: PromptMean() for name in reported})
        self.metrics = nn.ModuleDict(dict(metrics or {}))

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that determines the samples, JSON-able."""

    @abstractmethod
    def sample(self, prompts: list[str], indices: list[int]) -> Any:
        """Run the method on prompts with their indices."""

    @abstractmethod
    def figures(self, result: Any) -> dict[str, Tensor]:
        """Figures of each prompt (B,) by name, for ``test``."""

    def chosen(self, result: Any) -> Tensor:
        """Slot of the sample of each prompt that metrics see, (B,)."""
        best: Tensor = result.best_index
        return best

    def load_more(self) -> None:  # noqa: B027
        """Load what the method needs besides the pipeline, before it."""

    def configure_model(self) -> None:
        """Loads the weights, unless every prompt of this run is done; calling it again does nothing."""
        data = getattr(self.trainer, "datamodule", None)
        items = getattr(data, "items", None)
        if items is not None and self.done.issuperset(item["index"] for item in items):
            return
        self.load_more()  # the smaller one first: what is wrong shows before gigabytes are read
        self.source.load().enable_offload(self.trainer.strategy.root_device)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Samples the prompts of a batch that are not done.

        Args:
            batch: ``{"prompts": [...], "indices": [...], ...}`` as ``PromptDataModule`` gives it.
            batch_idx: Place of the batch; unused.
            dataloader_idx: Place of the loader; unused.

        Returns:
            The result, or an empty tuple if all prompts of the batch are done (Lightning warns of None).
        """
        prompts, indices = _prompts_and_indices(batch)
        todo = [place for place, index in enumerate(indices) if index not in self.done]
        if not todo:
            return ()
        with pinned_threads(self.num_threads):
            return self.sample([prompts[place] for place in todo], [indices[place] for place in todo])

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Samples the prompts of a batch and adds them to the metrics."""
        prompts, indices = _prompts_and_indices(batch)
        with pinned_threads(self.num_threads):
            result: Sampled = self.sample(prompts, indices)
        where = torch.tensor(indices)
        for name, values in self.figures(result).items():
            mean = self.means[name]
            assert isinstance(mean, PromptMean)
            mean.update(where, values)
        chosen = result.samples[torch.arange(len(prompts)), self.chosen(result)].to(self.device)
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            takes = inspect.signature(metric.update).parameters
            if "group_size" in takes:
                metric.update(result.samples.flatten(0, 1).to(self.device), group_size=result.samples.shape[1])
            else:
                metric.update(chosen, batch["metadata"] if "metadata" in takes else prompts)

    def on_test_epoch_end(self) -> None:
        """Logs the means over all prompts of all processes; a metric of several numbers logs each."""
        for name, metric in (*self.means.items(), *self.metrics.items()):
            assert isinstance(metric, Metric)
            value = metric.compute()
            values = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
            # Equal on all processes already; the mean over them only tells Lightning so.
            self.log_dict({f"test/{key}": v.float() for key, v in values.items()}, sync_dist=True)
            metric.reset()


def _prompts_and_indices(batch: Any) -> tuple[list[str], list[int]]:
    if not isinstance(batch, Mapping) or not {"prompts", "indices"} <= batch.keys():
        raise ValueError(
            f"A batch of type {type(batch).__name__} was given; give {{'prompts': [...], 'indices': [...]}} "
            "(PromptDataModule does): the noise of a prompt follows from its index."
        )
    return list(batch["prompts"]), [int(index) for index in batch["indices"]]

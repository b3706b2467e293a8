"""What tasks that sample from pretrained pipelines share under Lightning: loading, prompts, metrics, no training."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from fklit.metrics.prompt_mean import PromptMean
from fklit.metrics.samples import SampleBatch
from fklit.pipelines.modality import Modality, modality_of
from fklit.pipelines.source import PipelineSource
from fklit.pipelines.tokens.adapters import writes_text
from fklit.sampling.describe import describe
from fklit.sampling.model_source import ModelSource
from fklit.sampling.no_training import NoTraining
from fklit.sampling.prompts import check_metadata
from fklit.sampling.repeated import loader_at, repeated_rows
from fklit.sampling.result import PipelineResult
from fklit.sampling.settings import SamplingSettings
from fklit.sampling.threads import check_threads, pinned_threads


class SamplingTask(NoTraining):
    """`predict`, `validate` and `test` of a method that samples prompts with a pretrained pipeline; nothing is trained.

    `validate` and `test` sample and log the same, `val/NAME` and `test/NAME`. Their steps return the samples, which
    `fklit.callbacks.MetricsCallback` measures: `{"samples": (B, K, ...), "batch": SampleBatch}`.

    The samples of a prompt depend on the settings, the seed and the prompt's index, not on batch size, number of
    processes or order (bit for bit with a fixed `max_batch` and `num_threads`). Nothing here is saved in checkpoints:
    there is nothing to resume but the writer's folder.

    Args:
        source: Where the pipeline, or a model that owns its steps, comes from; loaded when the run starts.
        settings: Of the method.
        reported: Names of the figures that `figures` gives.
        num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they are.
    """

    evaluates: ClassVar[str] = "samples"  # what the steps return, for MetricsCallback

    def __init__(
        self,
        source: PipelineSource | ModelSource,
        settings: SamplingSettings,
        *,
        reported: Sequence[str],
        num_threads: int | None = 1,
    ) -> None:
        super().__init__()
        self.source = source
        self.sampling = settings
        self.reward = settings.reward  # modules: they follow this one to its device
        self.latent_reward = settings.latent_reward
        self.done: frozenset[int] = frozenset()  # prompts that are on disk already; set by the writer
        self.num_threads = check_threads(num_threads)
        self.means = nn.ModuleDict({name: PromptMean() for name in reported})
        self._seen: dict[int, int] = {}  # rows of this epoch, by loader

    @property
    def num_prompts(self) -> int | None:
        """Prompts of the run, on all processes; None if the data module does not say."""
        items = getattr(getattr(self.trainer, "datamodule", None), "items", None)
        return None if items is None else len(items)

    @property
    def num_particles(self) -> int:
        """K."""
        return self.sampling.num_particles

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
        self,
        prompts: list[str],
        indices: list[int],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        settings: SamplingSettings | None = None,
    ) -> PipelineResult:
        """Run the method on prompts with their indices and what else is known about them.

        Args:
            prompts: B prompts.
            indices: Their indices, from which with the seed their noise follows.
            metadata: What else is known about each, B mappings.
            settings: In place of the task's own.
        """

    def sample_base(self, batch: SampleBatch) -> tuple[Tensor, SampleBatch]:
        """Draw one sample of each prompt without the method: the same run with one particle, which nothing selects.

        Its first noise is that of the prompt's first particle; its sampler, steps and guidance are those of the method,
        so that the difference is what the method did. It costs 1/K of the method.

        Returns:
            Samples (B, 1, ...) on the task's device, and what is known about them.
        """
        alone = replace(self.without_method(), num_particles=1, on_degenerate="keep")
        prompts, indices, metadata = list(batch.prompts), batch.indices.tolist(), list(batch.metadata)
        with pinned_threads(self.num_threads):
            result = self.sample(prompts, indices, metadata, settings=alone)
        known = SampleBatch(prompts, metadata, torch.zeros_like(batch.indices), batch.indices, result)
        return result.samples.to(self.device), known

    def without_method(self) -> SamplingSettings:
        """Return the settings without what the method does even to one particle."""
        return self.sampling

    @abstractmethod
    def figures(self, result: Any) -> dict[str, Tensor]:
        """Figures of each prompt (B,) by name, for `validate` and `test`."""

    def chosen(self, result: Any) -> Tensor:
        """Slot of the sample of each prompt that metrics see, (B,)."""
        best: Tensor = result.best_index()
        return best

    @property
    def modality(self) -> Modality | str | None:
        """What the pipeline makes; None before it is loaded."""
        if isinstance(self.source, ModelSource):
            return self.source.modality
        if not self.source.is_loaded:
            return None
        if writes_text(self.source.pipeline):
            return "text"
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
        if self.latent_reward is not None:
            self.latent_reward.load()
        self.source.load().enable_offload(self.trainer.strategy.root_device)

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

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Sample the prompts of a batch, add their figures to the means, and return the samples."""
        return self._evaluate(batch, "val", dataloader_idx)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Sample the prompts of a batch, add their figures to the means, and return the samples."""
        return self._evaluate(batch, "test", dataloader_idx)

    def _evaluate(self, batch: dict[str, Any], stage: str, dataloader_idx: int) -> dict[str, Any]:
        loader = loader_at(getattr(self._trainer, f"{stage}_dataloaders", None), dataloader_idx)
        rows = [*zip(*_columns(batch), strict=True)]
        seen = self._seen.get(dataloader_idx, 0)
        self._seen[dataloader_idx] = seen + len(rows)
        repeated = repeated_rows(loader, seen, len(rows))
        rows = [row for row, again in zip(rows, repeated, strict=True) if not again]
        prompts, indices, metadata = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
        if not prompts:  # of a process that has nothing to do: what is gathered from it has no rows
            nothing = torch.zeros(0, dtype=torch.int64)
            for mean in self.means.values():
                assert isinstance(mean, PromptMean)
                mean.update(nothing, torch.zeros(0, dtype=torch.float64))
            samples = torch.zeros(0, self.num_particles, 3, 1, 1, device=self.device)
            return {"samples": samples, "batch": SampleBatch([], [], nothing, nothing)}
        with pinned_threads(self.num_threads):
            result = self.sample(prompts, indices, metadata)
        where = torch.tensor(indices)
        for name, values in self.figures(result).items():
            mean = self.means[name]
            assert isinstance(mean, PromptMean)
            mean.update(where, values)
        known = SampleBatch(prompts, metadata, self.chosen(result).cpu(), where, result)
        return {"samples": result.samples.to(self.device), "batch": known}

    def on_validation_epoch_start(self) -> None:
        """Count the rows of the epoch from the first."""
        self._seen = {}

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log the means over all prompts of all processes, `val/NAME`."""
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """Log the means over all prompts of all processes, `test/NAME`."""
        self._log_means("test")

    def _log_means(self, stage: str) -> None:
        for name, mean in self.means.items():
            assert isinstance(mean, PromptMean)
            # Equal on all processes already; the mean over them only tells Lightning so.
            self.log(f"{stage}/{name}", mean.compute().float(), sync_dist=True)
            mean.reset()


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

"""Steering under Lightning: ``predict`` makes samples for a writer, ``test`` reports metrics."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NoReturn

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import Metric

from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.potentials import Potential
from fklit.feynman_kac.potentials import potential as potential_by_name
from fklit.feynman_kac.resampling import resampler as resampler_by_name
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Tempering
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.metrics.prompt_mean import PromptMean
from fklit.models.describe import describe
from fklit.models.source import PipelineSource
from fklit.rewards.base import Reward
from fklit.rewards.scoring import as_reward
from fklit.steering.api import steer
from fklit.steering.result import SteeringResult

_NO_TRAINING = (
    "`fit` or `validate` was asked for with SteeringTask, which samples from pretrained weights and trains nothing; "
    "use `predict` (writes samples) or `test` (reports metrics)."
)
_REPORTED = ("reward_mean", "reward_best", "ess", "log_z", "unique_roots", "denoiser_calls", "seconds")


class SteeringTask(LightningModule):
    """Steers a pretrained pipeline on the prompts of a DataModule; ``fklit.steer`` explains every setting.

    ``predict`` returns one :class:`SteeringResult` a batch, which ``SteeringWriter`` writes to disk; set
    ``return_predictions: false``, or all images of the run stay in memory. ``test`` logs means over prompts: the reward
    by weight and of the chosen sample, the effective sample size and log Z at the end, surviving lineages, cost,
    and ``metrics`` of the chosen samples.

    The samples of a prompt depend on the settings, the seed and the prompt's index, not on batch size, number of
    processes or order. Nothing here is saved in checkpoints: there is nothing to resume but the writer's folder, and
    saved settings would override those of the next command line.

    Args:
        source: Where the pipeline comes from; loaded when the run starts.
        reward: What to steer towards (``fklit.rewards.Function`` wraps a function of images and prompts).
        num_particles: K, samples of each prompt.
        potential: "difference", "max", "sum", "terminal" (best-of-n), or a ``Potential``.
        reward_scale: At least 0; None takes the reward's ``suggested_scale``.
        tempering: How the scale grows along the run; None for constant.
        schedule: Which steps score and may resample; None for 0.2 to 0.8 of the run, at every tenth of it.
        resampler: "systematic", "multinomial", "stratified", "residual" or "ssp".
        ess_threshold: Fraction of K below which a prompt resamples, in [0, 1].
        seed: Seed of the samples.
        scheduler: "auto" swaps a deterministic scheduler for its stochastic sibling, "keep" refuses to resample on one.
        max_batch: Rows the networks and the reward get at once, padded to exactly this size, so that results have the
            same bits in every batch; None for no limit (faster on a large GPU, equal to rounding only).
        on_nan: "error", or "drop" to let particles with NaN or +inf rewards die.
        on_degenerate: "error", or "keep" for prompts all of whose particles died.
        previews: Whether thumbnails of the denoised predictions are kept.
        call: Further arguments of the pipeline's call (steps, guidance scale, size, negative prompt).
        metrics: Metrics for ``test`` by name. ``update(images, prompts)`` gets the chosen samples (B, 3, H, W) in
            [0, 1] with their prompts; with an argument ``metadata``, the metadata in place of the prompts; with an
            argument ``group_size``, all samples (B * K, 3, H, W) and K.
        num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they are.

    Raises:
        ValueError, TypeError: For settings that no run accepts.
    """

    def __init__(
        self,
        source: PipelineSource,
        reward: Reward,
        *,
        num_particles: int = 4,
        potential: str | Potential = "difference",
        reward_scale: float | None = None,
        tempering: Tempering | None = None,
        schedule: Schedule | None = None,
        resampler: str = "systematic",
        ess_threshold: float = 0.5,
        seed: int = 0,
        scheduler: Literal["auto", "keep"] = "auto",
        max_batch: int | None = 8,
        on_nan: OnNan = "error",
        on_degenerate: OnDegenerate = "error",
        previews: bool = True,
        call: dict[str, Any] | None = None,
        metrics: dict[str, Metric] | None = None,
        num_threads: int | None = 1,
    ) -> None:
        super().__init__()
        for name, number in (("max_batch", max_batch), ("num_threads", num_threads)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number} was given; give an integer of at least 1, or null for no limit.")
        if reward_scale is not None and not 0 <= reward_scale < float("inf"):
            raise ValueError(
                f"reward_scale={reward_scale} was given; give a finite number of at least 0 "
                "(negate the reward to steer away from it)."
            )
        # Made for their checks alone: a bad setting must not be found only after gigabytes were loaded.
        ParticleSystem(
            1,
            num_particles,
            resampler=resampler_by_name(resampler),
            ess_threshold=ess_threshold,
            on_nan=on_nan,
            on_degenerate=on_degenerate,
        )
        self.source = source
        self.reward = as_reward(reward)
        self.done: frozenset[int] = frozenset()  # prompts that are on disk already; set by the writer
        self.num_threads = num_threads
        self.steering: dict[str, Any] = {
            "num_particles": num_particles,
            "potential": potential_by_name(potential),
            "reward_scale": reward_scale,
            "tempering": tempering,
            "schedule": schedule,
            "resampler": resampler,
            "ess_threshold": ess_threshold,
            "seed": seed,
            "scheduler": scheduler,
            "max_batch": max_batch,
            "on_nan": on_nan,
            "on_degenerate": on_degenerate,
            "previews": previews,
            "call": call,
        }
        self.means = nn.ModuleDict({name: PromptMean() for name in _REPORTED})
        self.metrics = nn.ModuleDict(dict(metrics or {}))

    def settings(self) -> dict[str, Any]:
        """Everything that determines the samples, JSON-able: weights, reward and steering; not paths or batch size.

        Raises:
            TypeError: The reward does not tell its arguments, see ``fklit.models.describe``.
        """
        return {"source": self.source.settings(), "reward": describe(self.reward), **describe(self.steering)}

    def configure_model(self) -> None:
        """Loads the weights, unless every prompt of this run is done; calling it again does nothing."""
        data = getattr(self.trainer, "datamodule", None)
        items = getattr(data, "items", None)
        if items is not None and self.done.issuperset(item["index"] for item in items):
            return
        self.reward.load()  # the smaller one first: what is wrong shows before gigabytes are read
        self.source.load().enable_offload(self.trainer.strategy.root_device)

    def predict_step(
        self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> SteeringResult | tuple[()]:
        """Steers the prompts of a batch that are not done.

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
        return self._steer([prompts[place] for place in todo], [indices[place] for place in todo])

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Steers the prompts of a batch and adds them to the metrics."""
        prompts, indices = _prompts_and_indices(batch)
        result = self._steer(prompts, indices)
        where = torch.tensor(indices)
        for name, values in _figures(result).items():
            mean = self.means[name]
            assert isinstance(mean, PromptMean)
            mean.update(where, values)
        chosen = result.samples[torch.arange(len(prompts)), result.best_index].to(self.device)
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

    def _steer(self, prompts: list[str], indices: list[int]) -> SteeringResult:
        with _threads(self.num_threads):
            return steer(self.source.pipeline, prompts, reward=self.reward, prompt_indices=indices, **self.steering)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Empty: the pretrained weights lie on disk already."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Nothing to load; see :meth:`state_dict`."""
        return nn.Module().load_state_dict({})

    def setup(self, stage: str) -> None:
        """Refuses ``fit`` and ``validate``.

        Raises:
            ValueError: For these stages.
        """
        if stage in ("fit", "validate"):
            self._refuse()

    def training_step(self, batch: Any, batch_idx: int) -> NoReturn:
        """Refuses."""
        self._refuse()

    def validation_step(self, batch: Any, batch_idx: int) -> NoReturn:
        """Refuses."""
        self._refuse()

    def configure_optimizers(self) -> NoReturn:
        """Refuses."""
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise ValueError(_NO_TRAINING)


def _prompts_and_indices(batch: Any) -> tuple[list[str], list[int]]:
    if not isinstance(batch, Mapping) or not {"prompts", "indices"} <= batch.keys():
        raise ValueError(
            f"A batch of type {type(batch).__name__} was given; give {{'prompts': [...], 'indices': [...]}} "
            "(PromptDataModule does): the noise of a prompt follows from its index."
        )
    return list(batch["prompts"]), [int(index) for index in batch["indices"]]


def _figures(result: SteeringResult) -> dict[str, torch.Tensor]:
    count = len(result.prompts)
    best = result.rewards.gather(1, result.best_index.unsqueeze(1)).squeeze(1)
    return {
        "reward_mean": result.reward_mean,
        "reward_best": best,
        "ess": result.ess[-1],
        "log_z": result.log_z,
        "unique_roots": result.unique_roots.double(),
        "denoiser_calls": torch.full((count,), result.budget.denoiser_calls / count),
        "seconds": torch.full((count,), result.budget.seconds / count),
    }


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

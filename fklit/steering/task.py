"""Steering under Lightning: ``predict`` makes samples for a writer, ``test`` reports metrics."""

from typing import Any, Literal

import torch
from torchmetrics import Metric

from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.potentials import Potential, get_potential
from fklit.feynman_kac.resampling import get_resampler
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Tempering
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.pipelines.source import PipelineSource
from fklit.rewards.base import Reward
from fklit.rewards.scoring import as_reward
from fklit.sampling.describe import describe
from fklit.sampling.task import SamplingTask
from fklit.steering.api import steer
from fklit.steering.result import SteeringResult

_REPORTED = ("reward_mean", "reward_best", "ess", "log_z", "unique_roots", "denoiser_calls", "seconds")


class SteeringTask(SamplingTask):
    """Steers a pretrained pipeline on the prompts of a DataModule; ``fklit.steer`` explains every setting.

    ``predict`` returns one :class:`SteeringResult` a batch, which ``SampleWriter`` writes to disk; set
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
        super().__init__(source, reported=_REPORTED, metrics=metrics, num_threads=num_threads)
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"max_batch={max_batch} was given; give an integer of at least 1, or null for no limit.")
        if reward_scale is not None and not 0 <= reward_scale < float("inf"):
            raise ValueError(
                f"reward_scale={reward_scale} was given; give a finite number of at least 0 "
                "(negate the reward to steer away from it)."
            )
        # Made for their checks alone: a bad setting must not be found only after gigabytes were loaded.
        ParticleSystem(
            1,
            num_particles,
            resampler=get_resampler(resampler),
            ess_threshold=ess_threshold,
            on_nan=on_nan,
            on_degenerate=on_degenerate,
        )
        self.reward = as_reward(reward)
        self.steering: dict[str, Any] = {
            "num_particles": num_particles,
            "potential": get_potential(potential),
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

    def settings(self) -> dict[str, Any]:
        """Everything that determines the samples, JSON-able: weights, reward and steering; not paths or batch size.

        Raises:
            TypeError: The reward does not tell its arguments, see ``fklit.sampling.describe``.
        """
        return {"source": self.source.settings(), "reward": describe(self.reward), **describe(self.steering)}

    def load_more(self) -> None:
        """Loads the reward."""
        self.reward.load()

    def sample(self, prompts: list[str], indices: list[int]) -> SteeringResult:
        """Steers prompts."""
        return steer(self.source.pipeline, prompts, reward=self.reward, prompt_indices=indices, **self.steering)

    def figures(self, result: SteeringResult) -> dict[str, torch.Tensor]:
        """Figures of each prompt, (B,)."""
        return _figures(result)


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

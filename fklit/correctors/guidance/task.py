"""Corrected guidance under Lightning: ``predict`` makes samples for a writer, ``test`` reports metrics."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from fklit.checks import check_choice, check_fraction
from fklit.correctors.guidance.api import correct
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.weight import INCREMENTS, GuidanceIncrement
from fklit.feynman_kac.particles import ParticleSystem
from fklit.feynman_kac.potentials import get_potential
from fklit.feynman_kac.resampling import get_resampler
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.pipelines.source import PipelineSource
from fklit.rewards.base import Reward
from fklit.sampling.describe import describe
from fklit.sampling.task import SamplingTask

_REPORTED = ("ess", "spread", "log_z", "unique_roots", "denoiser_calls", "seconds")


class GuidanceTask(SamplingTask):
    """Corrects the guidance of a pretrained pipeline on the prompts of a DataModule; ``fklit.correct`` explains it.

    ``predict`` returns one :class:`~fklit.correctors.GuidanceResult` a batch, which ``SampleWriter`` writes to disk.
    ``test`` logs means over prompts: effective sample size and log Z at the end, the mean spread of a step's weights,
    surviving lineages, cost, and ``metrics`` of one sample a prompt: drawn by weight, or with a reward the best.

    Args:
        source: Where the pipeline comes from; loaded when the run starts.
        guidance_scale: w of ``u + w (c - u)``, at least 1.
        num_particles: K, samples of each prompt.
        correction: How much of the log weights counts, from 0 (the heuristic) to 1 (exact as K grows).
        increment: "net_interval" or "kernel".
        weigh: Which steps' guidance is weighed; None for all.
        reward: A reward to steer by in the same run; None for none.
        reward_scale: At least 0; None takes the reward's ``suggested_scale``.
        potential: Of the reward.
        schedule: Which steps score the reward; None for 0.2 to 0.8 of the run, at every tenth of it.
        resample: Which steps may resample; None for all.
        resampler: "systematic", "multinomial", "stratified", "residual" or "ssp".
        ess_threshold: Fraction of K below which a prompt resamples, in [0, 1].
        seed: Seed of the samples.
        scheduler: "auto" swaps a deterministic scheduler for its stochastic sibling, "keep" refuses to resample on one.
        max_batch: Rows the networks get at once, padded to exactly this size; None for no limit.
        on_nan: "error", or "drop" to let particles with NaN weights die.
        on_degenerate: "error", or "keep" for prompts all of whose particles died.
        call: Further arguments of the pipeline's call (steps, size, negative prompt).
        metrics: Metrics for ``test`` by name, as for ``SteeringTask``.
        num_threads: CPU threads, pinned during the run; None leaves them as they are.

    Raises:
        ValueError, TypeError: For settings that no run accepts.
    """

    def __init__(
        self,
        source: PipelineSource,
        *,
        guidance_scale: float = 7.5,
        num_particles: int = 8,
        correction: float = 1.0,
        increment: Literal["net_interval", "kernel"] = "net_interval",
        weigh: Schedule | None = None,
        reward: Reward | None = None,
        reward_scale: float | None = None,
        potential: str = "difference",
        schedule: Schedule | None = None,
        resample: Schedule | None = None,
        resampler: str = "systematic",
        ess_threshold: float = 0.9,
        seed: int = 0,
        scheduler: Literal["auto", "keep"] = "auto",
        max_batch: int | None = 8,
        on_nan: OnNan = "error",
        on_degenerate: OnDegenerate = "error",
        call: dict[str, Any] | None = None,
        metrics: dict[str, Metric] | None = None,
        num_threads: int | None = 1,
    ) -> None:
        super().__init__(source, reported=_REPORTED, metrics=metrics, num_threads=num_threads)
        # Checked here: a bad setting must not be found only after gigabytes were loaded.
        check_fraction("correction", correction)
        check_choice("increment", increment, INCREMENTS)
        get_potential(potential)
        if not 1 <= guidance_scale < float("inf"):
            raise ValueError(f"guidance_scale={guidance_scale} was given; give a finite number of at least 1.")
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"max_batch={max_batch} was given; give an integer of at least 1, or null for no limit.")
        ParticleSystem(1, num_particles, resampler=get_resampler(resampler), ess_threshold=ess_threshold)
        chosen: GuidanceIncrement = increment
        self.reward = reward
        self.correcting: dict[str, Any] = {
            "guidance_scale": guidance_scale,
            "num_particles": num_particles,
            "correction": correction,
            "increment": chosen,
            "weigh": weigh,
            "reward_scale": reward_scale,
            "potential": potential,
            "schedule": schedule,
            "resample": resample,
            "resampler": resampler,
            "ess_threshold": ess_threshold,
            "seed": seed,
            "scheduler": scheduler,
            "max_batch": max_batch,
            "on_nan": on_nan,
            "on_degenerate": on_degenerate,
            "call": call,
        }

    def settings(self) -> dict[str, Any]:
        """Everything that determines the samples, JSON-able."""
        return {"source": self.source.settings(), "reward": describe(self.reward), **describe(self.correcting)}

    def load_more(self) -> None:
        """Loads the reward, if there is one."""
        if self.reward is not None:
            self.reward.load()

    def sample(self, prompts: list[str], indices: list[int]) -> GuidanceResult:
        """Samples prompts."""
        return correct(self.source.pipeline, prompts, reward=self.reward, prompt_indices=indices, **self.correcting)

    def chosen(self, result: GuidanceResult) -> Tensor:
        """One sample a prompt: the best by reward, or without a reward one draw by weight."""
        if result.rewards is not None:
            return result.best_index
        return torch.tensor(result.sample_slots(1)).squeeze(1)

    def figures(self, result: GuidanceResult) -> dict[str, Tensor]:
        """Figures of each prompt, (B,)."""
        count = len(result.prompts)
        return {
            "ess": result.ess[-1],
            "spread": result.spread.mean(dim=0),
            "log_z": result.log_z,
            "unique_roots": result.unique_roots.double(),
            "denoiser_calls": torch.full((count,), result.budget.denoiser_calls / count),
            "seconds": torch.full((count,), result.budget.seconds / count),
        }

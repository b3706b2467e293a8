"""Steering under Lightning: `predict` makes samples for a writer, `validate` and `test` report metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor

from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.source import PipelineSource
from fklit.sampling.arguments import takes_settings
from fklit.sampling.model_source import ModelSource
from fklit.sampling.settings import SamplingSettings
from fklit.sampling.task import SamplingTask, cost_figures
from fklit.sampling.threads import pinned_threads
from fklit.steering.api import steer
from fklit.steering.calibration.api import DEFAULT_SAMPLES, DEFAULT_SEED, calibrate
from fklit.steering.calibration.record import Calibration
from fklit.steering.result import SteeringResult
from fklit.steering.settings import SteeringArguments, SteeringSettings

_REPORTED = ("reward_mean", "reward_best", "ess", "log_z", "unique_roots", "denoiser_calls", "seconds")


class SteeringTask(SamplingTask):
    """Steers a pretrained pipeline on the prompts of a DataModule.

    `predict` returns one `SteeringResult` a batch, which `SampleWriter` writes to disk; set
    `return_predictions: false`, or all images of the run stay in memory. `validate` and `test` log means over prompts:
    the reward by weight and of the chosen sample, the effective sample size and log Z at the end, surviving lineages,
    and cost; `fklit.callbacks.MetricsCallback` adds metrics of the samples.
    """

    @takes_settings(SteeringSettings)
    def __init__(
        self,
        source: PipelineSource | ModelSource,
        *,
        num_threads: int | None = 1,
        **settings: Unpack[SteeringArguments],
    ) -> None:
        """Check all settings.

        Args:
            source: Where the pipeline, or a model that owns its steps, comes from; loaded when the run starts.
            num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they
                are.

        Raises:
            ValueError, TypeError: For settings that no run accepts.
        """
        chosen = SteeringSettings(**settings)
        super().__init__(source, chosen, reported=_REPORTED, num_threads=num_threads)

    def sample(
        self,
        prompts: list[str],
        indices: list[int],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        settings: SamplingSettings | None = None,
    ) -> SteeringResult:
        """Steer prompts."""
        keywords = (settings or self.sampling).keywords()
        return steer(self.source.pipeline, prompts, prompt_indices=indices, metadata=metadata, **keywords)

    def calibrate(
        self,
        prompts: Sequence[str],
        indices: Sequence[int],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        num_samples: int = DEFAULT_SAMPLES,
        schedule: Schedule | None = None,
        upper_bound: float | None = None,
        seed: int = DEFAULT_SEED,
        batch_size: int = 1,
        on_batch: Callable[[int], None] | None = None,
    ) -> Calibration:
        """Measure what scores on the way tell of the end, with the task's pipeline, sampler and reward.

        Args:
            prompts: P prompts.
            indices: Their indices.
            metadata: What else is known about each.
            num_samples: As for `fklit.calibrate`.
            schedule: As for `fklit.calibrate`.
            upper_bound: As for `fklit.calibrate`.
            seed: As for `fklit.calibrate`.
            batch_size: As for `fklit.calibrate`.
            on_batch: As for `fklit.calibrate`.
        """
        chosen = self.sampling
        assert isinstance(chosen, SteeringSettings) and chosen.reward is not None
        with pinned_threads(self.num_threads):
            return calibrate(
                self.source.pipeline,
                prompts,
                reward=chosen.reward,
                num_samples=num_samples,
                schedule=schedule,
                upper_bound=upper_bound,
                reward_scale=chosen.reward_scale,
                seed=seed,
                batch_size=batch_size,
                prompt_indices=indices,
                metadata=metadata,
                scheduler=chosen.scheduler,
                flow_kernel=chosen.flow_kernel,
                noise_level=chosen.noise_level,
                max_batch=chosen.max_batch,
                decode_batch=chosen.decode_batch,
                decode=chosen.decode,
                look_ahead=chosen.look_ahead,
                pipeline_kwargs=chosen.pipeline_kwargs,
                on_batch=on_batch,
            )

    def without_method(self) -> SamplingSettings:
        """Return the settings without proposal, search and look-ahead."""
        assert isinstance(self.sampling, SteeringSettings)
        given = self.sampling
        if given.search is not None and given.reward_scale is None:  # which a search may do without
            given = replace(given, search=None, reward_scale=0.0)
        return replace(given, proposal=None, search=None, look_ahead=None)

    def figures(self, result: SteeringResult) -> dict[str, Tensor]:
        """Figures of each prompt, (B,)."""
        return {
            "reward_mean": result.reward_mean,
            "reward_best": result.rewards.gather(1, result.best_index().unsqueeze(1)).squeeze(1),
            "ess": result.ess[-1],
            "log_z": result.log_z,
            "unique_roots": result.unique_roots.double(),
            **cost_figures(result),
        }

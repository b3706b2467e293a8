"""Corrected guidance under Lightning: `predict` makes samples for a writer, `validate` and `test` report metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch import Tensor

from fklit.correctors.guidance.api import correct
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.settings import GuidanceArguments, GuidanceSettings
from fklit.pipelines.source import PipelineSource
from fklit.sampling.arguments import takes_settings
from fklit.sampling.settings import SamplingSettings
from fklit.sampling.task import SamplingTask, cost_figures

_REPORTED = ("min_ess", "unique_roots", "ess", "log_weight_std", "log_z", "denoiser_calls", "seconds")


class GuidanceTask(SamplingTask):
    """Corrects the guidance of a pretrained pipeline on the prompts of a DataModule; `fklit.correct` explains it.

    `predict` returns one `GuidanceResult` a batch, which `SampleWriter` writes to disk. `validate` and `test` log means
    over prompts: the least effective sample size of the run and the surviving roots first, then effective sample size
    and log Z at the end, the mean standard deviation of a step's log weights, and cost;
    `fklit.callbacks.MetricsCallback` adds metrics of one sample a prompt: drawn by weight, or with a reward the best.
    """

    @takes_settings(GuidanceSettings)
    def __init__(
        self,
        source: PipelineSource,
        *,
        guiding_source: PipelineSource | None = None,
        num_threads: int | None = 1,
        **settings: Unpack[GuidanceArguments],
    ) -> None:
        """Check all settings.

        Args:
            source: Where the pipeline comes from; loaded when the run starts.
            guiding_source: Where a second model comes from, see `guiding_pipeline` of `fklit.correct`; None for none.
            num_threads: CPU threads, pinned during the run since rounding depends on them; None leaves them as they
                are.

        Raises:
            ValueError, TypeError: For settings that no run accepts.
        """
        chosen = GuidanceSettings(**settings)
        super().__init__(source, chosen, reported=_REPORTED, num_threads=num_threads)
        if chosen.exponents is not None and guiding_source is None:
            raise ValueError(f"exponents={chosen.exponents} expected a guiding_source, got none; give one as well.")
        self.guiding_source = guiding_source

    def settings(self) -> dict[str, Any]:
        """Everything that determines the samples, JSON-able; with a second model its weights, too."""
        found = super().settings()
        if self.guiding_source is None:
            found.pop("exponents")  # as before there were two models
            return found
        return {**found, "guiding_source": self.guiding_source.settings()}

    def configure_model(self) -> None:
        """Load the weights of both models, unless every prompt of this run is done."""
        super().configure_model()
        if self.guiding_source is not None and self.source.is_loaded:
            self.guiding_source.load().enable_offload(self.trainer.strategy.root_device)

    def sample(
        self,
        prompts: list[str],
        indices: list[int],
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        settings: SamplingSettings | None = None,
    ) -> GuidanceResult:
        """Sample prompts."""
        keywords = (settings or self.sampling).keywords()
        guiding = None if self.guiding_source is None else self.guiding_source.pipeline
        return correct(
            self.source.pipeline,
            prompts,
            guiding_pipeline=guiding,
            prompt_indices=indices,
            metadata=metadata,
            **keywords,
        )

    def chosen(self, result: GuidanceResult) -> Tensor:
        """One sample a prompt: the best by reward, or without a reward one draw by weight."""
        return result.sample_index(1).squeeze(1) if result.rewards is None else result.best_index()

    def figures(self, result: GuidanceResult) -> dict[str, Tensor]:
        """Figures of each prompt, (B,)."""
        return {
            "min_ess": result.min_ess,
            "unique_roots": result.unique_roots.double(),
            "ess": result.ess[-1],
            "log_weight_std": result.log_weight_std.mean(dim=0),
            "log_z": result.log_z,
            **cost_figures(result),
        }

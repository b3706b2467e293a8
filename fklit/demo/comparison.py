"""Base, best-of-n and FK steering on the same prompts, judged by a model that the reward does not know.

Base and best-of-n are the same samples (best-of-n is the terminal potential of the same engine); FK steering uses the
same sampler, eta, first noise and number of denoiser calls.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from fklit.atomic import write_json_atomically
from fklit.demo.figures import compared, hardware
from fklit.demo.settings import DemoSettings
from fklit.emoji.prompts import ScenePrompt
from fklit.pipelines.source import PipelineSource
from fklit.report.page import write_report
from fklit.report.reading import read_run, write_scores
from fklit.report.writing import package_versions, write_prompt, write_run
from fklit.rewards.base import Reward
from fklit.sampling.describe import describe, settings_hash
from fklit.steering.api import steer

_SHOWN = 12  # prompts that the report shows in full
_PACKAGES = ("open-clip-torch", "numpy")
_NOTES = {
    "reward_mean": "mean over prompts of the weighted mean over the K samples; the base's samples count alike",
    "reward_best": "mean over prompts of the chosen sample's reward; the base does not choose: mean over its samples",
    "judge_mean": "share of chosen samples that show what the prompt asks for; for the base of all its samples",
    "intervals": "95 % intervals of reward_best and judge_mean over prompts (percentile bootstrap)",
    "fk_less": "mean over prompts of the paired difference, and its 95 % interval over prompts",
    "base": "base and best_of_n share their samples, so their costs are those of the same run",
    "denoiser_calls": "rows given to the denoiser; guidance takes two a sample and step",
}

Run = Literal["best_of_n", "fk"]


class Verdict(Protocol):
    """What a judge says about one picture."""

    @property
    def correct(self) -> bool:
        """Whether the picture shows what the prompt asks for."""
        ...


class PictureJudge(Protocol):
    """What judges pictures: `fklit.metrics.detector.Judge`, or anything like it."""

    def judge(self, images: Tensor, metadata: Sequence[dict[str, Any]]) -> Sequence[Verdict]:
        """One verdict per picture (N, 3, H, W) in [0, 1], given one line of metadata per picture."""
        ...


@dataclass(frozen=True)
class Demo:
    """The demo on any pipeline, reward and judge of emoji scenes.

    Attributes:
        source: Where the pipeline comes from.
        reward: What to steer towards.
        judge: What judges the samples; None omits `judge_mean`.
        prompts: The prompts.
        settings: What both runs share.
    """

    source: PipelineSource
    reward: Reward
    judge: PictureJudge | None
    prompts: Sequence[ScenePrompt]
    settings: DemoSettings = field(default_factory=DemoSettings)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("expected at least one prompt, got no prompts.")

    def run(self, output: Path | str, *, console: Console | None = None) -> dict[str, Any]:
        """Sample without and with steering, judge, and write `report.html` and `metrics.json`.

        Args:
            output: Folder for the report, the figures and both runs (`best_of_n/` and `fk/`, replaced).
            console: Where progress is shown; standard output if not given.

        Returns:
            What `metrics.json` holds, `base`, `best_of_n` and `fk` with `reward_mean`, `reward_best`,
            `judge_mean`, `denoiser_calls`, `decodes`, `reward_calls`, `seconds`, `unique_roots` and
            `peak_memory_bytes`; `intervals` of reward and judge; `fk_less`, the paired differences of FK steering to
            the two others; what they mean; and the hardware, versions, settings and prompts.
        """
        output = Path(output)
        self.source.load()
        self.reward.load()
        bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        labels: dict[Run, str] = {"best_of_n": "base and best of n", "fk": "FK steering       "}
        calls = -(-len(self.prompts) // self.settings.prompts_per_call)
        with Progress(*bars, console=console) as progress:
            for run, label in labels.items():
                bar = progress.add_task(label, total=calls * self.settings.num_steps)
                self._sample(output / run, run, lambda bar=bar: progress.advance(bar))  # type: ignore[misc]
        metrics = self._metrics(output)
        write_json_atomically(output / "metrics.json", metrics, indent=2)
        write_report(
            output / "report.html",
            base=output / "best_of_n",
            best_of_n=output / "best_of_n",
            steered=output / "fk",
            title="fklit demo: a small text-to-image model, steered",
            max_prompts=_SHOWN,
        )
        return metrics

    def _sample(self, folder: Path, run: Run, advance: Callable[[], None]) -> None:
        """One run over all prompts, in the folder layout of `SampleWriter`."""
        shutil.rmtree(folder, ignore_errors=True)
        described = self._describe(run)
        digest = settings_hash(described)
        write_run(folder, described, digest, *_PACKAGES)
        verdicts: dict[int, list[float]] = {}
        wanted = self.settings

        def tick(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            advance()
            return tensors

        call = {"num_inference_steps": wanted.num_steps, "guidance_scale": wanted.guidance_scale, "eta": wanted.eta}
        for start in range(0, len(self.prompts), wanted.prompts_per_call):
            batch = self.prompts[start : start + wanted.prompts_per_call]
            result = steer(
                self.source.pipeline,
                [prompt.text for prompt in batch],
                reward=self.reward,
                num_particles=wanted.num_particles,
                potential="difference" if run == "fk" else "terminal",
                reward_scale=wanted.reward_scale,
                reward_schedule=wanted.schedule,
                ess_threshold=wanted.ess_threshold,
                seed=wanted.seed,
                prompt_indices=range(start, start + len(batch)),
                scheduler="keep",
                pipeline_kwargs={**call, "callback_on_step_end": tick},
            )
            for b, prompt in enumerate(batch):
                metadata = prompt.metadata()
                record = {**result.record(b), "settings_hash": digest}
                previews = None if result.previews is None else result.previews[:, b]
                write_prompt(folder / f"{start + b:05d}", record, result.images[b], metadata, previews)
                if self.judge is not None:
                    found = self.judge.judge(result.samples[b], [metadata] * wanted.num_particles)
                    verdicts[start + b] = [float(verdict.correct) for verdict in found]
        if verdicts:
            write_scores(folder, "judge", verdicts)

    def _describe(self, run: Run) -> dict[str, Any]:
        shared = {name: value for name, value in asdict(self.settings).items() if name != "prompts_per_call"}
        return {
            "pipeline": self.source.path,
            "source": self.source.settings(),
            "reward": describe(self.reward),
            "potential": "difference" if run == "fk" else "terminal",
            **describe({**shared, "schedule": self.settings.schedule}),
        }

    def _metrics(self, output: Path) -> dict[str, Any]:
        best_of_n, fk = read_run(output / "best_of_n"), read_run(output / "fk")
        table = compared(best_of_n, fk, judged=self.judge is not None)
        scale = next(iter(fk.records.values())).raw["reward_scale"]
        return {
            **table,
            "notes": _NOTES,
            "settings": {**self._describe("fk"), "reward_scale": scale},
            "seed": self.settings.seed,
            "prompts": [{"prompt": p.text, "tag": p.tag, "held_out": p.held_out} for p in self.prompts],
            "hardware": hardware(),
            "versions": package_versions(*_PACKAGES),
        }

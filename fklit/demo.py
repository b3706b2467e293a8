"""``make demo``: steer the shipped text-to-image pipeline on a dozen prompts, judge it, print a table, write a report.

Base and best-of-n are the same samples (best-of-n is the terminal potential of the same engine); FK steering uses the
same sampler, eta, first noise and number of denoiser calls. The judge is a model that the reward does not know.
"""

import argparse
import json
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor

from fklit.callbacks.sample_writer import write_prompt
from fklit.emoji.prompts import ScenePrompt, test_prompts
from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.source import PipelineSource
from fklit.report.page import write_report
from fklit.report.reading import read_run, write_scores
from fklit.report.summary import Method, MethodRun
from fklit.rewards.base import Reward
from fklit.sampling.describe import describe, settings_hash
from fklit.steering.api import steer

_PACKAGES = ("fklit", "torch", "diffusers", "transformers", "open-clip-torch", "lightning", "numpy")
_FIGURES = ("reward_mean", "reward_best", "judge_mean", "denoiser_calls", "decodes", "reward_calls", "seconds",
            "unique_roots", "peak_memory_bytes")  # fmt: skip
_NOTES = {
    "reward_mean": "mean over prompts of the weighted mean over the K samples; the base's samples count alike",
    "reward_best": "mean over prompts of the chosen sample's reward; the base does not choose: mean over its samples",
    "judge_mean": "share of chosen samples that show what the prompt asks for; for the base of all its samples",
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
    """What judges pictures: ``fklit.metrics.detector.Judge``, or anything like it."""

    def judge(self, images: Tensor, metadata: Sequence[dict[str, Any]]) -> Sequence[Verdict]:
        """One verdict a picture (N, 3, H, W) in [0, 1], given one line of metadata a picture."""
        ...


@dataclass(frozen=True)
class DemoSettings:
    """What both runs of the demo share.

    Attributes:
        num_particles: K, samples of each prompt.
        num_steps: Denoising steps.
        guidance_scale: Weight of classifier-free guidance; 1 samples the model's own p(x | prompt), at half the cost.
        eta: Noise of DDIM, above 0: clones of a particle separate by it. Base and best-of-n get the same.
        reward_scale: Exponent of the target, chosen on other prompts (benchmarks/steering.py --tune); None takes the
            reward's own suggestion.
        schedule: Scored steps of the steered run.
        ess_threshold: Fraction of K below which a prompt resamples.
        seed: Seed of all samples.
        prompts_per_call: Prompts in one call of the pipeline.
    """

    num_particles: int = 4
    num_steps: int = 50
    guidance_scale: float = 1.0
    eta: float = 1.0
    reward_scale: float | None = 300.0
    schedule: Schedule = field(default_factory=lambda: Schedule(start=0.2, stop=0.9, every=0.1))
    ess_threshold: float = 0.5
    seed: int = 0
    prompts_per_call: int = 4


@dataclass(frozen=True)
class Demo:
    """The demo on any pipeline, reward and judge of emoji scenes.

    Attributes:
        source: Where the pipeline comes from.
        reward: What to steer towards.
        judge: What judges the samples; None leaves ``judge_mean`` out.
        prompts: The prompts.
        settings: What both runs share.
    """

    source: PipelineSource
    reward: Reward
    judge: PictureJudge | None
    prompts: Sequence[ScenePrompt]
    settings: DemoSettings = DemoSettings()

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("The demo was given no prompts; give at least one.")

    def run(self, output: Path | str, *, console: Console | None = None) -> dict[str, Any]:
        """Sample without and with steering, judge, and write ``report.html`` and ``metrics.json``.

        Args:
            output: Folder for the report, the figures and both runs (``best_of_n/`` and ``fk/``, replaced).
            console: Where progress is shown; standard output if not given.

        Returns:
            What ``metrics.json`` holds: ``base``, ``best_of_n`` and ``fk`` with ``reward_mean``, ``reward_best``,
            ``judge_mean``, ``denoiser_calls``, ``decodes``, ``reward_calls``, ``seconds``, ``unique_roots`` and
            ``peak_memory_bytes``; what they mean; and the hardware, versions, settings and prompts.
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
        part = output / "metrics.json.part"
        part.write_text(json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, output / "metrics.json")
        write_report(
            output / "report.html",
            base=output / "best_of_n",
            best_of_n=output / "best_of_n",
            steered=output / "fk",
            title="fklit demo: a small text-to-image model, steered",
        )
        return metrics

    def _sample(self, folder: Path, run: Run, advance: Callable[[], None]) -> None:
        """One run over all prompts, in the folder layout of ``SampleWriter``."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        described = self._describe(run)
        digest = settings_hash(described)
        content = {"settings": described, "settings_hash": digest, "versions": _versions()}
        (folder / "run.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        verdicts: dict[int, list[float]] = {}
        wanted = self.settings

        def tick(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            advance()
            return tensors

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
                pipeline_kwargs={**self._call(), "callback_on_step_end": tick},
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

    def _call(self) -> dict[str, Any]:
        wanted = self.settings
        return {"num_inference_steps": wanted.num_steps, "guidance_scale": wanted.guidance_scale, "eta": wanted.eta}

    def _describe(self, run: Run) -> dict[str, Any]:
        steering = {name: value for name, value in asdict(self.settings).items() if name != "prompts_per_call"}
        return {
            "pipeline": self.source.path,
            "source": self.source.settings(),
            "reward": describe(self.reward),
            "potential": "difference" if run == "fk" else "terminal",
            **describe({**steering, "schedule": self.settings.schedule}),
        }

    def _metrics(self, output: Path) -> dict[str, Any]:
        runs: dict[Run, Any] = {"best_of_n": read_run(output / "best_of_n"), "fk": read_run(output / "fk")}
        table: dict[str, Any] = {}
        methods: tuple[Method, ...] = ("base", "best_of_n", "fk")
        for method in methods:
            figures = MethodRun(method, runs["fk" if method == "fk" else "best_of_n"]).figures()
            table[method] = {name: figures[name] for name in _FIGURES if name in figures}
        return {
            **table,
            "notes": _NOTES,
            "settings": {
                **self._describe("fk"),
                "reward_scale": next(iter(runs["fk"].records.values())).raw["reward_scale"],
            },
            "seed": self.settings.seed,
            "prompts": [{"prompt": p.text, "tag": p.tag, "held_out": p.held_out} for p in self.prompts],
            "hardware": _hardware(),
            "versions": _versions(),
        }


def demo_prompts(number: int) -> list[ScenePrompt]:
    """Test prompts of all kinds; the second half are pairs of objects that training never showed together.

    Args:
        number: How many, at least 1.
    """
    unseen = number // 2
    pairs = test_prompts(unseen, held_out=True, tags=("position", "two_object", "color_attr"))
    return [*test_prompts(number - unseen, held_out=False), *pairs]


def print_table(metrics: dict[str, Any], console: Console) -> None:
    """Show the figures of the three methods."""
    table = Table(title=f"{len(metrics['prompts'])} prompts, K = {metrics['settings']['num_particles']}")
    table.add_column("")
    for name in ("reward", "(mean)", "judge", "denoiser", "decodes", "seconds", "ancestors"):
        table.add_column(name, justify="right")
    table.caption = (
        "reward and judge of the chosen sample (base: mean of its samples), mean reward by weight, rows given to the "
        "denoiser, different ancestors of the returned samples"
    )
    labels: dict[Method, str] = {"base": "base", "best_of_n": "best of n", "fk": "FK steering"}
    for method, label in labels.items():
        figures = metrics[method]
        judged = f"{figures['judge_mean']:.2f}" if "judge_mean" in figures else "-"
        table.add_row(
            label,
            f"{figures['reward_best']:.4f}",
            f"{figures['reward_mean']:.4f}",
            judged,
            f"{figures['denoiser_calls']:,.0f}",
            f"{figures['decodes']:,.0f}",
            f"{figures['seconds']:.1f}",
            f"{figures['unique_roots']:.1f}",
        )
    console.print(table)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _hardware() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    details = Path("/proc/cpuinfo")
    if details.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in details.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return {
        "system": platform.platform(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run the demo from the command line; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m fklit.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder of the report")
    parser.add_argument("--prompts", type=int, default=12, help="number of prompts")
    parser.add_argument("--particles", type=int, default=4, help="samples of each prompt")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument("--reward-scale", type=float, default=DemoSettings.reward_scale, help="exponent of the target")
    parser.add_argument("--pipeline", default="fklit:emoji_scenes", help="pipeline: shipped name or folder")
    parser.add_argument("--reward", default="fklit:emoji_clip", help="open_clip model: shipped name or folder")
    parser.add_argument("--judge", default=None, help="folder of the detector that judges; the shipped one if left out")
    given = parser.parse_args(words)

    from fklit.metrics.detector import Judge
    from fklit.rewards.clip import CLIPScore

    if given.prompts < 1:
        parser.error(f"--prompts {given.prompts} was given; give at least 1.")
    console = Console()
    warnings.filterwarnings("ignore", module="diffusers.*")
    demo = Demo(
        PipelineSource(given.pipeline),
        CLIPScore(given.reward),
        Judge(given.judge),
        demo_prompts(given.prompts),
        DemoSettings(
            num_particles=given.particles, num_steps=given.steps, seed=given.seed, reward_scale=given.reward_scale
        ),
    )
    metrics = demo.run(given.output, console=console)
    print_table(metrics, console)
    console.print(
        f"Open {given.output / 'report.html'} in a browser; the figures are in {given.output / 'metrics.json'}."
    )


if __name__ == "__main__":
    main()

"""Base, best-of-n and FK steering of a text model on the same prompts, judged by a model that does not guide.

Base and best-of-n are the same texts (best-of-n is the terminal potential of the same engine).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fklit.atomic import write_json_atomically
from fklit.demo.figures import compared, hardware
from fklit.feynman_kac.schedule import Schedule
from fklit.report.page import write_report
from fklit.report.reading import read_run, write_scores
from fklit.report.writing import package_versions, write_prompt, write_run
from fklit.rewards.base import Reward
from fklit.sampling.describe import describe, settings_hash
from fklit.sampling.model_source import ModelSource
from fklit.steering.api import steer
from fklit.steering.model_result import ModelSteeringResult

PROMPTS = (
    "the king said to the people", "a woman came to the city", "in the morning", "my son,", "when the sun went down",
    "the children of", "there was a man who", "I will give you", "the water of the river", "the old man and his",
    "do not fear", "at the end of the day",
)  # fmt: skip
Run = Literal["best_of_n", "fk"]
_NOTES = {
    "reward_best": "mean over prompts of the chosen text's reward; the base does not choose: mean over its texts",
    "judge_mean": "mean over prompts of the judge's score of the chosen text; for the base of all its texts",
    "intervals": "95 % intervals of reward_best and judge_mean over prompts (percentile bootstrap)",
    "fk_less": "mean over prompts of the paired difference, and its 95 % interval over prompts",
    "base": "base and best_of_n share their texts, so their costs are those of the same run",
    "denoiser_calls": "rows given to the denoiser; a particle of which nothing is unmasked costs none",
}


@dataclass(frozen=True)
class TextDemoSettings:
    """What both runs of the demo share.

    Attributes:
        num_particles: K, texts of each prompt.
        length: Tokens of a text, the prompt's included.
        num_steps: T, steps from masks to text.
        temperature: Of the predictions.
        num_draws: N, clean texts drawn of each particle where the reward scores on the way.
        reward_scale: Exponent of the target.
        schedule: Scored steps of the steered run.
        seed: Seed of all texts.
        prompts_per_call: Prompts side by side.
        max_batch: Rows a network gets at once.
    """

    num_particles: int = 4
    length: int = 32
    num_steps: int = 32
    temperature: float = 0.8
    num_draws: int = 4
    reward_scale: float = 20.0  # with these steps the best of those tried for `benchmarks/text.py`, on other prompts
    schedule: Schedule = field(default_factory=lambda: Schedule(start=0.1, stop=0.9, every=0.1))
    seed: int = 0
    prompts_per_call: int = 4
    max_batch: int = 16


@dataclass(frozen=True)
class TextDemo:
    """The demo on any text model, reward and judge.

    Attributes:
        source: Where the text model comes from.
        reward: What to steer towards.
        judge: Scores finished texts, and never guides.
        prompts: The prompts.
        settings: What both runs share.
    """

    source: ModelSource
    reward: Reward
    judge: Reward
    prompts: Sequence[str] = PROMPTS
    settings: TextDemoSettings = field(default_factory=TextDemoSettings)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("expected at least one prompt, got no prompts; give one.")

    def run(self, output: Path | str, *, advance: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Sample without and with steering, judge, and write `report.html` and `metrics.json`.

        Args:
            output: Folder for the report, the figures and both runs (`best_of_n/` and `fk/`, replaced).
            advance: Called after each of the `2 * num_calls` calls.

        Returns:
            What `metrics.json` holds, `base`, `best_of_n` and `fk` with their figures, `intervals`, `fk_less`, what
            they mean, and the hardware, versions, settings and prompts.
        """
        output = Path(output)
        self.judge.load()
        self._sample(output / "best_of_n", "best_of_n", advance)
        self._sample(output / "fk", "fk", advance)
        fk = read_run(output / "fk")
        metrics = {
            **compared(read_run(output / "best_of_n"), fk, judged=True),
            "notes": {**_NOTES, "judge": self.judge.display_name, "reward": self.reward.display_name},
            "settings": self._describe("fk"),
            "prompts": list(self.prompts),
            "hardware": hardware(),
            "versions": package_versions(),
        }
        write_json_atomically(output / "metrics.json", metrics, indent=2)
        write_report(
            output / "report.html",
            base=output / "best_of_n",
            best_of_n=output / "best_of_n",
            steered=output / "fk",
            title="fklit demo: a small text model, steered",
        )
        return metrics

    @property
    def num_calls(self) -> int:
        """Calls of each of the two runs."""
        return -(-len(self.prompts) // self.settings.prompts_per_call)

    def _sample(self, folder: Path, run: Run, advance: Callable[[], None]) -> None:
        """One run over all prompts, in the folder layout of `SampleWriter`."""
        shutil.rmtree(folder, ignore_errors=True)
        described, wanted = self._describe(run), self.settings
        digest = settings_hash(described)
        write_run(folder, described, digest)
        scores: dict[int, list[float]] = {}
        sampling = ("length", "num_steps", "temperature", "num_draws")
        for start in range(0, len(self.prompts), wanted.prompts_per_call):
            batch = list(self.prompts[start : start + wanted.prompts_per_call])
            result = steer(
                self.source.pipeline,
                batch,
                reward=self.reward,
                num_particles=wanted.num_particles,
                potential="difference" if run == "fk" else "terminal",
                reward_scale=wanted.reward_scale,
                reward_schedule=wanted.schedule,
                seed=wanted.seed,
                max_batch=wanted.max_batch,
                prompt_indices=range(start, start + len(batch)),
                pipeline_kwargs={name: getattr(wanted, name) for name in sampling},
            )
            assert isinstance(result, ModelSteeringResult) and result.details is not None
            for b, prompt in enumerate(batch):
                record = {**result.record(b), "settings_hash": digest}
                where, texts = folder / f"{start + b:05d}", result.items[b]
                write_prompt(where, record, texts, {"prompt": prompt}, details=result.details[b])
                scores[start + b] = self.judge(texts, [prompt] * len(texts)).tolist()
            advance()
        write_scores(folder, "judge", scores)

    def _describe(self, run: Run) -> dict[str, Any]:
        shared = {
            name: value
            for name, value in asdict(self.settings).items()
            if name not in ("prompts_per_call", "schedule", "max_batch")
        }
        return {
            "source": self.source.settings(),
            "reward": describe(self.reward),
            "potential": "difference" if run == "fk" else "terminal",
            **describe({**shared, "schedule": self.settings.schedule}),
        }

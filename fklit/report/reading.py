"""Reading the folder that a steering run wrote: settings of the run, and what happened for each prompt."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BUDGET_KEYS = ("denoiser_calls", "decodes", "reward_calls", "seconds", "peak_memory_bytes")


@dataclass(frozen=True)
class PromptRecord:
    """What a run did for one prompt. K particles in particle order, S steps that scored before the end.

    Attributes:
        folder: where the files of the prompt are.
        prompt: the text; empty for an unconditional model.
        prompt_index: position of the prompt in the run's list.
        rewards: ``(K,)`` reward of each returned sample.
        log_weights: ``(K,)`` log weight of each returned sample, up to a constant.
        best: slot of the chosen sample.
        steps: ``(S,)`` scheduler steps that scored, 0 is the noisiest.
        num_steps: scheduler steps of the run.
        ess: ``(S + 1,)`` effective sample size at those steps and at the end.
        reward_path: ``(S, K)`` score of each slot before the resampling of that step.
        ancestors: ``(S, K)`` slot of the parent of each slot after the resampling of that step.
        resampled: ``(S,)`` whether that step resampled.
        unique_roots: different slots of the first scored step that the returned samples descend from.
        degenerate: whether all weights vanished.
        budget: numbers under ``BUDGET_KEYS``; missing ones are None.
        scores: further scores of the samples by name, each ``(K,)``, from ``scores.json`` (never seen by the steering).
        raw: the record as it was read.
    """

    folder: Path
    prompt: str
    prompt_index: int
    rewards: Floats
    log_weights: Floats
    best: int
    steps: Integers
    num_steps: int
    ess: Floats
    reward_path: Floats
    ancestors: Integers
    resampled: npt.NDArray[np.bool_]
    unique_roots: int
    degenerate: bool
    budget: Mapping[str, float | None]
    scores: Mapping[str, Floats]
    raw: Mapping[str, Any]

    @property
    def num_particles(self) -> int:
        """K."""
        return len(self.rewards)

    @property
    def weights(self) -> Floats:
        """``(K,)`` normalised weights; all zero when every weight vanished."""
        finite = np.where(np.isnan(self.log_weights), -np.inf, self.log_weights)
        top = finite.max(initial=-np.inf)
        if not np.isfinite(top):
            return np.zeros(len(finite))
        weights = np.exp(finite - top)
        return cast(Floats, weights / weights.sum())

    def weighted_mean(self, values: Floats) -> float:
        """Mean of ``values`` (K,) under the weights; samples of weight zero do not count, whatever their value."""
        weights = self.weights
        alive = weights > 0
        return float((weights[alive] * values[alive]).sum()) if alive.any() else math.nan

    def images(self) -> list[Image.Image]:
        """The K returned pictures.

        Raises:
            FileNotFoundError: a picture is missing.
        """
        pictures = []
        for slot in range(self.num_particles):
            path = self.folder / "samples" / f"{slot:04d}.png"
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing, {self.num_particles} pictures were expected; run the prompt again."
                )
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        return pictures

    def previews(self) -> npt.NDArray[np.uint8] | None:
        """Denoised previews ``(S, K, h, w, 3)`` at the scored steps, or None when the run kept none."""
        path = self.folder / "previews.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as archive:
            previews: npt.NDArray[np.uint8] = archive["previews"]
        return previews if previews.shape[:2] == (len(self.steps), self.num_particles) and previews.ndim == 5 else None


@dataclass(frozen=True)
class RunFolder:
    """A run: its settings and one record a prompt, sorted by prompt index."""

    path: Path
    settings: Mapping[str, Any]
    records: Mapping[int, PromptRecord]

    def total(self, key: str) -> float | None:
        """Sum over prompts of one budget figure (the maximum for peak memory); None when no prompt has it."""
        values = [value for record in self.records.values() if (value := record.budget.get(key)) is not None]
        if not values:
            return None
        return max(values) if key == "peak_memory_bytes" else sum(values)


def _floats(values: Any) -> Floats:
    # A record may spell numbers that JSON lacks as null or as text ("-inf").
    flat = np.array(values, dtype=object)
    return np.array([math.nan if v is None else float(v) for v in flat.ravel()], dtype=np.float64).reshape(flat.shape)


def _read_record(folder: Path) -> PromptRecord:
    path = folder / "record.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rewards = _floats(raw["rewards"])
        steps = np.array(raw["steps"], dtype=np.int64)
        shape = (len(steps), len(rewards))
        extra = folder / "scores.json"
        scores = json.loads(extra.read_text(encoding="utf-8")) if extra.is_file() else {}
        budget = raw.get("budget") or {}
        return PromptRecord(
            folder=folder,
            prompt=str(raw.get("prompt") or ""),
            prompt_index=int(raw["prompt_index"]),
            rewards=rewards,
            log_weights=_floats(raw["log_weights"]),
            best=int(raw["best"]),
            steps=steps,
            num_steps=int(raw["num_steps"]),
            ess=_floats(raw["ess"]),
            reward_path=_floats(raw["reward_path"]).reshape(shape),
            ancestors=np.array(raw["ancestors"], dtype=np.int64).reshape(shape),
            resampled=np.array(raw["resampled"], dtype=np.bool_),
            unique_roots=int(raw["unique_roots"]),
            degenerate=bool(raw.get("degenerate", False)),
            budget={key: budget.get(key) for key in BUDGET_KEYS},
            scores={name: _floats(values) for name, values in scores.items()},
            raw=raw,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a record that fklit's prediction writer writes ({type(error).__name__}: {error}); "
            "delete the prompt's folder and run the prompt again."
        ) from error


def read_run(path: Path | str) -> RunFolder:
    """Read every finished prompt of a run; folders without a record (a run that was killed) are passed over.

    Args:
        path: the output folder of the run, holding ``run.json`` and one folder a prompt (``00000``, ``00001``, ...).

    Raises:
        FileNotFoundError: the folder does not exist or holds no finished prompt.
        ValueError: a record cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder; give the output folder of a steering run.")
    records = [_read_record(file.parent) for file in sorted(path.glob("*/record.json")) if file.parent.name.isdigit()]
    if not records:
        raise FileNotFoundError(
            f"{path} holds no finished prompt (no */record.json); give the output folder of a steering run."
        )
    run_file = path / "run.json"
    settings = json.loads(run_file.read_text(encoding="utf-8")) if run_file.is_file() else {}
    return RunFolder(path, settings, {r.prompt_index: r for r in sorted(records, key=lambda r: r.prompt_index)})


def write_scores(run: Path | str, name: str, scores: Mapping[int, Sequence[float]]) -> None:
    """Store a further score of the samples (a judge's, for example) beside the records, for the report to show.

    Args:
        run: output folder of the run.
        name: what the report calls the score.
        scores: prompt index -> one number a sample, in particle order.

    Raises:
        ValueError: a prompt has another number of samples.
    """
    records = read_run(run).records
    for index, values in scores.items():
        record = records[index]
        if len(values) != record.num_particles:
            raise ValueError(
                f"{len(values)} scores were given for prompt {index}, which has {record.num_particles} samples; "
                "give one a sample."
            )
        kept = {key: known.tolist() for key, known in record.scores.items()}
        target = record.folder / "scores.json"
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps({**kept, name: [float(v) for v in values]}), encoding="utf-8")
        partial.replace(target)

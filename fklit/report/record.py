"""What a run did for one prompt, the same for every method; figures that a method lacks are None."""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from fklit.report.media import one_picture
from fklit.report.versions import check_keys

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_AGAIN = "run the same command again, which repairs the prompt"
BUDGET_KEYS = ("denoiser_calls", "decodes", "reward_calls", "seconds", "peak_memory_bytes")


@dataclass(frozen=True)
class PromptRecord:
    """What a run did for one prompt. K particles in particle order, S weighted steps before the end.

    Steering weights particles at the steps that score a reward, corrected guidance at every step of the scheduler.

    Attributes:
        folder: where the files of the prompt are.
        prompt: the text; empty for an unconditional model.
        prompt_index: position of the prompt in the run's list.
        rewards: `(K,)` reward of each returned sample; None without a reward.
        log_weights: `(K,)` log weight of each returned sample, up to a constant.
        drawn: slot of one draw by weight; None where the record holds none.
        chosen: slot of the highest reward, or without a reward `drawn`.
        steps: `(S,)` scheduler steps with weights, 0 is the noisiest.
        num_steps: scheduler steps of the run.
        ess: `(S + 1,)` effective sample size at those steps and at the end.
        log_weight_std: `(S,)` standard deviation of the step's log weights under a full correction; None for steering.
        weighted: `(S,)` whether the step's weights counted; all True for steering.
        reward_path: `(S, K)` score of each slot before the resampling of that step, NaN at steps that scored nothing;
            None without a reward.
        ancestors: `(S, K)` slot of the parent of each slot after the resampling of that step.
        resampled: `(S,)` whether that step resampled.
        unique_roots: different slots of the first of the S steps that the returned samples descend from.
        degenerate: whether all weights vanished.
        log_z: log of the estimated normalizing constant; NaN where it is unknown.
        correction: share of the log weights that counted, of corrected guidance; NaN for steering.
        budget: numbers under `BUDGET_KEYS`; missing ones are None.
        terms: parts of the rewards by name, each `(K,)`, of a reward that is made of others.
        scores: further scores of the samples by name, each `(K,)`, from `scores.json` (never seen by the run).
        modality: what the samples are: "image", "video", "audio" or "text".
        strip_frames: frames side by side in the picture of a sample, 1 for images and audio.
        raw: the record as it was read.
    """

    folder: Path
    prompt: str
    prompt_index: int
    rewards: Floats | None
    log_weights: Floats
    drawn: int | None
    chosen: int
    steps: Integers
    num_steps: int
    ess: Floats
    log_weight_std: Floats | None
    weighted: npt.NDArray[np.bool_]
    reward_path: Floats | None
    ancestors: Integers
    resampled: npt.NDArray[np.bool_]
    unique_roots: int
    degenerate: bool
    log_z: float
    correction: float
    budget: Mapping[str, float | None]
    terms: Mapping[str, Floats]
    scores: Mapping[str, Floats]
    modality: str
    strip_frames: int
    raw: Mapping[str, Any]

    @property
    def num_particles(self) -> int:
        """K."""
        return len(self.log_weights)

    @property
    def weights(self) -> Floats:
        """`(K,)` normalized weights; all zero when every weight vanished."""
        return _normalized(self.log_weights)

    @property
    def values(self) -> Floats:
        """`(S + 1, K)` rewards at the S steps and at the end; NaN where nothing was scored."""
        unknown = np.full((len(self.steps) + 1, self.num_particles), np.nan)
        if self.rewards is None:
            return unknown
        return np.vstack([unknown[:-1] if self.reward_path is None else self.reward_path, self.rewards[None]])

    def weighted_mean(self, values: Floats) -> float:
        """Mean of `values` (K,) under the weights; samples of weight zero do not count, whatever their value."""
        weights = self.weights
        alive = weights > 0
        return float((weights[alive] * values[alive]).sum()) if alive.any() else math.nan

    def images(self) -> list[Image.Image]:
        """The K returned pictures; of videos the middle frames, of audio the waveforms.

        Raises:
            FileNotFoundError: a picture is missing.
            ValueError: a picture is damaged.
        """
        return [one_picture(picture, self.strip_frames) for picture in self.strips()]

    def media(self) -> list[Path] | None:
        """The K video or sound files; None for images."""
        suffix = {"video": ".mp4", "audio": ".wav"}.get(self.modality)
        if suffix is None:
            return None
        return [self.folder / "samples" / f"{slot:04d}{suffix}" for slot in range(self.num_particles)]

    def strips(self) -> list[Image.Image]:
        """The K pictures on disk: `strip_frames` frames side by side.

        Raises:
            FileNotFoundError: a picture is missing.
            ValueError: a picture is damaged.
        """
        pictures = []
        for slot in range(self.num_particles):
            path = self.folder / "samples" / f"{slot:04d}.png"
            if not path.is_file():
                raise FileNotFoundError(
                    f"expected {self.num_particles} pictures in {path.parent}, but {path.name} is missing; {_AGAIN}."
                )
            try:
                with Image.open(path) as picture:
                    pictures.append(picture.convert("RGB"))
            except (OSError, SyntaxError) as error:  # PIL reports a wrong checksum as a SyntaxError
                raise ValueError(f"expected a picture, got {path}, which is damaged ({error}); {_AGAIN}.") from None
        return pictures

    def previews(self) -> npt.NDArray[np.uint8] | None:
        """Denoised previews `(S, K, h, w, 3)` at the S steps, or None when the run kept none.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.folder / "previews.npz"
        if not path.is_file():
            return None
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                previews: npt.NDArray[np.uint8] = archive["previews"]
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"expected previews, got {path}, which is damaged ({type(error).__name__}); {_AGAIN}."
            ) from None
        return previews if previews.shape[:2] == (len(self.steps), self.num_particles) and previews.ndim == 5 else None


def parse_record(raw: Mapping[str, Any], folder: Path = Path()) -> PromptRecord:
    """Bring what a result's `record(b)` holds into one form.

    Args:
        raw: the record of one prompt, of a `SteeringResult` or a `GuidanceResult`.
        folder: where the prompt's files are; only needed to read its pictures.

    Raises:
        KeyError, TypeError, ValueError: `raw` is no such record.
    """
    check_keys(raw)
    log_weights, num_steps = floats(raw["log_weights"]), int(raw["num_steps"])
    steps, scored = (np.array(raw[key], dtype=np.int64) for key in ("steps", "scored_steps"))
    rewards = None if raw["rewards"] is None else floats(raw["rewards"])
    shape = (len(steps), len(log_weights))
    ess = floats(raw["ess"])
    if len(ess) == len(steps):  # no weights after the last step: what it left is what is returned
        ess = np.append(ess, 1 / (_normalized(log_weights) ** 2).sum() if np.isfinite(log_weights).any() else np.nan)
    reward_path = None
    if rewards is not None:
        reward_path = np.full(shape, np.nan)
        reward_path[np.searchsorted(steps, scored)] = floats(raw["reward_path"]).reshape(len(scored), shape[1])
    drawn = raw.get("drawn")
    budget = raw.get("budget") or {}
    return PromptRecord(
        folder=folder,
        prompt=str(raw.get("prompt") or ""),
        prompt_index=int(raw["prompt_index"]),
        rewards=rewards,
        log_weights=log_weights,
        drawn=None if drawn is None else int(drawn),
        chosen=int(raw["drawn"] if rewards is None else raw["best"]),
        steps=steps,
        num_steps=num_steps,
        ess=ess,
        log_weight_std=floats(raw["log_weight_std"]) if "log_weight_std" in raw else None,
        weighted=np.isin(steps, raw.get("weighted_steps", steps)),
        reward_path=reward_path,
        ancestors=np.array(raw["ancestors"], dtype=np.int64).reshape(shape),
        resampled=np.array(raw["resampled"], dtype=np.bool_),
        unique_roots=int(raw["unique_roots"]),
        degenerate=bool(raw.get("degenerate", False)),
        log_z=float(floats(raw.get("log_z"))),
        correction=float(floats(raw.get("correction"))),
        budget={key: budget.get(key) for key in BUDGET_KEYS},
        terms={str(name): floats(values) for name, values in (raw.get("terms") or {}).items()},
        scores={},
        modality=str(raw.get("modality", "image")),
        strip_frames=int(raw.get("strip_frames", 1)),
        raw=raw,
    )


def floats(values: Any) -> Floats:
    """Numbers of a record, which may spell those that JSON lacks as null or as text ("-inf")."""
    flat = np.array(values, dtype=object)
    return np.array([math.nan if v is None else float(v) for v in flat.ravel()], dtype=np.float64).reshape(flat.shape)


def _normalized(log_weights: Floats) -> Floats:
    finite = np.where(np.isnan(log_weights), -np.inf, log_weights)
    top = finite.max(initial=-np.inf)
    if not np.isfinite(top):
        return np.zeros(len(finite))
    weights = np.exp(finite - top)
    return cast(Floats, weights / weights.sum())

"""A calibration: what scores on the way have to do with the rewards of the finished samples, kept raw."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.atomic import make_folder, write_text_atomically
from fklit.checks import as_number, check_count

FORMAT = "fklit calibration 1"
_FIX = "make one with fklit calibrate --config FILE, or fklit.calibrate(...).save(path)"
_TOLERANCE = 1e-6


class Calibration:
    """Scores of unsteered samples at every calibrated step, and the rewards of what they became.

    Everything is kept as it was measured, so that curves can be fitted for any reward scale later. `fklit.calibrate`
    makes one; `save` and `load` keep it as JSON.

    Args:
        scores: `r_t`, (P, n, S) for n samples of each of P prompts at S steps; not NaN and not +inf.
        rewards: `r_0` of the finished samples, (P, n); not NaN and not +inf.
        steps: the S steps, rising, 0 is the noisiest.
        num_steps: of the run.
        prompts: the P prompts.
        run: what ran, JSON-able, as `fklit.sampling.describe_run` tells it; empty if unknown.
        upper_bound: what no reward exceeds; None if there is no bound.
        score_seconds: of one score of one sample: decoding and rewarding; None if not measured.
        denoiser_seconds: of one denoiser call for one sample; None if not measured.
        calls_per_step: denoiser calls of a sample a step; guidance counts twice.

    Raises:
        ValueError, TypeError: the parts do not fit together.
    """

    def __init__(
        self,
        *,
        scores: Float64[Tensor, "P n S"],
        rewards: Float64[Tensor, "P n"],
        steps: Sequence[int],
        num_steps: int,
        prompts: Sequence[str],
        run: Mapping[str, Any] | None = None,
        upper_bound: float | None = None,
        score_seconds: float | None = None,
        denoiser_seconds: float | None = None,
        calls_per_step: float = 1.0,
    ) -> None:
        self.scores, self.rewards = scores.double().cpu(), rewards.double().cpu()
        self.steps = tuple(check_count("a step", step, minimum=0) for step in steps)
        self.num_steps = check_count("num_steps", num_steps)
        self.prompts = tuple(str(prompt) for prompt in prompts)
        self.run = dict(run or {})
        self.upper_bound = _optional("upper_bound", upper_bound)
        self.score_seconds = _optional("score_seconds", score_seconds)
        self.denoiser_seconds = _optional("denoiser_seconds", denoiser_seconds)
        self.calls_per_step = float(calls_per_step)
        self._check()

    def _check(self) -> None:
        wanted = (len(self.prompts), self.rewards.shape[-1] if self.rewards.ndim == 2 else 0, len(self.steps))
        if self.scores.ndim != 3 or self.scores.shape != wanted or self.rewards.shape != wanted[:2] or 0 in wanted:
            raise ValueError(
                f"expected scores (P, n, S) and rewards (P, n) of {len(self.prompts)} prompts at {len(self.steps)} "
                f"steps, got {tuple(self.scores.shape)} and {tuple(self.rewards.shape)}; give one row a prompt."
            )
        if wanted[1] < 2:
            raise ValueError("expected at least 2 samples a prompt, got 1, which cannot be compared; draw more.")
        if list(self.steps) != sorted(set(self.steps)) or self.steps[-1] >= self.num_steps:
            raise ValueError(
                f"expected rising steps below num_steps={self.num_steps}, got {list(self.steps)}; count from 0."
            )
        for name, values in (("scores", self.scores), ("rewards", self.rewards)):
            if bool((values.isnan() | (values == math.inf)).any()):
                raise ValueError(f"expected {name} without NaN and +inf, got some; leave such samples out.")
            if self.upper_bound is not None and float(values.max()) > self.upper_bound + _TOLERANCE:
                raise ValueError(
                    f"expected {name} of at most upper_bound={self.upper_bound:g}, got {float(values.max()):g}; give "
                    "a bound that holds, or None."
                )

    @property
    def num_prompts(self) -> int:
        """P."""
        return len(self.prompts)

    @property
    def num_samples(self) -> int:
        """n, samples of each prompt."""
        return self.rewards.shape[1]

    @property
    def score_cost(self) -> float | None:
        """Seconds of one score in denoiser calls of one sample; None if not measured."""
        if self.score_seconds is None or not self.denoiser_seconds:
            return None
        return self.score_seconds / self.denoiser_seconds

    def at(self, step: int) -> Float64[Tensor, "P n"]:
        """Return the scores of one step.

        Raises:
            ValueError: the step is not calibrated.
        """
        if step not in self.steps:
            raise ValueError(
                f"expected a step among the calibrated {list(self.steps)} of {self.num_steps}, got {step}; score "
                "there, or calibrate with a schedule that holds it."
            )
        return self.scores[:, :, self.steps.index(step)]

    def nearest(self, step: int) -> int:
        """Return the calibrated step whose curve serves a step: itself, or one within a twentieth of the run.

        Raises:
            ValueError: none is so near.
        """
        found = min(self.steps, key=lambda known: (abs(known - step), known))
        if abs(found - step) > self.num_steps // 20:
            raise ValueError(
                f"expected steps near the calibrated {list(self.steps)} of {self.num_steps}, got step {step}; leave it "
                "out of reward_schedule, or calibrate with a schedule that holds it."
            )
        return found

    def content(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        return {
            "format": FORMAT,
            "run": self.run,
            "num_steps": self.num_steps,
            "steps": list(self.steps),
            "prompts": list(self.prompts),
            "upper_bound": self.upper_bound,
            "score_seconds": self.score_seconds,
            "denoiser_seconds": self.denoiser_seconds,
            "calls_per_step": self.calls_per_step,
            "rewards": _numbers(self.rewards.tolist()),
            "scores": _numbers(self.scores.tolist()),
        }

    @cached_property
    def digest(self) -> str:
        """Hash of the content: equal digests, equal calibrations."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return what tells calibrations apart, for `fklit.sampling.describe`."""
        return {"class": "fklit.steering.calibration.Calibration", "digest": self.digest}

    def save(self, path: str | Path) -> Path:
        """Write the calibration as JSON, complete or not at all; folders on the way are made.

        Returns:
            The file.
        """
        file = Path(path)
        make_folder(file.parent)
        write_text_atomically(file, json.dumps(self.content(), allow_nan=False) + "\n")
        return file

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read what `save` has written.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no calibration.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"expected a calibration in {file}, got no file; {_FIX}.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise ValueError(f"no {FORMAT!r}")
            tensors: dict[str, Any] = {name: _tensor(content.pop(name)) for name in ("scores", "rewards")}
            return cls(**tensors, **content)
        except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"expected a calibration in {file}, got another file ({reason}); {_FIX}.") from None

    def __eq__(self, other: object) -> bool:
        """Return whether the contents are equal."""
        return isinstance(other, Calibration) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        kept = f"{self.num_prompts} prompts x {self.num_samples} samples, {len(self.steps)} of {self.num_steps} steps"
        return f"Calibration({kept}, {self.digest[:8]})"


def as_calibration(given: "Calibration | str | Path") -> Calibration:
    """Return a calibration, read from the file where a path is given.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, Calibration):
        return given
    if isinstance(given, str | Path):
        return Calibration.load(given)
    raise TypeError(f"expected a Calibration or the path of one, got a {type(given).__name__}; {_FIX}.")


def _optional(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = as_number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"expected {name} to be a finite number or None, got {value!r}; give one.")
    return float(number)


def _numbers(values: Any) -> Any:
    """Nested lists of floats with `-inf` as a text, which JSON has no number for."""
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    return values if math.isfinite(values) else repr(values)


def _tensor(values: Any) -> Tensor:
    def numbers(part: Any) -> Any:
        if isinstance(part, list):
            return [numbers(value) for value in part]
        if isinstance(part, bool) or not isinstance(part, int | float | str):
            raise ValueError(f"{part!r} is no number")
        return float(part)

    return torch.tensor(numbers(values), dtype=torch.float64)

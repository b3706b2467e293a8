"""Rewards that a service computes: samples are sent in calls, and what fails is NaN, never a number."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from fklit.checks import check_count
from fklit.rewards.base import Metadata, Reward
from fklit.rewards.http_client import HttpClient, RewardServiceWarning

Scored = tuple[float, str | None]
"""The score of a sample, NaN with the reason if there is none."""


class RemoteReward(Reward):
    """Common part of rewards behind HTTP; subclasses write `ask`.

    Samples are images, sent as PNG files: losslessly, rounded to 8 bits. A sample that the service did not score, for
    whatever reason, gets NaN with a `RewardServiceWarning`, so that `on_nan` of the method decides: "error" stops the
    run, "drop" drops the particle. What no repetition would change (a refused request, a cap) raises.

    Args:
        client: Makes the calls.
        max_batch: Most samples a call.
        concurrency: Calls at the same time.
        typical_range: Range of the scores, for the record; it is not enforced.
        suggested_scale: A `reward_scale` to start from, for the record.

    Raises:
        ValueError: `max_batch` or `concurrency` is below 1.
    """

    accepts = "image"
    uses_metadata = True

    def __init__(
        self,
        client: HttpClient,
        *,
        max_batch: int | None,
        concurrency: int,
        typical_range: tuple[float, float] | None,
        suggested_scale: float | None,
    ) -> None:
        super().__init__(max_batch=max_batch)
        self.client = client
        self.concurrency = check_count("concurrency", concurrency)
        self.typical_range = typical_range
        self.suggested_scale = suggested_scale

    @property
    def calls(self) -> int:
        """Requests made so far, retries included."""
        return self.client.calls

    @property
    def cost(self) -> float:
        """What they have cost, in the currency of `price_per_call`."""
        return self.client.cost

    @abstractmethod
    def ask(self, images: Tensor, prompts: Sequence[str], metadata: Metadata) -> list[Scored]:
        """Score at most `max_batch` finite images (n, C, H, W) in one call; may run in several threads at once."""

    def score(self, samples: Tensor, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """Scores (n,) of the service; NaN where there is none. No gradients."""
        known: Metadata = [{"prompt": prompt} for prompt in prompts] if metadata is None else metadata

        def ask(rows: list[int]) -> list[Scored]:
            return self.ask(samples[rows].detach().cpu(), [prompts[i] for i in rows], [known[i] for i in rows])

        return self._collected(samples, ask)

    def _collected(self, images: Tensor, ask: Callable[[list[int]], list[Scored]]) -> Tensor:
        """Numbers (n,) that `ask` gives for rows of images, called for at most `max_batch` of them; NaN with a warning.

        Args:
            images: (n, C, H, W).
            ask: Scores some rows in one call; may run in several threads at once.
        """
        # A byte cannot hold NaN: such a picture would arrive as another one.
        sent = torch.isfinite(images).flatten(1).all(1).nonzero().flatten().tolist()
        size = self.max_batch or max(len(sent), 1)
        calls = [sent[start : start + size] for start in range(0, len(sent), size)]
        scores, reasons = [math.nan] * images.shape[0], []
        for rows, scored in zip(calls, _in_threads(ask, calls, self.concurrency), strict=True):
            for row, (value, reason) in zip(rows, scored, strict=True):
                scores[row] = value
                reasons += [] if reason is None else [reason]
        for reason in dict.fromkeys(reasons):
            warnings.warn(
                f"{self.display_name} expected scores from {self.client.url}, got {reason}, so {reasons.count(reason)} "
                f"of {len(scores)} sample(s) score NaN; see to the service, or set on_nan='drop' to go on.",
                RewardServiceWarning,
                stacklevel=3,
            )
        return torch.tensor(scores, dtype=self._dtype(), device=self.device)

    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.device.type != "mps" else torch.float32

    def _at_once(self, count: int) -> int:
        """All that the calls at the same time can take."""
        return count if self.max_batch is None else self.max_batch * self.concurrency


def as_score(value: Any, what: str) -> Scored:
    """A number of an answer as a score; whatever is no finite number is NaN, with the reason."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "null" if value is None else f"{value!r}"[:100]
        return math.nan, f"{kind} as {what}"
    return (float(value), None) if math.isfinite(value) else (math.nan, f"{value} as {what}")


def first_line(text: Any) -> str:
    """What a service says of an error, short enough for a warning."""
    return str(text).strip().partition("\n")[0][:200]


def plain_metadata(item: Mapping[str, Any], keys: Sequence[str] | None) -> dict[str, Any]:
    """The metadata that are sent: those under `keys`, None for all, but never the prompt, which is sent as text."""
    chosen = [key for key in item if key != "prompt"] if keys is None else [key for key in keys if key in item]
    return {key: item[key] for key in chosen}


def _in_threads(
    function: Callable[[list[int]], list[Scored]], items: Sequence[list[int]], threads: int
) -> list[list[Scored]]:
    if threads == 1 or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:  # after an error the calls that have not begun are not made
            for future in futures:
                future.cancel()

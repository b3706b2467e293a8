"""Regular expressions as rewards of texts."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.rewards.text_reward import TextReward


class RegexScore(TextReward):
    r"""Whether, or how often, a regular expression matches a text; an empty text is one like others.

    ```python
    RegexScore(r"\bking\b", ignore_case=True)              # 1 with the word, 0 without
    RegexScore(r"[^\x00-\x7f]", output="count", unwanted=True)  # minus the number of signs beyond ASCII
    ```

    Args:
        pattern: Of Python's `re`; it is searched for, so `\A` and `\Z` (or `(?s)\A...\Z`) hold it to the whole text.
        output: "present", 1 or 0, or "count", the number of matches that do not overlap.
        unwanted: Whether matches are bad: 0 or -1, or minus the count.
        ignore_case: Whether case does not count.
        max_batch: Most texts at once; None for no limit.

    Raises:
        ValueError: `pattern` is no regular expression.
    """

    suggested_scale = 5.0

    def __init__(
        self,
        pattern: str,
        *,
        output: Literal["present", "count"] = "present",
        unwanted: bool = False,
        ignore_case: bool = False,
        max_batch: int | None = None,
    ) -> None:
        super().__init__(max_batch=max_batch)
        check_choice("output", output, ("present", "count"))
        try:
            self._pattern = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
        except re.error as error:
            raise ValueError(f"expected a regular expression, got {pattern!r} ({error}); fix it.") from None
        self.pattern = pattern
        self.output = output
        self.unwanted = unwanted
        self.ignore_case = ignore_case
        if output == "present":
            self.typical_range = (-1.0, 0.0) if unwanted else (0.0, 1.0)

    def is_empty(self, text: str) -> bool:
        """Never: a pattern says what it makes of an empty text."""
        return False

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """Scores (n,)."""
        counts = torch.tensor([sum(1 for _ in self._pattern.finditer(text)) for text in texts], dtype=torch.float64)
        found = counts.clamp(max=1) if self.output == "present" else counts
        return -found if self.unwanted else found

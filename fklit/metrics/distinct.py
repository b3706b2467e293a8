"""Distinct n-grams: how varied the words of texts are."""

import math
from collections.abc import Sequence

from torch import Tensor

from fklit.checks import check_count
from fklit.metrics.prompt_metric import OnNan
from fklit.metrics.text_store import Samples
from fklit.metrics.text_table import TextTable


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams of some texts, divided by their number of words; NaN without words.

    Li et al. 2016 (arXiv:1510.03055, section 5.3). No n-gram goes from one text to the next.

    Args:
        texts: Words of each.
        n: Length of the n-grams, at least 1.
    """
    total = sum(len(text) for text in texts)
    grams = {tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)}
    return len(grams) / total if total else math.nan


class Distinct(TextTable):
    """Distinct-1, -2, ...: different n-grams over words, 0 to 1, of all texts together and for each prompt.

    `corpus_N` is that of all texts together, which falls as there are more of them: compare runs of one size.
    `prompt_N` is the mean over different prompts of that among the texts of one, as the FK steering paper (Singhal et
    al. 2025, arXiv:2501.06848) reports it: several rows with one prompt are continuations of it. Words are runs of
    letters, digits and apostrophes, and single marks, in their case.

    Args:
        up_to: Largest N.
        samples: Which texts of a prompt: the "chosen" one, or "all" K.
        with_prompt: As in `TextTable`.
        on_nan: As in `TextTable`.
    """

    higher_is_better = True

    def __init__(
        self, up_to: int = 3, *, samples: Samples = "chosen", with_prompt: bool = False, on_nan: OnNan = "error"
    ) -> None:
        super().__init__(samples=samples, with_prompt=with_prompt, on_nan=on_nan)
        self.up_to = check_count("up_to", up_to)

    def compute(self) -> dict[str, Tensor]:
        """`corpus_1` to `corpus_N` and `prompt_1` to `prompt_N`, float64 scalars; NaN without texts."""
        rows, omitted = self.rows()
        groups = [*self.groups(rows).values()]
        values: dict[str, float] = {}
        for n in range(1, self.up_to + 1):
            values[f"corpus_{n}"] = distinct_n([text for row in rows for text in row.texts], n)
            each = [distinct_n(texts, n) for texts in groups]
            values[f"prompt_{n}"] = sum(each) / len(each) if each else math.nan
        return self.reported(values, omitted)

"""Self-BLEU: how alike the texts of one prompt are."""

import math
from collections.abc import Sequence

from torch import Tensor

from fklit.checks import check_count
from fklit.metrics.prompt_metric import OnNan
from fklit.metrics.text_store import Samples
from fklit.metrics.text_table import TextTable


def self_bleu_score(texts: Sequence[Sequence[str]], *, n_gram: int = 4, smooth: bool = False) -> float:
    """Mean over texts of the BLEU score of each against all others, 0 to 1 (Zhu et al. 2018, arXiv:1802.01886).

    BLEU is that of torchmetrics.

    Args:
        texts: Words of each, of at least two texts.
        n_gram: Longest n-grams.
        smooth: Whether to add 1 to the counts of n-grams; without it, a text that shares no n-gram of the greatest
            length with another has 0.

    Raises:
        ValueError: There are fewer than two texts.
    """
    from torchmetrics.functional.text import bleu_score

    if len(texts) < 2:
        raise ValueError(f"expected at least 2 texts to compare, got {len(texts)}; sample more of a prompt.")
    joined = [" ".join(text) for text in texts]
    scores = [
        float(bleu_score([text], [[*joined[:row], *joined[row + 1 :]]], n_gram=n_gram, smooth=smooth))
        for row, text in enumerate(joined)
    ]
    return sum(scores) / len(scores)


class SelfBLEU(TextTable):
    """Mean over different prompts of the self-BLEU of the texts of one, 0 (nothing shared) to 1 (all alike).

    Several rows with one prompt are continuations of it. Words are those of `Distinct`.

    Args:
        n_gram: Longest n-grams.
        smooth: As in `self_bleu_score`.
        samples: Which texts of a prompt: "all" K, or the "chosen" one, which needs rows with one prompt.
        with_prompt: As in `TextTable`.
        on_nan: As in `TextTable`.
    """

    higher_is_better = False

    def __init__(
        self,
        n_gram: int = 4,
        *,
        smooth: bool = False,
        samples: Samples = "all",
        with_prompt: bool = False,
        on_nan: OnNan = "error",
    ) -> None:
        super().__init__(samples=samples, with_prompt=with_prompt, on_nan=on_nan)
        self.n_gram = check_count("n_gram", n_gram)
        self.smooth = smooth

    def check_run(self, name: str, *, num_prompts: int | None, num_particles: int | None) -> None:
        """Refuses a run of one text of a prompt, as far as can be known.

        Raises:
            ValueError: There is only one.
        """
        if (num_particles == 1 and self.samples == "all") or (num_prompts == 1 and self.samples == "chosen"):
            raise ValueError(
                f"{name} ({type(self).__name__}) expected at least 2 texts of a prompt, got 1; raise num_particles "
                "with samples='all', or give each prompt several times with samples='chosen'."
            )

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The mean, a float64 scalar, NaN without texts; with `on_nan="omit"` a dictionary with "omitted".

        Raises:
            ValueError: A prompt has one text only.
        """
        rows, omitted = self.rows()
        groups = self.groups(rows)
        single = next((prompt for prompt, texts in groups.items() if len(texts) < 2), None)
        if single is not None:
            raise ValueError(
                f"SelfBLEU expected at least 2 texts of every prompt, got 1 of {single!r}; raise num_particles with "
                "samples='all', or give each prompt several times."
            )
        each = [self_bleu_score(texts, n_gram=self.n_gram, smooth=self.smooth) for texts in groups.values()]
        found = self.reported({"mean": sum(each) / len(each) if each else math.nan}, omitted)
        return found if self.on_nan == "omit" else found["mean"]

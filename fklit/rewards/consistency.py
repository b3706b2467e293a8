"""Two faults of rewards that weigh samples wrongly without an error, looked for while a run scores."""

from collections.abc import Callable

import torch
from torch import Tensor

_TOLERANCE = 1e-2  # of the scores' size: half precision rounds to less, a softmax over the batch is far off


class InconsistentRewardWarning(UserWarning):
    """A reward's score of a sample depends on the other samples, or on no sample at all."""


class ConsistencyCheck:
    """Watches the scores of one run.

    A score that depends on the rest of its batch (a softmax or a standardization over the batch, as in PickScore's
    card) means something else at every step and in every batch: the first sample of the first call is therefore scored
    once more, alone. A score that is the same for all pictures of a run steers nothing; that is right for a yes-or-no
    reward with one answer, and wrong where, for example, images in [0, 1] are divided by 255.

    Args:
        name: what warnings call the reward.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: Tensor | None = None
        self._constant = True
        self._pictures_differ = False

    def alone(self, scores: Tensor, score_alone: Callable[[], Tensor]) -> str | None:
        """Compare the score of the first sample in its batch, `scores[0]`, which is finite, with its score alone.

        Returns:
            What to warn of, or None.
        """
        inside = float(scores[0])
        try:
            outside = float(score_alone().reshape(()))
        except Exception as error:  # whatever a function of a user raises
            return (
                f"{self._name} expected to score one sample alone, got {type(error).__name__}: "
                f"{' '.join(str(error).split()).rstrip('.')}; write it so that it takes any number of samples."
            )
        size = max(float(scores[torch.isfinite(scores)].abs().max()), abs(outside))
        if abs(inside - outside) <= _TOLERANCE * size:
            return None
        return (
            f"{self._name} gave a sample {inside:.6g} in a batch of {scores.numel()} and {outside:.6g} alone, so its "
            "scores depend on what else is in the batch, and weigh samples wrongly; score each sample on its own (no "
            "softmax, ranking or standardization over the batch)."
        )

    def watch(self, samples: Tensor, scores: Tensor) -> None:
        """Note the scores of a call, flat as the samples are."""
        flat = scores.reshape(-1)
        if self._first is None:
            self._first = flat[0]
        self._constant = self._constant and bool(torch.allclose(flat, self._first.expand_as(flat), rtol=1e-6, atol=0))
        if self._constant and not self._pictures_differ:
            self._pictures_differ = bool((samples != samples[:1]).any())

    def constant(self) -> str | None:
        """What to warn of at the end of a run, if all scores were the same though the pictures differ."""
        if self._first is None or not self._constant or not self._pictures_differ:
            return None
        return (
            f"{self._name} gave every sample of this run the score {float(self._first):.6g}, so nothing was steered; "
            "fine if it has few values, else look at its input (images come in [0, 1]: are they scaled twice, or "
            "does each call normalize its scores?)."
        )

"""How many texts, or other samples, a classifier or a grammar accepts."""

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.metrics.prompt_metric import OnNan
from fklit.metrics.reward_metric import RewardMetric
from fklit.metrics.samples import SampleBatch
from fklit.rewards.base import Reward


class AcceptanceRate(RewardMetric):
    """Share of chosen samples, 0 to 1, whose reward is at least a threshold.

    ```yaml
    acceptable:  # by a classifier with a probability of 0.5, whose logarithm is -0.6931
      class_path: AcceptanceRate
      init_args:
        reward: {class_path: TextClassifier, init_args: {model_name: textattack/roberta-base-CoLA, label: LABEL_1}}
        threshold: -0.6931
    parsed: {class_path: AcceptanceRate, init_args: {reward: {class_path: GrammarScore}, threshold: 0.0}}
    ```

    A reward that also guides does not measure what was gained by steering.

    Args:
        reward: Any reward. One of `-inf` is not accepted; NaN is no score, see `on_nan`.
        threshold: In the reward's units.
        by: As in `PromptMetric`.
        on_nan: As in `PromptMetric`.

    Raises:
        ValueError: The threshold is NaN.
    """

    def __init__(self, reward: Reward, threshold: float, *, by: str | None = None, on_nan: OnNan = "error") -> None:
        super().__init__(reward, by=by, on_nan=on_nan)
        if threshold != threshold:
            raise ValueError("expected a number as threshold, got nan; give one in the reward's units.")
        self.threshold = threshold

    def values(self, samples: Float[Tensor, "b k ..."], batch: SampleBatch) -> Float[Tensor, " b"]:
        """1 for each prompt whose chosen sample is accepted, else 0; NaN for one that has no score."""
        scores = super().values(samples, batch)
        return (scores >= self.threshold).double().masked_fill(scores.isnan(), torch.nan)

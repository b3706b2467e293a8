"""Any reward as a metric."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from fklit.metrics.prompt_metric import OnNan, PromptMetric
from fklit.metrics.samples import SampleBatch
from fklit.rewards.base import Reward


class RewardMetric(PromptMetric):
    """Mean over prompts of a reward of the chosen sample, in the reward's own units.

    ```yaml
    image_reward: {class_path: RewardMetric, init_args: {reward: {class_path: ImageReward}}}
    hps: {class_path: RewardMetric, init_args: {reward: {class_path: HPSv2}}}
    ```

    A reward that also guides does not measure what was gained by steering.

    Args:
        reward: Any reward; of images, videos, audio or texts, as the task makes them.
        by: As in `PromptMetric`.
        on_nan: As in `PromptMetric`; a reward that could not be had (a service that failed) is NaN, one of a violated
            constraint is `-inf`.
    """

    higher_is_better = True
    needs_prompts = True
    of_chosen = True

    def __init__(self, reward: Reward, *, by: str | None = None, on_nan: OnNan = "error") -> None:
        super().__init__(by=by, on_nan=on_nan)
        self._reward = reward

    @property
    def reward(self) -> Reward:
        """The reward."""
        return self._reward

    def load(self) -> None:
        """Loads its weights."""
        self._reward.load()

    def values(self, samples: Float[Tensor, "b k ..."], batch: SampleBatch) -> Float[Tensor, " b"]:
        """The reward of each prompt's chosen sample: of what tokens stand for, where samples are tokens."""
        chosen: Any = batch.choose(samples)
        if not samples.is_floating_point() and batch.result is not None:
            items = zip(batch.result.items, batch.chosen.tolist(), strict=True)
            chosen = [row[slot] for row, slot in items]
        scores: Tensor = self._reward(chosen, list(batch.prompts), list(batch.metadata))
        return scores

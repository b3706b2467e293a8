"""The usual CLIP score as a metric."""

from fklit.metrics.prompt_metric import OnNan
from fklit.metrics.reward_metric import RewardMetric
from fklit.rewards.clip import CLIPScore


class MeanCLIPScore(RewardMetric):
    """Mean over prompts of 100 times the cosine between the chosen image and its prompt (Hessel et al. 2021).

    See arXiv:2104.08718, equation 1, here with a weight of 100 in place of 2.5 and without its maximum with 0.
    A model that is also the reward does not measure what was gained by steering.

    Args:
        model_name: As in `fklit.rewards.CLIPScore`.
        pretrained: As there.
        max_batch: Most images at once; None for no limit.
        by: As in `PromptMetric`.
        on_nan: As in `PromptMetric`.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: str | None = None,
        *,
        max_batch: int | None = None,
        by: str | None = None,
        on_nan: OnNan = "error",
    ) -> None:
        super().__init__(CLIPScore(model_name, pretrained, scale=100.0, max_batch=max_batch), by=by, on_nan=on_nan)

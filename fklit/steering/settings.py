"""The settings of steering."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Required

from fklit.rewards.base import Reward
from fklit.sampling.settings import SamplingArguments, SamplingSettings


@dataclass(frozen=True, kw_only=True)
class SteeringSettings(SamplingSettings):
    """All settings of `fklit.steer`, of `SteeringRun` and of `SteeringTask`.

    Attributes:
        previews: whether thumbnails of the denoised predictions are kept; of texts, one predicted text of each particle
            at each scored step, and the step that unmasked each token.
    """

    reward: Reward | Callable[..., Any]
    previews: bool = True


class SteeringArguments(SamplingArguments, total=False):
    """`SteeringSettings` as keyword arguments."""

    reward: Required[Reward | Callable[..., Any]]
    previews: bool

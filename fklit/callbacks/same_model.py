"""Whether what measures is what guides, so that a high number would mean nothing."""

import json
import warnings
from typing import Any

from torch import nn

from fklit.rewards.base import Reward
from fklit.sampling.describe import describe

# What two rewards of the same weights may differ in.
_NOT_WEIGHTS = {"max_batch", "pad", "scale", "cache_dir", "dtype"}
_NOT_WEIGHTS |= {"output", "given_prompt", "max_tokens", "add_bos", "empty"}  # of texts


class SameModelWarning(UserWarning):
    """A metric measures by the model that guides."""


def share_model(one: Reward, other: Reward) -> bool:
    """Tell whether two rewards, or a part of each, are of the same class and weights.

    Args:
        one: A reward.
        other: Another one.
    """
    return one is other or bool(_models(one) & _models(other))


def warn_of_same_model(name: str, metric_reward: Reward | None, guide: object) -> bool:
    """Warn of a metric whose reward also guides.

    Args:
        name: How the user calls the metric.
        metric_reward: Its reward, or None.
        guide: What guides, or None.

    Returns:
        Whether it does.
    """
    if metric_reward is None or not isinstance(guide, Reward) or not share_model(metric_reward, guide):
        return False
    warnings.warn(
        f"{name} expected another model than the reward, got {metric_reward.display_name} of the same weights, which "
        "guides: it does not tell what was gained; measure by another model, too.",
        SameModelWarning,
        stacklevel=2,
    )
    return True


def _models(reward: nn.Module) -> set[str]:
    found: set[str] = set()
    for part in reward.modules():
        if not isinstance(part, Reward):
            continue
        try:
            described: Any = describe(part)
        except TypeError:  # it does not tell its arguments: it is itself alone
            described = {"object": id(part)}
        found.add(json.dumps({key: v for key, v in described.items() if key not in _NOT_WEIGHTS}, sort_keys=True))
    return found

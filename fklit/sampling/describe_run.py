"""What a run is, in so far as scores on the way depend on it: model, sampler, reward and arguments of the call."""

from collections.abc import Mapping
from typing import Any

from fklit.rewards.base import Reward
from fklit.sampling.describe import describe, settings_hash

_HOW = ("max_batch", "pad")  # arguments of a reward that do not move its scores by more than rounding


def describe_run(
    reward: Reward,
    *,
    model: str,
    sampler: str,
    arguments: Mapping[str, Any],
    score_scale: float | None = None,
    latent_reward: str | None = None,
    look_ahead: str | None = None,
) -> dict[str, Any]:
    """Return what a run is, JSON-able.

    Args:
        reward: the reward.
        model: class of the pipeline or model.
        sampler: that runs, with the options that were forced.
        arguments: further arguments of the call.
        score_scale: the reward scale where scores depend on it, as those over several draws do; None elsewhere.
        latent_reward: what scores latents in place of the reward; None where nothing does.
        look_ahead: how clean samples are drawn for a score; None where denoised predictions are scored.
    """
    try:
        described = {name: value for name, value in describe(reward).items() if name not in _HOW}
        digest: str | None = settings_hash(described)
    except TypeError:  # it does not tell its arguments: its name is all that can be compared
        digest = None
    return {
        "model": model,
        "sampler": sampler,
        "reward": reward.display_name,
        "reward_hash": digest,
        "score_scale": score_scale,
        "arguments": _without_texts(describe(dict(arguments))),
        **({} if latent_reward is None else {"latent_reward": latent_reward}),
        **({} if look_ahead is None else {"look_ahead": look_ahead}),
    }


def _without_texts(arguments: dict[str, Any]) -> dict[str, Any]:
    """Without the prompts and what stands for them, and without the number of steps, which is compared by itself."""
    left_out = ("prompt", "num_inference_steps")
    return {name: value for name, value in arguments.items() if not name.startswith(left_out)}

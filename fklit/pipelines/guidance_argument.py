"""By which argument of its call a pipeline takes the scale of classifier-free guidance."""

from collections.abc import Mapping
from typing import Any

from fklit.pipelines.call import call_parameters
from fklit.pipelines.interception import UnsupportedPipelineError


def guidance_argument(pipeline: Any, pipeline_kwargs: Mapping[str, Any], *, guides: bool = True) -> str:
    """Return the name of the argument that scales the difference of two predictions.

    `guidance_scale` of models with distilled guidance (FLUX, Qwen-Image) is an input of the network, which makes one
    prediction; those that also guide by two predictions call that scale `true_cfg_scale`, and only with a negative
    prompt.

    Args:
        pipeline: a diffusers pipeline.
        pipeline_kwargs: further arguments of the call.
        guides: whether the pipeline shall guide; False where the scale is only switched off.

    Raises:
        UnsupportedPipelineError: there is no such argument, or the guidance is distilled.
        ValueError: the pipeline guides by two predictions only with a negative prompt, and there is none.
    """
    names, kind = call_parameters(pipeline), type(pipeline).__name__
    if "true_cfg_scale" in names:
        negatives = (pipeline_kwargs.get(name) for name in ("negative_prompt", "negative_prompt_embeds"))
        if guides and all(negative is None for negative in negatives):
            raise ValueError(
                f"{kind} expected a negative prompt, without which it makes one prediction and there is no guidance to "
                "correct, got none; give one in pipeline_kwargs, such as negative_prompt=' '."
            )
        return "true_cfg_scale"
    if "guidance_scale" not in names or "prompt" not in names:
        raise UnsupportedPipelineError(
            f"expected a pipeline with classifier-free guidance, got {kind}, which takes no "
            f"{'guidance_scale' if 'prompt' in names else 'prompt'}; there is no guidance to correct."
        )
    config = getattr(getattr(pipeline, "transformer", None), "config", {})
    if config.get("guidance_embeds", False):
        raise UnsupportedPipelineError(
            f"{kind} has distilled guidance: its guidance_scale is an input of the network, which makes one "
            "prediction, so there are no two whose product could be weighed; steer it with a reward instead."
        )
    return "guidance_scale"


def guidance_value(pipeline: Any, scale: float) -> float:
    """Return what a pipeline takes for the guidance scale w of `u + w (c - u)`.

    Z-Image counts from the conditional prediction, `c + s (c - u)` with `s = w - 1`, and guides for s above 1 only.

    Args:
        pipeline: a diffusers pipeline.
        scale: w; 1 is no guidance.

    Raises:
        ValueError: the pipeline would not guide.
    """
    if not type(pipeline).__name__.startswith("ZImage") or getattr(pipeline, "runs_blocks", False):
        return scale
    if 1 < scale <= 2:
        raise ValueError(
            f"{type(pipeline).__name__} expected a guidance_scale above 2 (it counts from 1 less, and guides above 1 "
            f"only), got {scale:g}; raise it."
        )
    return max(scale - 1, 0.0)

"""The arguments of one pipeline call for many prompts with K particles each."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_OURS = {
    "prompt": "the prompts are an argument of their own",
    "generator": "it follows from the seed",
    "num_images_per_prompt": "it is num_particles",
    "num_videos_per_prompt": "it is num_particles",
    "batch_size": "it follows from the prompts and num_particles",
    "output_type": "images are always returned",
    "return_dict": "the output is read by name",
}


def build_call(
    pipeline: Any,
    prompts: Sequence[str],
    num_particles: int,
    generators: Sequence[torch.Generator],
    pipeline_kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """Keyword arguments for `pipeline(...)` that give K samples of each prompt, side by side.

    Args:
        pipeline: a diffusers pipeline.
        prompts: B prompts.
        num_particles: K.
        generators: B*K generators, one a sample.
        pipeline_kwargs: the user's arguments, checked against the signature of the pipeline; an `image` with B entries
            is repeated for the particles, a single negative prompt for the prompts.

    Returns:
        All keyword arguments of the call.

    Raises:
        TypeError: if the pipeline does not take an argument, or the argument is set by fklit.
    """
    names = inspect.signature(type(pipeline).__call__).parameters
    for name in pipeline_kwargs:
        if name in _OURS:
            raise TypeError(f"pipeline_kwargs expected no {name!r}, which fklit sets itself ({_OURS[name]}); omit it.")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it accepts {', '.join(n for n in names if n != 'self')}."
            raise TypeError(f"pipeline_kwargs expected arguments of {type(pipeline).__name__}, got {name!r}; {hint}")
    given = dict(pipeline_kwargs)
    if "generator" in names:
        given["generator"] = list(generators)
    if "output_type" in names:
        given["output_type"] = "pt"
    if "return_dict" in names:
        given["return_dict"] = True
    if "prompt" not in names:
        if "batch_size" in names:
            given["batch_size"] = len(prompts) * num_particles
        return given
    per_prompt = next((n for n in ("num_images_per_prompt", "num_videos_per_prompt") if n in names), None)
    repeats = 1 if per_prompt else num_particles
    if given.get("prompt_embeds") is None:
        given["prompt"] = [prompt for prompt in prompts for _ in range(repeats)]
        for name in ("negative_prompt", "negative_prompt_2", "negative_prompt_3"):
            if isinstance(given.get(name), str):  # pipelines want as many as prompts, of the same type
                given[name] = [given[name]] * len(given["prompt"])
    if per_prompt:
        given[per_prompt] = num_particles
    # Pipelines tile a batch of images (a b a b) where they repeat prompts in place (a a b b).
    image = given.get("image")
    if isinstance(image, list | tuple) and len(image) == len(prompts) > 1:
        given["image"] = [item for item in image for _ in range(num_particles)]
    elif isinstance(image, Tensor) and image.ndim == 4 and image.shape[0] == len(prompts) > 1:
        given["image"] = image.repeat_interleave(num_particles, dim=0)
    return given

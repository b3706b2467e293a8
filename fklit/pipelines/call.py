"""The arguments of one pipeline call for many prompts with K particles each."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.call_rows import (
    TEXT,
    draws_globally,
    is_embedding,
    makes_one_sample,
    needs_negative_prompts,
    pictures_a_sample,
    repeated,
    returns_raw_tensors,
    rows_of_argument,
    takes_bare_text,
    takes_one_prompt,
    wrong_number,
)
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.refusals import check_samples

_OURS = {
    "prompt": "the prompts are an argument of their own",
    "generator": "it follows from the seed",
    "num_images_per_prompt": "it is num_particles",
    "num_videos_per_prompt": "it is num_particles",
    "num_waveforms_per_prompt": "it is num_particles",
    "batch_size": "it follows from the prompts and num_particles",
    "output_type": "images are always returned",
    "return_dict": "the output is read by name",
}


def call_parameters(pipeline: Any) -> dict[str, inspect.Parameter]:
    """Return the named arguments of a pipeline's call, without `self`.

    A subclass whose `__call__` hands `**kwargs` on has those of the classes it derives from as well.

    Raises:
        UnsupportedPipelineError: if no class of it names them.
    """
    if any(base.__name__ == "ModularPipeline" for base in type(pipeline).__mro__):
        raise UnsupportedPipelineError(
            f"expected a pipeline whose __call__ names its arguments, got the modular {type(pipeline).__name__}, whose "
            "blocks do; wrap it in fklit.pipelines.modular.ModularAdapter, and call that."
        )
    found: dict[str, inspect.Parameter] = {}
    for base in type(pipeline).__mro__:
        if "__call__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__call__"]).parameters.values())[1:]
        named = [item for item in parameters if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
        found = {item.name: item for item in named} | found
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            return found
    if {"generator", "num_inference_steps"} & found.keys():  # what is not named is a deprecated argument or two
        return found
    raise UnsupportedPipelineError(
        f"expected a pipeline whose __call__ names its arguments, got {type(pipeline).__name__}, which takes any; wrap "
        "it in a class whose __call__ names prompt, generator, num_inference_steps and what else it takes."
    )


def build_call(
    pipeline: Any,
    prompts: Sequence[str],
    num_particles: int,
    generators: Sequence[torch.Generator],
    pipeline_kwargs: Mapping[str, Any],
    *,
    scheduler: Any = None,
) -> dict[str, Any]:
    """Keyword arguments for `pipeline(...)` that give K samples of each prompt, side by side.

    Where prompts are all that differs, the pipeline repeats them by its `num_images_per_prompt`. Which further
    arguments it repeats with them, and in which order, differs from pipeline to pipeline; so with embeddings, class
    labels, or pictures for each prompt, the prompts and all of these are repeated here, one entry a particle, and the
    pipeline is asked for one sample of each. So are the prompts of pipelines that have no such argument, and of those
    with `num_videos_per_prompt`, which many accept and ignore, or `num_waveforms_per_prompt`, where AudioLDM 2 sorts.

    Args:
        pipeline: a diffusers pipeline.
        prompts: B prompts.
        num_particles: K.
        generators: B*K generators, one a sample.
        pipeline_kwargs: the user's arguments, checked against the signature of the pipeline. Texts (`prompt_2`,
            `negative_prompt`) are one or B; embeddings, masks, `class_labels` and pictures may have 1, B or B*K rows.
        scheduler: what the call runs with; None for the pipeline's own.

    Returns:
        All keyword arguments of the call.

    Raises:
        TypeError: if the pipeline does not take an argument, or the argument is set by fklit.
        ValueError: if an argument has another number of entries, or the scheduler takes no steps of one's own.
    """
    names = call_parameters(pipeline)
    _check_names(pipeline, names, pipeline_kwargs)
    _check_end(pipeline, pipeline_kwargs)
    _check_grid(pipeline, scheduler, pipeline_kwargs)
    given = dict(pipeline_kwargs)
    if needs_negative_prompts(pipeline) and given.get("negative_prompt") is None:
        given["negative_prompt"] = ""
    count, total = len(prompts), len(prompts) * num_particles
    fixed: dict[str, Any] = {
        "generator": list(generators),
        "output_type": "np" if returns_raw_tensors(pipeline) else "pt",
        "return_dict": True,
    }
    given |= {name: value for name, value in fixed.items() if name in names}
    scale = names["guidance_scale"].default if "guidance_scale" in names else 1.0
    check_samples(pipeline, given, total, scale)
    if count > 1 and takes_one_prompt(pipeline):
        raise ValueError(
            f"{type(pipeline).__name__} expected one prompt a call, which is all that diffusers lets it take, got "
            f"{count}; steer one prompt a call (batch_size=1)."
        )
    if total > 1 and makes_one_sample(pipeline):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} makes one sample a call, got {total} to make (prompts x num_particles), so "
            "there are no particles to choose among; call it yourself with several seeds."
        )
    if count > 1 and draws_globally(pipeline):
        raise ValueError(
            f"{type(pipeline).__name__} expected one prompt a call, as it draws the encoding of its picture by the "
            f"global generator, for all prompts at once, got {count}; steer one prompt a call (batch_size=1)."
        )
    _check_latents(given, total)
    spread = pictures_a_sample(pipeline, given, count)
    given |= spread
    rows = {name: rows_of_argument(pipeline, name, value) for name, value in given.items()}
    batched = {name: number for name, number in rows.items() if number is not None}
    if isinstance(given.get("class_labels"), int):
        batched["class_labels"] = 1
    for name, number in batched.items():
        if number not in (1, count, total):
            raise wrong_number(name, number, count, num_particles)
    texts = {name: value for name, value in given.items() if TEXT.fullmatch(name) and value is not None}
    if "prompt" in names and given.get("prompt_embeds") is None:
        texts["prompt"] = list(prompts)

    # Blocks repeat pooled embeddings in another order than those of tokens (SDXL), which shows with several prompts.
    runs_blocks = getattr(pipeline, "runs_blocks", False)
    by_pipeline = "num_images_per_prompt" in names and (count == 1 or not runs_blocks)
    adapter = next((name for name in ("ip_adapter_image", "ip_adapter_image_embeds") if given.get(name)), None)
    if adapter is not None:
        _check_adapter(adapter, count, batched)
    elif any(number > 1 or is_embedding(name) or name in spread for name, number in batched.items()):
        by_pipeline = False
    if by_pipeline:
        given["num_images_per_prompt"] = num_particles
        texts = {name: repeated(name, value, count, 1) for name, value in texts.items()}
        # Blocks that rewrite prompts take a text, not a list of one.
        bare = runs_blocks or takes_bare_text(pipeline)
        return given | {name: value[0] if bare else value for name, value in texts.items()}

    for name in ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt"):
        if name in names:
            given[name] = 1
    if "batch_size" in names:
        given["batch_size"] = total
    # What tells the pipeline how many samples to make: pictures do where there is nothing else.
    counted = bool(texts) or "image" not in names or any(is_embedding(name) for name in batched)
    if not counted and not batched:
        raise ValueError(
            f"{type(pipeline).__name__} makes one sample of each row of its image, so pipeline_kwargs['image'] "
            f"expected a tensor (B, C, H, W), got a {type(given.get('image')).__name__}; convert it, to [-1, 1]."
        )
    texts = {name: repeated(name, value, count, num_particles) for name, value in texts.items()}
    bare = total == 1 and takes_bare_text(pipeline)
    given |= {name: value[0] if bare else value for name, value in texts.items()}
    for name, number in batched.items():
        # One picture for all is spread by most pipelines.
        if number > 1 or is_embedding(name) or not counted or name in spread:
            given[name] = repeated(name, given[name], count, num_particles)
    return given


def _check_names(pipeline: Any, names: Mapping[str, Any], pipeline_kwargs: Mapping[str, Any]) -> None:
    for name in pipeline_kwargs:
        if name in _OURS:
            raise TypeError(f"pipeline_kwargs expected no {name!r}, which fklit sets itself ({_OURS[name]}); omit it.")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it accepts {', '.join(names)}."
            raise TypeError(f"pipeline_kwargs expected arguments of {type(pipeline).__name__}, got {name!r}; {hint}")


def _check_end(pipeline: Any, pipeline_kwargs: Mapping[str, Any]) -> None:
    """A base model that stops early hands noisy latents to a refiner: nothing that a reward could score."""
    if pipeline_kwargs.get("denoising_end") is not None:
        raise ValueError(
            f"pipeline_kwargs expected no 'denoising_end', at which {type(pipeline).__name__} stops before its samples "
            "are pictures; omit it, or call the base model yourself (output_type='latent', one latent a particle) and "
            "steer the refiner, with image= those latents and denoising_start= in pipeline_kwargs."
        )


def _check_grid(pipeline: Any, scheduler: Any, pipeline_kwargs: Mapping[str, Any]) -> None:
    """Custom steps belong to the pipeline's own scheduler; one that runs in its place may not take them."""
    own = getattr(pipeline, "scheduler", None)
    if scheduler is None or scheduler is own or not hasattr(scheduler, "set_timesteps"):
        return
    taken = inspect.signature(scheduler.set_timesteps).parameters
    for name in ("timesteps", "sigmas"):
        if pipeline_kwargs.get(name) is not None and name not in taken:
            raise ValueError(
                f"pipeline_kwargs expected no {name!r} with {type(scheduler).__name__}, which runs in place of "
                f"{type(own).__name__} and takes none; give num_inference_steps, or set scheduler='keep'."
            )


def _check_latents(given: Mapping[str, Any], total: int) -> None:
    latents = given.get("latents")
    if isinstance(latents, Tensor) and latents.shape[0] != total:
        raise ValueError(
            f"pipeline_kwargs['latents'] expected {total} rows, one a particle (prompts x num_particles), got "
            f"{latents.shape[0]}; give each particle noise of its own, or omit it."
        )


def _check_adapter(name: str, count: int, batched: Mapping[str, int]) -> None:
    """IP-adapters have one set of pictures a call, which diffusers repeats for the particles of a single prompt."""
    several = next((other for other, number in batched.items() if number > 1), None)
    if count > 1 or several is not None:
        what = f"{count} prompts" if count > 1 else f"several rows of {several!r}"
        raise ValueError(
            f"pipeline_kwargs[{name!r}] expected a call with one prompt, got {what}: diffusers does not repeat it for "
            "more; steer one prompt a call (batch_size=1)."
        )

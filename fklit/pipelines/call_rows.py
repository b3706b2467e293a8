"""Arguments of a pipeline's call that have one entry a prompt, and what becomes of them with K particles a prompt."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fklit.pipelines.named import is_one_of

TEXT = re.compile(r"(negative_)?prompt(_[2-9])?")
_EMBEDDING = re.compile(
    r"(?!ip_adapter|negative_ip_adapter)(\w*embeds\w*|image_embeddings|\w*prompt\w*_mask\w*|class_labels)"
)
_PICTURES = frozenset(
    {"image", "mask_image", "control_image", "control_mask", "masked_image_latents", "image_latents", "depth_map",
     "hint", "original_image", "example_image"}
)  # fmt: skip
_VIDEOS = frozenset({"video", "control_video"})
# Their list of images is of references, or of pages, that belong to every prompt.
_SHARED_LISTS = ("Flux2", "QwenImageEditPlus", "OmniGen", "JoyImageEditPlus", "BriaFibo2", "VisualCloze")

# They spread one picture neither over prompts nor over the samples of a prompt: each sample wants one of its own.
_PICTURE_A_SAMPLE = (
    "AnimateDiffVideoToVideo", "CogVideoX", "Cosmos2VideoToWorld", "HunyuanSkyreelsImageToVideo",
    "HunyuanVideoImageToVideo", "Kandinsky3Img2Img", "KandinskyImg2ImgPipeline", "KandinskyV22ControlnetImg2Img",
    "KandinskyV22Img2ImgPipeline", "LTX2ImageToVideo", "LTXImageToVideo", "LucyEdit", "StableDiffusion3Img2Img",
    "StableDiffusion3PAGImg2Img", "StableDiffusionAdapter", "StableDiffusionLatentUpscale", "StableDiffusionUpscale",
    "StableDiffusionXLAdapter", "StableUnCLIPImg2Img",
)  # fmt: skip

# They encode one picture once, by the generator of the first sample, on which the other prompts would then depend: each
# sample gets it, and the particles of a prompt share one draw (`fklit.pipelines.shared_encoding`).
_SHARES_ENCODING = (
    "ChromaImg2Img", "FluxControlImg2Img", "FluxControlNetImg2Img", "FluxFill", "FluxImg2Img", "QwenImageImg2Img",
    "StableDiffusionInpaint", "StableDiffusionXLInpaint", "ZImageImg2Img",
)  # fmt: skip

# Neither several prompts nor several samples of one: AnimateDiff spreads control frames in another order.
_ONE_SAMPLE = ("AnimateDiffControlNet", "AnimateDiffVideoToVideoControlNet", "MotifVideoImage2Video", "WanVACE")
# As tensors they return pictures as decoded, about [-1, 1]; as arrays in [0, 1], as all others do.
_RAW_TENSORS = (
    "IF", "Kandinsky3", "KandinskyCombined", "KandinskyImg2Img", "KandinskyInpaint", "KandinskyPipeline",
    "KandinskyV22", "PRXPixel",
)  # fmt: skip
_ONE_PROMPT = ("DreamLite", "QwenImageEditPlus")
# They draw the encoding of their picture by the global generator, all samples of a call at once.
_GLOBAL_DRAW = ("CogView4Control",)
# They put the prompt into a sentence as it is, a list of one with its brackets.
_ONE_TEXT = ("DreamLite", "WanVACE")
# They encode one empty text where no negative prompt is given, whatever the number of prompts.
_NEGATIVE_A_PROMPT = ("LongCatImage",)


def is_embedding(name: str) -> bool:
    """Whether an argument holds embeddings, their masks, or class labels: one row a prompt."""
    return _EMBEDDING.fullmatch(name) is not None and "llama3" not in name  # whose first axis is layers


def rows_of_argument(pipeline: Any, name: str, value: Any) -> int | None:
    """Return the entries of an argument of the call that may have one a prompt; None if it belongs to all prompts.

    Args:
        pipeline: a diffusers pipeline.
        name: of the argument.
        value: what is passed.
    """
    if value is not None and name in _VIDEOS:
        return _rows_of_videos(value)
    if value is None or not (is_embedding(name) or name in _PICTURES):
        return None
    if isinstance(value, Tensor | np.ndarray):
        batched = value.ndim > 0 if is_embedding(name) else value.ndim == 4
        return int(value.shape[0]) if batched else None
    if not isinstance(value, list | tuple) or (name in _PICTURES and _is_shared_list(pipeline, name, value)):
        return None
    return len(value)


def shares_encoding(pipeline: Any, given: Mapping[str, Any]) -> bool:
    """Whether a call has one picture, of which each prompt's particles share one encoding."""
    if not is_one_of(pipeline, _SHARES_ENCODING):
        return False
    counts = [rows_of_argument(pipeline, name, given[name]) for name in _PICTURES & given.keys()]
    return all(count in (None, 1) for count in counts)


def returns_raw_tensors(pipeline: Any) -> bool:
    """Whether the pipeline's tensors are not in [0, 1], while its arrays are."""
    return is_one_of(pipeline, _RAW_TENSORS)


def takes_one_prompt(pipeline: Any) -> bool:
    """Whether a call of the pipeline may have one prompt only."""
    return is_one_of(pipeline, _ONE_PROMPT)


def draws_globally(pipeline: Any) -> bool:
    """Whether the samples of a prompt depend on the others of the call by the global generator."""
    return is_one_of(pipeline, _GLOBAL_DRAW)


def takes_bare_text(pipeline: Any) -> bool:
    """Whether the pipeline takes its one prompt as a text only, not in a list."""
    return is_one_of(pipeline, _ONE_TEXT)


def makes_one_sample(pipeline: Any) -> bool:
    """Whether a call of the pipeline makes one sample only."""
    return is_one_of(pipeline, _ONE_SAMPLE)


def needs_negative_prompts(pipeline: Any) -> bool:
    """Whether the pipeline wants a negative prompt for each prompt, and makes none itself."""
    return is_one_of(pipeline, _NEGATIVE_A_PROMPT)


def pictures_a_sample(pipeline: Any, given: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the pictures of a call that the pipeline does not spread itself, each with an axis or list of rows.

    Args:
        pipeline: a diffusers pipeline.
        given: arguments of its call.
        count: B, prompts of the call.
    """
    # With one prompt the pipeline's own way is right, and rounds by the batch of one that it encodes.
    shares = count > 1 and shares_encoding(pipeline, given)
    if not (shares or is_one_of(pipeline, _PICTURE_A_SAMPLE)):
        return {}
    found = {}
    for name in (_PICTURES | _VIDEOS) & given.keys():
        value = given[name]
        if name in _VIDEOS and value is not None:
            found[name] = value if _rows_of_videos(value) is not None else _one_video(value)
            continue
        if value is None or (isinstance(value, list | tuple) and _is_shared_list(pipeline, name, value)):
            continue
        single = not isinstance(value, list | tuple) and getattr(value, "ndim", 3) == 3  # also a PIL picture
        found[name] = [value] if single else value
    return found


def count_prompts(pipeline: Any, pipeline_kwargs: Mapping[str, Any]) -> int:
    """Return how many prompts a call without prompts has, from its embeddings, class labels or pictures; 1 if none."""
    found = [rows_of_argument(pipeline, name, value) for name, value in pipeline_kwargs.items()]
    return max([rows for rows in found if rows is not None], default=1) or 1


def repeated(name: str, value: Any, count: int, num_particles: int) -> Any:
    """Return an argument with one entry a particle, those of a prompt side by side.

    Args:
        name: of the argument.
        value: with 1, B or B*K entries (a text counts as one).
        count: B.
        num_particles: K.

    Raises:
        ValueError: for another number of entries.
    """
    value = [value] if isinstance(value, str | int) else value
    rows = len(value)
    if rows == count * num_particles:
        return value
    if rows not in (1, count):
        raise wrong_number(name, rows, count, num_particles)
    copies = num_particles if rows == count else count * num_particles
    if isinstance(value, Tensor):
        return value.repeat_interleave(copies, dim=0)
    if isinstance(value, np.ndarray):
        return value.repeat(copies, axis=0)
    return [item for item in value for _ in range(copies)]


def wrong_number(name: str, rows: int, count: int, num_particles: int) -> ValueError:
    """Return the error for an argument whose entries fit neither the prompts nor the particles."""
    total = f" or {count * num_particles} (one a particle)" if num_particles > 1 else ""
    return ValueError(
        f"pipeline_kwargs[{name!r}] expected 1 entry (for all prompts), {count} (one a prompt){total}, got {rows}; "
        "give one a prompt."
    )


def _is_shared_list(pipeline: Any, name: str, value: list[Any] | tuple[Any, ...]) -> bool:
    if is_one_of(pipeline, _SHARED_LISTS):
        return True
    several = getattr(getattr(pipeline, "controlnet", None), "nets", None) or getattr(
        getattr(pipeline, "adapter", None), "adapters", None
    )
    if not several or "mask" in name:
        return False
    return not isinstance(value[0] if value else None, list | tuple)  # one picture a network, for every prompt


def _rows_of_videos(value: Any) -> int | None:
    """The number of videos, of which each is a list of frames or an array (F, ...); None for a single one."""
    if isinstance(value, Tensor | np.ndarray):
        return int(value.shape[0]) if value.ndim == 5 else None
    first = value[0] if isinstance(value, list | tuple) and value else None
    several = isinstance(first, list | tuple) or getattr(first, "ndim", 3) == 4
    return len(value) if several else None


def _one_video(value: Any) -> Any:
    return value[None] if isinstance(value, Tensor | np.ndarray) else [value]

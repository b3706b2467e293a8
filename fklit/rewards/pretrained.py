"""Models of transformers, loaded whole or not at all, and their image processors on tensors with gradients."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_FOLDER = "give 'owner/name' of the hub or a local folder in the format of transformers"


def load_pretrained(
    kind: Any,
    source: str,
    *,
    owner: str,
    dtype: torch.dtype | str = torch.float32,
    cache_dir: str | None = None,
    **settings: Any,
) -> Any:
    """A model of transformers in evaluation mode, every weight of which is in the checkpoint.

    transformers itself draws weights that a checkpoint lacks at random, with a warning.

    Args:
        kind: A model class of transformers, or an auto class.
        source: "owner/name" of the hub, or a local folder.
        owner: The reward that asks, for messages.
        dtype: Of the weights; "auto" for that of the checkpoint.
        cache_dir: Where downloads are kept; None for the default.
        settings: More arguments of `from_pretrained`.

    Raises:
        OSError: Nothing could be loaded from there.
        ValueError: The checkpoint lacks weights, or has others.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is said below, in one line
    try:
        model, report = load_part(
            kind,
            source,
            owner=owner,
            cache_dir=cache_dir,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be named below
            **settings,
        )
    finally:
        logging.set_verbosity(verbosity)
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing:
        raise ValueError(
            f"{owner} expected the key {missing[0]!r} in the weights, got none of {len(missing)} such key(s) in "
            f"{source}; give a checkpoint of {type(model).__name__}."
        )
    if mismatched:
        name, found, wanted = mismatched[0]
        raise ValueError(
            f"{owner} expected {name!r} of shape {tuple(wanted)} in the weights, got {tuple(found)} in {source}; its "
            "config.json is of another model."
        )
    return model.eval()


def load_part(kind: Any, source: str, *, owner: str, **settings: Any) -> Any:
    """A tokenizer, image processor or configuration of transformers.

    Args:
        kind: A class of transformers, such as `AutoTokenizer`.
        source: "owner/name" of the hub, or a local folder.
        owner: The reward that asks, for messages.
        settings: More arguments of `from_pretrained`, `cache_dir` among them.

    Raises:
        OSError: There is none.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    if kind.__name__.startswith("Auto"):
        settings["trust_remote_code"] = False  # say so at once; transformers would ask, and wait for an answer
    try:
        return kind.from_pretrained(source, **settings)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, HfHubHTTPError, SafetensorError) as error:
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise OSError(
            f"{owner} expected {kind.__name__} to load {source!r}, got {type(error).__name__} ({said}); {_FOLDER}."
        ) from error


class ProcessorPreprocess(nn.Module):
    """What an image processor of transformers does to its images, on batches in [0, 1] and with gradients.

    The processor itself does the work, on tensors instead of bytes: whatever it resizes, crops and normalizes is as the
    authors of the model have published it. Overshoot of bicubic kernels is clipped as bytes would clip it.

    Args:
        source: "owner/name" of the hub, or a local folder with `preprocessor_config.json`.
        owner: The reward that asks, for messages.
        cache_dir: Where downloads are kept; None for the default.

    Raises:
        OSError: There is no image processor.
        ValueError: It works on arrays only.
    """

    def __init__(self, source: str, *, owner: str, cache_dir: str | None = None) -> None:
        from transformers import AutoImageProcessor

        super().__init__()
        self.processor = load_part(AutoImageProcessor, source, owner=owner, cache_dir=cache_dir, backend="torchvision")
        if getattr(self.processor, "backend", None) != "torchvision":
            raise ValueError(
                f"{owner} expected an image processor that takes tensors, got {type(self.processor).__name__} of "
                f"{source}, which takes arrays only; choose another model."
            )
        self.processor.resize = functools.partial(_resize_and_clip, self.processor.resize)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Images in [0, 1] to what the model takes, in float32."""
        # Processors divide by 255, some in ways of their own, so they get what they expect: values of 0 to 255.
        if torch.is_inference_mode_enabled():
            # They keep mean and deviation of their first call, which must not be tensors without a gradient.
            with torch.inference_mode(False), torch.no_grad():
                return self._process(images.float() * 255)
        return self._process(images.float() * 255)

    def _process(self, images: Tensor) -> Tensor:
        given = self.processor(images=images, return_tensors="pt", input_data_format="channels_first")
        pixels: Tensor = given["pixel_values"]
        return pixels


def _resize_and_clip(resize: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    return resize(*args, **kwargs).clamp(0, 255)

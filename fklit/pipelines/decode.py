"""From a pipeline's latents to images in [0, 1], as the pipeline itself decodes them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.families import family_name
from fklit.pipelines.microbatch import call_in_chunks

# They fail for more than one video at a time.
_DECODE_ONE = ("AutoencoderKLAllegro", "AutoencoderKLHunyuanVideo15")
_DIRECT_FLOWS = ("StableDiffusion3", "AuraFlow", "Lumina", "ZImage")


class UndecodableError(ValueError):
    """fklit does not know how this pipeline turns its latents into images."""


def decodes_directly(pipeline: Any, latents: Tensor) -> bool:
    """Return whether `decode_latents` knows how this pipeline decodes: the autoencoder sees its latents only scaled.

    Args:
        pipeline: a diffusers pipeline.
        latents: as the scheduler holds them.
    """
    vae = getattr(pipeline, "vae", None)
    if latents.ndim != 4 or getattr(pipeline, "runs_blocks", False):  # which decode as they like
        return False
    if vae is None:
        return True
    if family_name(getattr(pipeline, "scheduler", None)) == "flow":  # others crop, or shift otherwise
        return type(pipeline).__name__.startswith(_DIRECT_FLOWS)
    return vae.config.get("scaling_factor") is not None


def decode_latents(pipeline: Any, latents: Tensor, *, gradient: bool = False) -> Tensor:
    """Decodes latents the way the pipeline does at its end; equal to it bit for bit at the same batch size.

    Args:
        pipeline: a diffusers pipeline with an image autoencoder (`vae` with `scaling_factor` and optionally
            `shift_factor` or `latents_mean` and `latents_std`), or without one (pixel space).
        latents: latents or pixels of shape (N, C, H, W), as the scheduler holds them.
        gradient: whether gradients go through, as the current mode has it; none do without.

    Returns:
        Images (N, 3, height, width), float32, in [0, 1]; NaN where the decoder returned NaN or an infinity.

    Raises:
        UndecodableError: if the latents are not (N, C, H, W), or the autoencoder is of an unknown kind.
    """
    vae = getattr(pipeline, "vae", None)
    if latents.ndim != 4:
        raise UndecodableError(
            f"{type(pipeline).__name__} steps latents of shape {tuple(latents.shape)}, which fklit cannot decode; "
            "pass decode=, a function from latents to images in [0, 1]."
        )
    with nullcontext() if gradient else torch.no_grad():
        if vae is None:
            images = _without_vae(pipeline, latents)
        else:
            with _upcast(pipeline, vae):
                dtype = _decoder_dtype(vae, latents)
                images = vae.decode(_unscale(vae, latents.to(dtype)), return_dict=False)[0]
        images = images.float() / 2 + 0.5
        # An infinity would clamp to white and look like a picture.
        return torch.where(torch.isfinite(images), images.clamp(0, 1), torch.nan)


def _without_vae(pipeline: Any, latents: Tensor) -> Tensor:
    """What pipelines with a quantizing autoencoder make of latents, or pixels as they are."""
    movq, vqvae = (getattr(pipeline, name, None) for name in ("movq", "vqvae"))
    if movq is not None:  # Kandinsky
        found: Tensor = movq.decode(latents.to(movq.dtype), force_not_quantize=True, return_dict=False)[0]
        return found
    if vqvae is None:
        return latents
    if type(pipeline).__name__.startswith("LDMTextToImage"):
        latents = 1 / vqvae.config.scaling_factor * latents
    found = vqvae.decode(latents.to(vqvae.dtype), return_dict=False)[0]
    return found


def _unscale(vae: Any, latents: Tensor) -> Tensor:
    config = vae.config
    scale = config.get("scaling_factor")
    if scale is None:
        raise UndecodableError(
            f"{type(vae).__name__} has no scaling_factor, so fklit cannot decode its latents; "
            "pass decode=, a function from latents to images in [0, 1]."
        )
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(latents.device, latents.dtype) for v in (mean, std))
        denormalized: Tensor = latents * std / scale + mean
        return denormalized
    latents = latents / scale
    return latents + config["shift_factor"] if config.get("shift_factor") else latents


def _decoder_dtype(vae: Any, latents: Tensor) -> torch.dtype:
    dtype = getattr(vae, "dtype", latents.dtype)
    return dtype if isinstance(dtype, torch.dtype) else latents.dtype


@contextmanager
def _upcast(pipeline: Any, vae: Any) -> Iterator[None]:
    """SDXL's autoencoder overflows in float16; its pipelines decode in float32 and cast back."""
    if vae.dtype != torch.float16 or not vae.config.get("force_upcast", False) or not hasattr(pipeline, "upcast_vae"):
        yield
        return
    vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        vae.to(dtype=torch.float16)


def restore_attribute(target: Any, name: str, own: Any) -> None:
    """Put back an attribute of an instance: what it had of its own, or None for its class's."""
    if own is None:
        delattr(target, name)
    else:
        setattr(target, name, own)


class DecodeTap:
    """Counts and splits a pipeline's `vae.decode` calls for the length of a context, and keeps the last result.

    Attributes:
        decodes: images decoded so far.
        last: what the last call returned, (N, 3, H, W) in [-1, 1]; at the end of a run the images of the pipeline
            before a safety checker or a watermark touches them. None before the first call.
    """

    def __init__(self, pipeline: Any, *, max_batch: int | None) -> None:
        self.decodes = 0
        self.last: Tensor | None = None
        self._vae = getattr(pipeline, "vae", None)
        self._max_batch = 1 if type(self._vae).__name__ in _DECODE_ONE else max_batch
        self._keeps_copy = getattr(pipeline, "safety_checker", None) is not None or hasattr(
            pipeline, "run_safety_checker"
        )

    @contextmanager
    def installed(self) -> Iterator["DecodeTap"]:
        """Stands in front of `vae.decode` within the context; does nothing for a pipeline without autoencoder."""
        with self._replaced() if hasattr(self._vae, "decode") else nullcontext():
            yield self

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        vae: Any = self._vae
        original, own = vae.decode, vae.__dict__.get("decode")

        def decode(z: Tensor, *args: Any, **kwargs: Any) -> Any:
            rows = z.shape[0]
            if self._max_batch is None:
                result = original(z, *args, **kwargs)
            else:
                result = call_in_chunks(original, (z, *args), kwargs, rows=rows, size=self._max_batch)
            self.decodes += rows
            # The safety checker of diffusers blackens what it flags in place.
            self.last = result[0].detach().clone() if self._keeps_copy else result[0].detach()
            return result

        vae.decode = decode
        try:
            yield
        finally:
            if vae.__dict__.get("decode") is decode:
                restore_attribute(vae, "decode", own)

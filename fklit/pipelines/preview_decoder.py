"""Cheaper decoding of the predictions that are scored on the way: another decoder stands in for the autoencoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.decode import restore_attribute
from fklit.pipelines.microbatch import call_in_chunks

Decode = Callable[[Tensor], Tensor]
"""From what an autoencoder's `decode` takes, (N, C, ...), to pictures in [-1, 1], (N, 3, ...)."""


class UnfitPreviewError(ValueError):
    """This preview decoder cannot stand in for this pipeline's autoencoder."""


class PreviewDecoder(ABC):
    """Decodes denoised predictions for the scores on the way, for less than the pipeline's autoencoder takes.

    Finished samples are always decoded by the pipeline itself, and the weights are closed by their rewards: the target
    is the same with any preview decoder, only the variance of the weights depends on how well it agrees
    (`fklit.steering.preview_agreement`). Of your own: subclass it, and name the class in `preview_decoder`.
    """

    @abstractmethod
    def prepare(self, vae: Any, full: Decode) -> Decode:
        """Return the function that decodes in place of `vae.decode` during one run.

        Args:
            vae: the pipeline's autoencoder, which must stay as it is.
            full: its own `decode`, counted and split as in the run.

        Raises:
            UnfitPreviewError: the two do not fit.
        """


class PreviewTap:
    """Puts a preview decoder in the place of a pipeline's `vae.decode`, and counts what it decodes.

    Args:
        pipeline: a diffusers pipeline with an autoencoder.
        decoder: the preview decoder.
        max_batch: most rows decoded at once, in chunks of exactly this size; None for no limit.

    Attributes:
        decodes: rows decoded so far.

    Raises:
        UnfitPreviewError: the pipeline has no autoencoder.
    """

    def __init__(self, pipeline: Any, decoder: PreviewDecoder, *, max_batch: int | None) -> None:
        self._vae = getattr(pipeline, "vae", None)
        self._name = type(pipeline).__name__
        if not hasattr(self._vae, "decode"):
            raise UnfitPreviewError(
                f"preview_decoder expected a pipeline with an autoencoder (vae), got {self._name} without; omit it."
            )
        self.decodes = 0
        self._decoder = decoder
        self._max_batch = max_batch
        self._preview: Decode | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stands in for `vae.decode` within the context.

        Raises:
            UnfitPreviewError: nothing was decoded by the autoencoder within it.
        """
        vae: Any = self._vae
        own, full, before = vae.__dict__.get("decode"), vae.decode, self.decodes
        if self._preview is None:
            self._preview = _checked(self._decoder.prepare(vae, lambda z: full(z, return_dict=False)[0]))
        preview = self._preview

        def decode(z: Tensor, *args: Any, **kwargs: Any) -> Any:
            rows = z.shape[0]
            if self._max_batch is None:
                found = preview(z)
            else:
                found = call_in_chunks(preview, (z,), {}, rows=rows, size=self._max_batch)
            self.decodes += rows
            return _Decoded((found.to(z.dtype),))

        vae.decode = decode
        try:
            yield
        finally:
            if vae.__dict__.get("decode") is decode:
                restore_attribute(vae, "decode", own)
        if self.decodes == before:
            raise UnfitPreviewError(
                f"preview_decoder expected {self._name} to decode by its vae, got a picture without; omit it."
            )


class _Decoded(tuple[Tensor, ...]):
    """What `vae.decode` returns, as a tuple and by name."""

    @property
    def sample(self) -> Tensor:
        return self[0]


def _checked(preview: Decode) -> Decode:
    """The preview decoder, whose pictures must be as many as the latents."""

    def call(rows: Tensor) -> Tensor:
        found = preview(rows)
        if not isinstance(found, Tensor) or found.shape[:1] != rows.shape[:1]:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UnfitPreviewError(
                f"preview_decoder expected pictures of {rows.shape[0]} latents, got {shape}; return one a row."
            )
        return found

    return call


def scheduler_latents(vae: Any, z: Tensor) -> Tensor:
    """Return latents as the scheduler holds them, from `z` as the autoencoder decodes it: unscaled, (N, C, ...).

    Args:
        vae: an autoencoder with `scaling_factor`, and optionally `shift_factor` or `latents_mean` and `latents_std`.
        z: what its `decode` takes.

    Raises:
        UnfitPreviewError: the autoencoder has none of them.
    """
    config = vae.config
    scale, mean, std = config.get("scaling_factor"), config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        shape = (1, -1, *[1] * (z.ndim - 2))
        mean, std = (torch.tensor(v).view(shape).to(z.device, z.dtype) for v in (mean, std))
        normalized: Tensor = (z - mean) / std * (1.0 if scale is None else scale)
        return normalized
    if scale is None:
        raise UnfitPreviewError(
            f"preview_decoder expected an autoencoder with scaling_factor, got {type(vae).__name__} without; omit it."
        )
    scaled: Tensor = (z - (config.get("shift_factor") or 0.0)) * scale
    return scaled

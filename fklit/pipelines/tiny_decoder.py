"""A distilled autoencoder (TAESD and its relatives) for the scores on the way."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fklit import assets
from fklit.pipelines.preview_decoder import Decode, PreviewDecoder, UnfitPreviewError, scheduler_latents

LEAST_CORRELATION = 0.8
"""Of the pixels of one picture by both decoders, below which a tiny decoder is said to belong to another model."""


class PreviewMismatchWarning(UserWarning):
    """A tiny decoder shows something else than the pipeline's own autoencoder."""


class TinyDecoder(PreviewDecoder):
    """An `AutoencoderTiny` of diffusers, distilled from the autoencoder of a family of models.

    `madebyollin/taesd` serves Stable Diffusion 1 and 2, `madebyollin/taesdxl` SDXL, `madebyollin/taesd3` Stable
    Diffusion 3 and 3.5, `madebyollin/taef1` FLUX.1. Configurations do not say which family a tiny decoder was made for:
    the first picture is decoded both ways, and a correlation of the pixels below 0.8 is warned of.

    Args:
        model: "owner/name" of the hub, a local folder, a model that ships ("fklit:NAME"), or an `AutoencoderTiny`.
        cache_dir: where downloads are kept; None for the default.
    """

    def __init__(self, model: Any, *, cache_dir: str | None = None) -> None:
        self.model = model
        self.cache_dir = cache_dir
        self._loaded: Any = None if isinstance(model, str | Path) else model
        self._checked = False

    def __repr__(self) -> str:
        """Return the call that makes it."""
        name = repr(self.model) if isinstance(self.model, str | Path) else type(self.model).__name__
        return f"TinyDecoder({name})"

    def prepare(self, vae: Any, full: Decode) -> Decode:
        """Load the tiny decoder and compare it with the autoencoder.

        Raises:
            UnfitPreviewError: it is no `AutoencoderTiny`, or of other channels or another size.
            OSError: it is not there, or could not be downloaded.
        """
        tiny = self._load()
        _check(tiny, vae)
        parameter = next(vae.parameters())
        # Not its own `to`, which warns of modules to be kept in float32, of which it has none
        torch.nn.Module.to(tiny, device=parameter.device, dtype=parameter.dtype)

        def decode(z: Tensor) -> Tensor:
            latents = scheduler_latents(vae, z).to(tiny.dtype)
            latents = latents / tiny.config.scaling_factor + (tiny.config.get("shift_factor") or 0.0)
            found: Tensor = tiny.decode(latents, return_dict=False)[0]
            if not self._checked:
                self._checked = True
                _compare(found[:1], full(z[:1]), self)
            return found

        return decode

    def _load(self) -> Any:
        from diffusers import AutoencoderTiny

        if self._loaded is None:
            source = assets.shipped(str(self.model)) or self.model
            loaded = AutoencoderTiny.from_pretrained(str(source), cache_dir=self.cache_dir)
            self._loaded = loaded.eval().requires_grad_(False)
        if not isinstance(self._loaded, AutoencoderTiny):
            raise UnfitPreviewError(
                f"TinyDecoder expected an AutoencoderTiny, got {type(self._loaded).__name__}; give the id or folder of "
                "one, such as 'madebyollin/taesd'."
            )
        return self._loaded


def _check(tiny: Any, vae: Any) -> None:
    """Compare what both configurations say of latents and pictures."""
    kind, found = type(vae).__name__, (tiny.config.latent_channels, tiny.config.out_channels)
    wanted = tuple(
        vae.config.get(name, own) for name, own in zip(("latent_channels", "out_channels"), found, strict=True)
    )
    if found != wanted:
        raise UnfitPreviewError(
            f"TinyDecoder expected latents and pictures of {wanted[0]} and {wanted[1]} channels, as {kind} has them, "
            f"got {found[0]} and {found[1]}; give the tiny autoencoder of this family."
        )
    blocks = vae.config.get("block_out_channels")
    factor = 2 ** (len(tiny.config.decoder_block_out_channels) - 1)
    if blocks is not None and factor != 2 ** (len(blocks) - 1):
        raise UnfitPreviewError(
            f"TinyDecoder expected pictures {2 ** (len(blocks) - 1)} times as wide as their latents, as {kind} makes "
            f"them, got {factor} times; give the tiny autoencoder of this family."
        )


def _compare(preview: Tensor, full: Tensor, decoder: TinyDecoder) -> None:
    """Warn if one picture looks different."""
    both = torch.stack([preview.float().flatten(), full.float().flatten()])
    correlation = float(torch.corrcoef(both)[0, 1])
    if correlation < LEAST_CORRELATION:
        warnings.warn(
            f"expected {decoder!r} to show what the pipeline's autoencoder shows, got pixels of correlation "
            f"{correlation:.2f} in the first picture; give the tiny autoencoder of this family (samples stay exact).",
            PreviewMismatchWarning,
            stacklevel=2,
        )

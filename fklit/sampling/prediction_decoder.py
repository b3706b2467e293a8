"""From denoised predictions to what a reward takes: by the user's function, the pipeline, or a preview decoder."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fklit.pipelines.decode import decode_latents, decodes_directly
from fklit.pipelines.modality import Modality
from fklit.pipelines.preview_decoder import PreviewDecoder, PreviewTap
from fklit.pipelines.replay import PipelineReplay
from fklit.pipelines.samples import as_samples


class PredictionDecoder:
    """Decodes the predictions of one run.

    Args:
        pipeline: decodes what the user's function does not.
        decode: the user's function from latents to samples, or None.
        preview: stands in for the pipeline's autoencoder, or None.
        modality: what the pipeline makes.
        at_once: most samples decoded at once; None for no limit, and for one video.

    Attributes:
        replay: decodes what only the pipeline itself can.
        decodes: rows that the user's function got so far; the pipeline's own decoder counts for itself.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        decode: Callable[[Tensor], Tensor] | None,
        preview: PreviewDecoder | None,
        modality: Modality,
        at_once: int | None,
    ) -> None:
        self.replay = PipelineReplay(pipeline)
        self.decodes = 0
        self._pipeline, self._decode, self._modality, self._at_once = pipeline, decode, modality, at_once
        self._tap = None if preview is None else PreviewTap(pipeline, preview, max_batch=at_once)

    @property
    def preview_decodes(self) -> int:
        """Rows decoded by the preview decoder so far."""
        return 0 if self._tap is None else self._tap.decodes

    @property
    def kind(self) -> Any:
        """What decodes, for messages."""
        return self._pipeline if self._decode is not None else getattr(self._pipeline, "vae", self._pipeline)

    def __call__(self, latents: Tensor, *, gradient: bool = False) -> Tensor:
        """Return samples (N, ...) of denoised latents (N, ...).

        Args:
            latents: denoised predictions.
            gradient: whether gradients go through; then the pipeline's own autoencoder decodes.
        """
        if self._tap is None or gradient:
            return self._decoded(latents, gradient=gradient)
        with self._tap.installed():
            return self._decoded(latents, gradient=False)

    def takes_some(self, latents: Tensor) -> bool:
        """Return whether a part of the samples of the run can be decoded by itself."""
        return self._decode is not None or (self._modality == "image" and decodes_directly(self._pipeline, latents))

    def _decoded(self, latents: Tensor, *, gradient: bool) -> Tensor:
        count = latents.shape[0]
        if self._decode is not None:
            self.decodes += count
            return as_samples(self._decode(latents), count, self._modality, gradient=gradient)
        if self._modality == "image" and decodes_directly(self._pipeline, latents):
            return decode_latents(self._pipeline, latents, gradient=gradient)
        # All particles of a video at once would take more memory than the denoiser.
        at_once = self._at_once or (1 if self._modality == "video" else None)
        found = self.replay.decode(latents, at_once=at_once, gradient=gradient)
        return as_samples(found, count, self._modality, gradient=gradient)

"""One encoding of a picture for all particles of a prompt, drawn by the generator of that prompt.

Image-to-image pipelines encode one picture once, drawing from the autoencoder's posterior by the generator of the
first sample: with several prompts, the others would depend on the first. fklit gives such a pipeline the picture once
a sample (`fklit.pipelines.call_rows.pictures_a_sample`), and here each prompt's particles share one draw. The samples
of a prompt are then those of the pipeline's own call with this prompt alone and one picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.decode import restore_attribute


@contextmanager
def shared_encodings(pipeline: Any) -> Iterator[None]:
    """Let draws from equal posteriors by one generator be one draw, within the context.

    Args:
        pipeline: a diffusers pipeline with an autoencoder as `vae`.
    """
    vae = pipeline.vae
    original, own = vae.encode, vae.__dict__.get("encode")
    drawn: list[tuple[torch.Generator, Tensor, Tensor]] = []

    def encode(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        posterior = getattr(output, "latent_dist", None)
        if posterior is not None:
            output.latent_dist = _SharedPosterior(posterior, drawn)
        return output

    vae.encode = encode
    try:
        yield
    finally:
        if vae.__dict__.get("encode") is encode:
            restore_attribute(vae, "encode", own)


class _SharedPosterior:
    """A posterior that draws once for each generator and mean; all else is its own."""

    def __init__(self, posterior: Any, drawn: list[tuple[torch.Generator, Tensor, Tensor]]) -> None:
        self._posterior, self._drawn = posterior, drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._posterior, name)

    def sample(self, generator: Any = None) -> Tensor:
        mean: Tensor = self._posterior.mean
        if isinstance(generator, list) and len(generator) == mean.shape[0]:
            parameters = self._posterior.parameters
            rows = [type(self._posterior)(parameters[i : i + 1]) for i in range(mean.shape[0])]
            draws = [
                _SharedPosterior(row, self._drawn).sample(source) for row, source in zip(rows, generator, strict=True)
            ]
            return torch.cat(draws)
        for source, known, draw in self._drawn:
            if source is generator and known.shape == mean.shape and torch.equal(known, mean):
                return draw.clone()
        found: Tensor = self._posterior.sample(generator)
        if isinstance(generator, torch.Generator):
            self._drawn.append((generator, mean, found.clone()))
        return found

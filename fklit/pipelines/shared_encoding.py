"""One encoding of a picture for all particles of a prompt, drawn by the generator of that prompt.

Image-to-image pipelines encode one picture once, drawing from the autoencoder's posterior by the generator of the
first sample: with several prompts, the others would depend on the first. fklit gives such a pipeline the picture once
a sample (`fklit.pipelines.call_rows.pictures_a_sample`), and here each prompt's particles share one draw. The samples
of a prompt are then those of the pipeline's own call with this prompt alone and one picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fklit.pipelines.decode import restore_attribute


@contextmanager
def shared_encodings(pipeline: Any, group_size: int) -> Iterator[None]:
    """Let draws from equal posteriors by one generator be one draw, within the context.

    Args:
        pipeline: a diffusers pipeline with an autoencoder as `vae`.
        group_size: K, rows that share a draw; the next of that posterior is a draw of its own, as a second picture may
            be equal to the first.
    """
    vae = pipeline.vae
    original, own = vae.encode, vae.__dict__.get("encode")
    drawn: list[_Draw] = []
    # FLUX Fill hands over all generators at once; others do so for control images, which they give each sample anyway.
    lists = type(pipeline).__name__.startswith("FluxFill")

    def encode(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        posterior = getattr(output, "latent_dist", None)
        if posterior is not None:
            output.latent_dist = _SharedPosterior(posterior, drawn, group_size, lists)
        return output

    vae.encode = encode
    try:
        yield
    finally:
        if vae.__dict__.get("encode") is encode:
            restore_attribute(vae, "encode", own)


@dataclass
class _Draw:
    """A draw, by which generator from which posterior, and for how many more rows it stands."""

    generator: torch.Generator
    mean: Tensor
    value: Tensor
    rows_left: int


class _SharedPosterior:
    """A posterior that draws once for each generator and mean; all else is its own."""

    def __init__(self, posterior: Any, drawn: list[_Draw], group_size: int, lists: bool) -> None:
        self._posterior, self._drawn, self._group_size, self._lists = posterior, drawn, group_size, lists

    def __getattr__(self, name: str) -> Any:
        return getattr(self._posterior, name)

    def sample(self, generator: Any = None) -> Tensor:
        mean: Tensor = self._posterior.mean
        if self._lists and isinstance(generator, list) and len(generator) == mean.shape[0]:
            parameters = self._posterior.parameters
            rows = [type(self._posterior)(parameters[i : i + 1]) for i in range(mean.shape[0])]
            draws = [
                _SharedPosterior(row, self._drawn, self._group_size, lists=False).sample(source)
                for row, source in zip(rows, generator, strict=True)
            ]
            return torch.cat(draws)
        for draw in self._drawn:
            same = draw.generator is generator and draw.mean.shape == mean.shape
            if same and draw.rows_left > 0 and torch.equal(draw.mean, mean):
                draw.rows_left -= 1
                return draw.value.clone()
        found: Tensor = self._posterior.sample(generator)
        if isinstance(generator, torch.Generator):
            self._drawn.append(_Draw(generator, mean, found.clone(), self._group_size - 1))
        return found

"""NaN and infinities, named where they arise."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

_CURES = {
    "call": "give finite latents",
    "denoiser": "run it in float32 or bfloat16 (float16 overflows in some networks), or lower the guidance scale",
    "scheduler": "use another one, for example DDIM with eta below 1 on a model with zero terminal SNR",
    "decoder": "run it in float32 (`pipeline.vae.to(torch.float32)`): SDXL's autoencoder overflows in float16",
}


class NonFiniteError(ValueError):
    """A network, a scheduler or a decoder returned NaN or an infinity."""


def finite_rows(values: Tensor) -> Bool[Tensor, " N"]:
    """Return which rows of a tensor (N, ...) hold finite numbers only."""
    return torch.isfinite(values).flatten(1).all(dim=1)


def check_finite(values: Tensor, part: str, kind: Any, *, where: str, name: Callable[[int], str]) -> None:
    """Raise unless all values are finite.

    Args:
        values: (N, ...).
        part: "call" (the first latents), "denoiser", "scheduler" or "decoder".
        kind: the object that made them, named by its class.
        where: names the moment, such as "at step 3 of 50".
        name: names a row, such as "particle 0 of prompt 'a cat'".

    Raises:
        NonFiniteError: naming part, moment, the first such row and the usual cure.
    """
    if bool(torch.isfinite(values).all()):
        return
    bad: Sequence[int] = (~finite_rows(values)).nonzero().flatten().tolist()
    raise NonFiniteError(
        f"{where} the {part} ({type(kind).__name__}) returned NaN or infinities for {name(bad[0])} ({len(bad)} of "
        f"{values.shape[0]} samples); {_CURES[part]}, or set on_nan='drop' to drop such particles."
    )

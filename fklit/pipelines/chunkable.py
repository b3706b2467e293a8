"""Denoisers whose rows cannot be evaluated in chunks, since the rows of a call belong together."""

from typing import Any

from torch import Tensor, nn

from fklit.pipelines.microbatch import is_list_of_tensors


def why_not_in_chunks(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], rows: int) -> str | None:
    """Return what keeps the rows of a call together, for messages; None if nothing does.

    Args:
        module: the denoiser.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        rows: of the whole batch.
    """
    kind = type(module).__name__
    if is_list_of_tensors(next(iter((*args, *kwargs.values())), None)):
        return f"{kind}, which takes lists of samples and evaluates each by itself"
    processors = getattr(module, "attn_processors", None) or {}
    perturbed = sorted({type(item).__name__ for item in processors.values() if type(item).__name__.startswith("PAG")})
    if perturbed:
        return (
            f"{kind} with {perturbed[0]}, which tells rows with perturbed attention by their place in the whole batch"
        )
    text = kwargs.get("encoder_hidden_states")
    if isinstance(text, Tensor) and text.shape[0] > rows and text.shape[0] % rows == 0:
        return f"{kind}, whose text has {text.shape[0] // rows} entries a row, one for each frame"
    return None

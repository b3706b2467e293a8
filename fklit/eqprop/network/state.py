"""States of a network: one tensor for each layer, samples first, and how rows of them are picked and repeated.

A *split* state holds complex numbers as two real halves stacked along the samples: the first half of the rows is the
real part, the second the imaginary one. Linear maps then need no change and no complex kernels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""Activities, one tensor `(rows, *shape)` for each layer, in the network's order."""


def repeat_rows(state: Sequence[Tensor], times: int) -> State:
    """Stack `times` copies of a state along the samples: copy after copy, each in the original order."""
    return tuple(torch.cat([part] * times) for part in state)  # repeat() would change the memory format


def pick_rows(state: Sequence[Tensor], index: Tensor) -> State:
    """Pick rows of every layer."""
    return tuple(part[index] for part in state)  # index_select() would change the memory format


def fill_layers(products: Mapping[int, Tensor], like: Sequence[Tensor]) -> State:
    """A whole state from tensors for some layers, by place; the others are zero."""
    return tuple(products.get(i, torch.zeros_like(part)) for i, part in enumerate(like))


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """View one value per row so that it broadcasts over `like` of shape `(rows, *shape)`."""
    return values.view(-1, *[1] * (like.dim() - 1))


def row_norms(state: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each row over all layers, `(rows,)`."""
    return torch.stack([part.flatten(1).square().sum(1) for part in state]).sum(0).sqrt()


def row_dots(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner product of each row of two real states over all layers, `(rows,)`."""
    return torch.stack([(a * b).flatten(1).sum(1) for a, b in zip(left, right, strict=True)]).sum(0)


def zero_rows(rows: Tensor, values: Tensor) -> Tensor:
    """Set rows to zero, whatever was there; multiplying by 0 would keep NaN."""
    return torch.where(per_row(rows, values), 0.0, values)


def scale_rows(state: Sequence[Tensor], factors: Tensor) -> State:
    """Multiply each row of every layer by its factor."""
    return tuple(part * per_row(factors, part) for part in state)


def halves(stacked: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary half of a split tensor."""
    real, imaginary = stacked.chunk(2, 0)
    return real, imaginary


def split_complex(values: Tensor) -> Tensor:
    """Turn a complex tensor `(rows, ...)` into a split one `(2 rows, ...)`."""
    return torch.cat([values.real, values.imag])


def join_complex(stacked: Tensor) -> Tensor:
    """Turn a split tensor `(2 rows, ...)` into a complex one `(rows, ...)`."""
    return torch.complex(*halves(stacked))

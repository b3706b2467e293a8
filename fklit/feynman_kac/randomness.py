"""Random numbers that belong to a group.

With one generator a group, a group's draws do not depend on its neighbors, on their number, or on their order.
"""

import hashlib
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.feynman_kac.checks import check_count

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for all groups, one for each, or None for torch's global one."""


def group_generators(
    seed: int,
    groups: int | Iterable[int],
    *,
    stream: str = "noise",
    device: torch.device | str = "cpu",
) -> list[torch.Generator]:
    """Return one generator a group, each a function of `(seed, group index, stream)` alone.

    Args:
        seed: any integer.
        groups: the number of groups, or their indices (for the shard of a larger run).
        stream: what the draws are for ("noise", "resampling", ...); streams are independent of each other.
        device: where the generators draw.
    """
    indices = range(check_count("groups", groups)) if isinstance(groups, int | Integral) else groups
    generators = []
    for index in indices:
        # A hash, not seed + index: neighboring seeds must not share the streams of neighboring groups. The CPU's
        # generator keeps only the low 32 bits of a seed.
        digest = hashlib.sha256(f"{seed}:{index}:{stream}".encode()).digest()
        generators.append(torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big")))
    return generators


def check_generators(generators: Generators, num_groups: int) -> Generators:
    """Return `generators` (a sequence as a list) after checking that there is one, or one for each group.

    Raises:
        TypeError: if it is neither a generator, nor a sequence of generators, nor None.
        ValueError: if the sequence's length is not `num_groups`.
    """
    if generators is None or isinstance(generators, torch.Generator):
        return generators
    if not isinstance(generators, Sequence) or not all(isinstance(item, torch.Generator) for item in generators):
        raise TypeError(
            f"generator is a {type(generators).__name__}; give a torch.Generator, a list with one for each group, "
            "or None."
        )
    if len(generators) != num_groups:
        raise ValueError(
            f"expected {num_groups} generators, one a group, got {len(generators)}; give one for each group, or a "
            "single one."
        )
    return list(generators)


def uniforms(
    generators: Generators, shape: Sequence[int], *, device: torch.device | None = None
) -> Float[Tensor, "..."]:
    """Return float64 uniforms in [0, 1) of `shape` = (B, ...), drawn where the generators live, moved to `device`."""
    return _draw("uniform", generators, shape, torch.float64, device)


def normals(
    generators: Generators,
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, "..."]:
    """Return standard normals of `shape` = (B, ...), drawn on the generators' device, then moved to `device`."""
    return _draw("normal", generators, shape, dtype, device)


def _draw(
    kind: str, generators: Generators, shape: Sequence[int], dtype: torch.dtype, device: torch.device | None
) -> Tensor:
    generators = check_generators(generators, shape[0])

    def one(generator: torch.Generator | None, size: Sequence[int]) -> Tensor:
        source = torch.device("cpu") if generator is None else generator.device
        # MPS cannot draw float64; float32 uniforms are still in [0, 1).
        drawn = torch.float32 if source.type == "mps" and dtype == torch.float64 else dtype
        draw = torch.rand if kind == "uniform" else torch.randn
        values = draw(tuple(size), generator=generator, device=source, dtype=drawn)
        return values.to(source if device is None else device).to(dtype)

    if generators is None or isinstance(generators, torch.Generator):
        return one(generators, shape)
    return torch.stack([one(generator, shape[1:]) for generator in generators])

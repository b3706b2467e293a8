"""One random generator a prompt, from (seed, prompt index): draws that do not depend on batch, rank or order."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch

Stream = Literal["noise", "resampling", "selection"]


def generator_for(seed: int, index: int, *, stream: Stream = "noise") -> torch.Generator:
    """The generator of one prompt for one purpose.

    It lives on the CPU, so that the draws are the same on every device. The seed is hashed: neighbouring seeds and
    indices give unrelated streams, and the CPU generator of torch keeps only 32 bits of a seed.

    Args:
        seed: seed of the run, any integer.
        index: index of the prompt in its data set, at least 0.
        stream: what the draws are for; streams are independent of each other.

    Returns:
        A fresh generator at the start of its stream.
    """
    digest = hashlib.blake2b(f"fklit/{seed}/{index}/{stream}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def generators_for(seed: int, indices: Sequence[int], *, stream: Stream = "noise") -> list[torch.Generator]:
    """One generator a prompt, see :func:`generator_for`."""
    return [generator_for(seed, index, stream=stream) for index in indices]

"""Generators of their own for samplers that read their seed instead of drawing from them."""

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch

# Their noise is a Brownian path for each sample, a function of the seed that its generator started from.
_READ_SEEDS = frozenset({"CosineDPMSolverMultistepScheduler"})


def reads_seeds(scheduler: Any) -> bool:
    """Return whether a scheduler takes its noise from the seed of each sample's generator."""
    return any(base.__name__ in _READ_SEEDS for base in type(scheduler).__mro__)


def separate_generators(generators: Sequence[torch.Generator]) -> list[torch.Generator]:
    """Return generators of which each stands once: rows with one in common would share all their noise.

    Each follows from the seed of the one it replaces and its place among the rows that share it, so that the noise of a
    prompt depends on the seed and the index of the prompt alone.

    Args:
        generators: one a row; the particles of a prompt share an object.
    """
    places: dict[int, int] = {}
    found = []
    for source in generators:
        place = places[id(source)] = places.get(id(source), -1) + 1
        digest = hashlib.sha256(f"{source.initial_seed()}:{place}".encode()).digest()
        # 31 bits: some samplers hand the seed to NumPy.
        seed = int.from_bytes(digest[:4], "big") >> 1
        found.append(torch.Generator(source.device).manual_seed(seed))
    return found


def copied_without_noise(scheduler: Any) -> Any:
    """Return a deep copy of a scheduler that will start its Brownian paths anew: copies of these do not work."""
    paths = getattr(scheduler, "noise_sampler", None)
    return copy.deepcopy(scheduler, {} if paths is None else {id(paths): None})

"""Random numbers as a pure function of counters, so that no draw depends on order, batch, worker or process."""

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1


def random_bits(seed: int, *counters: int | npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """64 random bits for each combination of a seed and counters.

    Each counter is mixed in by the finalizer of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195).

    Args:
        seed: Of the stream, any integer.
        *counters: Integers or arrays of them (epoch, sample id, ...), broadcast against each other.

    Returns:
        Independent uniform bits, of the broadcast shape.
    """
    state = _mix(np.asarray(seed & _MASK, dtype=np.uint64))
    for counter in counters:
        words = np.asarray(counter).astype(np.int64).astype(np.uint64)
        state = _mix(np.bitwise_xor(state, _mix(words)))
    return state


def shuffled(number: int, seed: int, *counters: int) -> npt.NDArray[np.int64]:
    """A permutation of `0 .. number - 1`, the same on every machine for the same seed and counters."""
    return np.argsort(random_bits(seed, *counters, np.arange(number)), kind="stable").astype(np.int64)


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):  # arithmetic modulo 2 ** 64 is meant
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(words ^ (words >> np.uint64(31)))

"""Checks of prompts and of their indices, from which with the seed all noise follows."""

from collections.abc import Sequence


def check_prompts(prompts: Sequence[str]) -> list[str]:
    """Return B prompts as a list.

    Raises:
        ValueError: If there is none, or one is no string.
    """
    if isinstance(prompts, str):
        prompts = [prompts]
    prompts = list(prompts)
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"prompts expected at least one string ('' is allowed), got {prompts!r}; give a list.")
    return prompts


def check_indices(indices: Sequence[int] | None, count: int) -> list[int]:
    """Return the indices of `count` prompts, 0, 1, ... if none were given.

    Raises:
        ValueError: If there is not one for each, or two are alike.
    """
    indices = list(range(count)) if indices is None else list(indices)
    if len(indices) != count or len(set(indices)) != count or any(index < 0 for index in indices):
        raise ValueError(
            f"prompt_indices expected {count} different numbers of at least 0, got {indices!r}; give one a prompt."
        )
    return indices

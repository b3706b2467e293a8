"""Checks of prompts and of their indices, from which with the seed all noise follows."""

from collections.abc import Mapping, Sequence
from typing import Any

from fklit.checks import as_number


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
    given = list(range(count)) if indices is None else list(indices)
    numbers = [number for number in map(as_number, given) if isinstance(number, int) and number >= 0]
    if len(numbers) != len(given) or len(given) != count or len(set(numbers)) != count:
        raise ValueError(
            f"prompt_indices expected {count} different numbers of at least 0, got {given!r}; give one a prompt."
        )
    return numbers


def check_metadata(
    metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None, prompts: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Return what is known about each of B prompts, `{"prompt": ...}` if nothing was given.

    Raises:
        ValueError: If there is not one mapping for each.
    """
    if metadata is None:
        return [{"prompt": prompt} for prompt in prompts]
    given = [metadata] if isinstance(metadata, Mapping) else list(metadata)
    if len(given) != len(prompts) or not all(isinstance(item, Mapping) for item in given):
        raise ValueError(
            f"metadata expected {len(prompts)} mapping(s), got {given!r}; give one a prompt, such as "
            "{'prompt': 'two cats', 'count': 2}."
        )
    return given

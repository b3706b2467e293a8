"""Sequential best-of-n as rounds of whole runs, each on the prompts that are not done."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.steering.result import SteeringResult
from fklit.steering.search.sequential import SequentialBestOfN
from fklit.steering.settings import SteeringSettings

Once = Callable[[list[str], SteeringSettings, list[int], list[Mapping[str, Any]]], SteeringResult]


def run_rounds(
    once: Once,
    prompts: Sequence[str],
    settings: SteeringSettings,
    *,
    indices: Sequence[int],
    metadata: Sequence[Mapping[str, Any]],
) -> SteeringResult:
    """Draw batches until each prompt is done.

    Args:
        once: makes one batch of some prompts.
        prompts: B prompts.
        settings: with the search.
        indices: of the prompts in their data set.
        metadata: what else is known about each.

    Raises:
        ValueError: arguments of the call have a row for each prompt, which cannot leave with it.
    """
    search = settings.search
    assert isinstance(search, SequentialBestOfN)
    _check_arguments(settings, len(prompts))
    todo = list(range(len(prompts)))
    best: dict[int, tuple[SteeringResult, int]] = {}
    drawn = torch.zeros(len(prompts), dtype=torch.int64)
    budget = Budget()
    for number in range(search.most // settings.num_particles):
        chosen = replace(settings, seed=round_seed(settings.seed, number))
        found = once([prompts[b] for b in todo], chosen, [indices[b] for b in todo], [metadata[b] for b in todo])
        budget = budget + found.budget
        drawn[todo] += settings.num_particles
        rewards = found.rewards.nan_to_num(nan=-torch.inf).amax(dim=1).tolist()
        for row, b in enumerate(todo):
            if b not in best or rewards[row] > _top(*best[b]):
                best[b] = (found, row)
        todo = [b for row, b in enumerate(todo) if not rewards[row] > search.threshold]
        if not todo:
            break
    return _joined([best[b] for b in range(len(prompts))], prompts, indices, drawn, budget, settings)


def round_seed(seed: int, number: int) -> int:
    """Return the seed of a round; that of the first is the run's own, so that it is best-of-n's batch."""
    if number == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:round {number}".encode()).digest()[:6], "big")


def _top(result: SteeringResult, row: int) -> float:
    return float(result.rewards[row].nan_to_num(nan=-torch.inf).max())


def _check_arguments(settings: SteeringSettings, count: int) -> None:
    for name, value in (settings.pipeline_kwargs or {}).items():
        rows = len(value) if isinstance(value, list | tuple | Tensor) and count > 1 else 0
        if rows and rows % count == 0:
            raise ValueError(
                f"search=SequentialBestOfN expected pipeline_kwargs that are the same for all prompts, got {name!r} "
                f"with {rows} entries for {count} prompts, which cannot leave with them; give one prompt a call."
            )


def _joined(
    rows: list[tuple[SteeringResult, int]],
    prompts: Sequence[str],
    indices: Sequence[int],
    drawn: Tensor,
    budget: Budget,
    settings: SteeringSettings,
) -> SteeringResult:
    """The batches that hold the best samples, as one result."""
    first = rows[0][0]

    def stacked(name: str, dim: int = 0) -> Tensor:
        return torch.stack([getattr(result, name).select(dim, row) for result, row in rows], dim=dim)

    names = [name for name in first.terms if all(name in result.terms for result, _ in rows)]
    flagged = None
    if first.flagged is not None:
        flagged = [result.flagged[row] for result, row in rows if result.flagged is not None]
    by_group: dict[str, Any] = {
        name: stacked(name) for name in ("samples", "log_weights", "log_z", "rewards", "degenerate", "dropped")
    }
    by_step: dict[str, Any] = {name: stacked(name, 1) for name in ("ess", "ancestors", "resampled", "reward_path")}
    return replace(
        first,
        prompts=list(prompts),
        prompt_indices=list(indices),
        **by_group,
        **by_step,
        terms={name: torch.stack([result.terms[name][row] for result, row in rows]) for name in names},
        flagged=flagged,
        draws=drawn,
        budget=budget,
        settings={**first.settings, "seed": settings.seed},
    )

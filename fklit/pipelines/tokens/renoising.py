"""Exact transition probabilities of the schedulers that renoise: tokens they do not keep become random ones."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.pipelines.tokens.commits import commit_probabilities
from fklit.pipelines.tokens.drawn import DrawnLaw, drawn_law, probed


def renoising_probs(
    scheduler: Any, logits: Tensor, sample: Int64[Tensor, "n L"], timestep: int, arguments: Mapping[str, Any]
) -> Float64[Tensor, "n L V"]:
    """Return the probabilities of each position's token after a step of the predictor.

    Args:
        scheduler: With what it keeps of the n rows.
        logits: (n, L, V) of the denoiser.
        sample: Before the step.
        timestep: Of the step, counted from 0.
        arguments: Of the step, besides these.

    Raises:
        ValueError: The law of this scheduler is not known.
    """
    law = drawn_law(scheduler, logits, sample, timestep, arguments)
    kinds = {base.__name__ for base in type(scheduler).__mro__}
    if "DiscreteDDIMScheduler" in kinds:
        return _posterior(law, sample, timestep, scheduler.num_inference_steps)
    if "EntropyBoundScheduler" in kinds:
        # What is accepted follows from the entropies, whatever is drawn.
        accepted = probed(scheduler, logits, sample, timestep, arguments).accepted_index
        return torch.where(accepted[..., None], law.probs, 1 / law.probs.shape[-1])
    if "BlockRefinementScheduler" in kinds:
        return _committed(scheduler, law, sample, timestep)
    raise ValueError(
        f"expected a scheduler among BlockRefinementScheduler, DiscreteDDIMScheduler and EntropyBoundScheduler, got "
        f"{type(scheduler).__name__}, whose transition probabilities fklit does not know; use one of them."
    )


def _posterior(law: DrawnLaw, sample: Tensor, timestep: int, steps: int) -> Tensor:
    """Routes to the token drawn, to the present one and to a random one (Austin et al. 2021, arXiv:2107.03006)."""
    size = law.probs.shape[-1]
    before, after = timestep / steps, (timestep + 1) / steps  # survival probabilities of a clean token
    survival = before / after
    here = torch.zeros_like(law.probs).scatter(2, sample[..., None], 1.0)
    clean = after * (1 - survival) / size + survival * after * here
    stay, noise = survival * (1 - after) / size, (1 - survival) * (1 - after) / size
    shares = law.probs / (clean + stay + noise)
    mass = shares.sum(dim=2, keepdim=True)
    return shares * clean + stay * mass * here + noise * mass / size


def _committed(scheduler: Any, law: DrawnLaw, sample: Tensor, timestep: int) -> Tensor:
    """What is committed stays or is edited; of the others the most confident are committed, the rest is random."""
    length, size = law.probs.shape[1:]
    kept = scheduler._committed
    committed = torch.zeros_like(sample, dtype=torch.bool) if timestep == 0 or kept is None else kept
    target = -(-(timestep + 1) * length // scheduler.num_inference_steps)
    editing = scheduler.config.editing_threshold
    here = torch.zeros_like(law.probs).scatter(2, sample[..., None], 1.0)
    result = []
    for row in range(len(sample)):
        probs, confidence, closed = law.probs[row], law.confidence[row], committed[row]
        number = max(target - int(closed.sum()), 0)
        moves = commit_probabilities(probs, confidence, ~closed, number=number, threshold=scheduler.config.threshold)
        edits = torch.zeros_like(probs)
        if editing is not None:
            edits = torch.where((confidence > editing) & (here[row] == 0), probs, 0.0)
        stays = edits + (1 - edits.sum(dim=1, keepdim=True)) * here[row]
        fresh = moves + (1 - moves.sum(dim=1, keepdim=True)) / size
        result.append(torch.where(closed[:, None], stays, fresh))
    return torch.stack(result)

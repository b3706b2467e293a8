"""The gradient of a reward with respect to denoised latents, through the decoder, chunk by chunk."""

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.rewards.base import RewardError


def reward_gradient(
    latents: Tensor,
    decode: Callable[[Tensor], Tensor],
    score: Callable[[Tensor, Tensor], Tensor],
    *,
    max_batch: int | None,
    name: str,
    where: str,
) -> tuple[Float64[Tensor, " N"], Tensor]:
    """Return the rewards of latents and their gradients, whatever gradient or inference mode is on.

    Args:
        latents: (N, C, ...).
        decode: makes samples of latents, with gradients.
        score: gives scores (n,) of samples and the rows (n,) of `latents` that they are, with gradients.
        max_batch: most rows at once, padded to exactly this number; None for all.
        name: of the reward, for messages.
        where: names the moment in messages.

    Returns:
        Rewards (N,), and gradients like `latents` in float32; zeros where the reward is not finite.

    Raises:
        RewardError: the reward fails or is not differentiable, or its gradient is not finite where it is.
    """
    count = latents.shape[0]
    size = max_batch or count
    rewards, gradients = [], []
    for start in range(0, count, size):
        rows = torch.arange(start, start + size).clamp(max=count - 1)
        kept = min(size, count - start)
        with torch.inference_mode(False), torch.enable_grad():
            # A clone, as a tensor made in inference mode takes no gradient.
            chunk = latents.detach()[rows.to(latents.device)].clone().requires_grad_()
            try:
                scores = score(decode(chunk), rows)
            except RewardError as error:
                raise RewardError(f"{where}: {error}") from error
            found = torch.autograd.grad(scores.sum(), chunk, allow_unused=True)[0] if scores.requires_grad else None
        if found is None:
            raise RewardError(
                f"{where}: expected a reward that is differentiable in its samples, got {name}, whose scores have no "
                "gradient; compute them by torch operations on the tensor given, or set proposal=None."
            )
        rewards.append(scores.detach().cpu().double()[:kept])
        gradients.append(found.detach().float()[:kept])
    values, gradient = torch.cat(rewards), torch.cat(gradients)
    scored = torch.isfinite(values).to(gradient.device)
    bad = scored & ~torch.isfinite(gradient).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise RewardError(
            f"{where}: expected a finite gradient of {name}, got NaN or infinities for {int(bad.sum())} of {count} "
            "samples; smooth the reward there, or set proposal=None."
        )
    return values, torch.where(scored.reshape(-1, *[1] * (gradient.ndim - 1)), gradient, 0.0)

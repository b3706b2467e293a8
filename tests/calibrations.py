"""Calibrations of the small worlds, from samples of their base chains."""

from collections.abc import Collection

import torch
from worlds import GaussianChain, MaskedWorld

from fklit.steering.calibration import Calibration


def of_chain(
    chain: GaussianChain, *, num_prompts: int = 64, num_samples: int = 8, seed: int = 99, bounded: bool = True
) -> Calibration:
    """Scores of a chain at its scored steps; the parabola is at most 0."""
    generator = torch.Generator().manual_seed(seed)
    x, scores = chain.initial(num_prompts, num_samples, generator)["x"], []
    for t in range(chain.num_steps):
        x, alpha_bar = chain.move(x, t, generator), 0.8 ** (chain.num_steps - 1 - t)
        if t in chain.score_steps:
            predict = chain.predict or (lambda x, a: chain.reward(chain.denoised(x, a)))
            scores.append(predict(x, alpha_bar))
    return Calibration(
        scores=torch.stack(scores, dim=2),
        rewards=chain.reward(x),
        steps=chain.score_steps,
        num_steps=chain.num_steps,
        prompts=[f"prompt {number}" for number in range(num_prompts)],
        upper_bound=0.0 if bounded else None,
    )


def of_masked(world: MaskedWorld, *, num_prompts: int = 64, num_samples: int = 8, steps: Collection[int] = (0, 1, 2)):
    """Scores of the masked world's base sampler after the given steps."""
    generator = torch.Generator().manual_seed(7)
    states, scores = torch.full((num_prompts, num_samples), world.start), []
    for t, kernel in enumerate(world.kernels):
        draws = torch.multinomial(kernel[states.flatten()], 1, generator=generator)
        states = draws.reshape(states.shape)
        if t in steps:
            scores.append(world.predicted_reward[states])
    return Calibration(
        scores=torch.stack(scores, dim=2),
        rewards=world.predicted_reward[states],
        steps=sorted(steps),
        num_steps=4,
        prompts=[str(number) for number in range(num_prompts)],
        upper_bound=0.0,
    )

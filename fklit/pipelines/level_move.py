"""A move between two noise levels of one process: from a sample and its denoised prediction to a less noisy sample."""

import math

from torch import Tensor

from fklit.pipelines.transition import Transition


def move(
    sample: Tensor, denoised: Tensor, *, now: tuple[float, float], after: tuple[float, float], eta: float
) -> Transition:
    """Return the law of the sample at a lower noise level, of `x = scale x_0 + sigma e`.

    The step of DDIM (Song et al. 2021, arXiv 2010.02502, equation 12) for any scale and sigma, so also for flow
    matching and for variance-exploding processes. Given the true `x_0` the law at the new level is that of the process,
    whatever `eta`; at 1 it is the posterior `q(x_s | x_t, x_0)`, at 0 there is no noise.

    Args:
        sample: `x_t`, (N, ...), floating point.
        denoised: the prediction of `x_0`, of the same shape.
        now: scale and sigma of `sample`, sigma above 0.
        after: scale and sigma of the level wanted, a scale above 0 and less noise.
        eta: share of the noise of the posterior, in [0, 1].

    Raises:
        ValueError: the noise does not fall, or a level has no signal to move to.
    """
    (scale, sigma), (next_scale, next_sigma) = now, after
    if not (sigma > 0 and next_scale > 0 and next_sigma * scale < sigma * next_scale):
        raise ValueError(
            f"expected a noise level that falls, got scale and sigma {scale:g}, {sigma:g} and then {next_scale:g}, "
            f"{next_sigma:g}; use a scheduler whose grid falls."
        )
    # What x_t holds of x_s: x_t = ratio x_s + rest, so that var(x_s | x_t, x_0) = s^2 (1 - (ratio s / sigma)^2).
    ratio = scale / next_scale
    std = eta * next_sigma * math.sqrt(max(1 - (ratio * next_sigma / sigma) ** 2, 0.0))
    noise = (sample - scale * denoised) / sigma
    return Transition(next_scale * denoised + math.sqrt(max(next_sigma**2 - std**2, 0.0)) * noise, std)

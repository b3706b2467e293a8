"""A self-check of guided pipelines: the mutual information of prompts and samples, bounded by the prompts' entropy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.guidance.api import correct
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.sampling.prompts import check_prompts

_BARELY_GUIDED = 1.001  # at 1 pipelines evaluate no unconditional prediction


@dataclass(frozen=True)
class PromptDivergence:
    """How far the conditional laws of a pipeline are from its unconditional law, as its own predictions tell.

    Attributes:
        stepwise_kl: (T, B) float64, what each step adds for each prompt, in nats, from the noise end.
        total: (B,) float64, the estimates of `KL(p(x | prompt) || p(x))`.
        mean: their mean: the mutual information of prompts and samples, if the prompts are a fair draw.
        error: standard error of the mean, over prompts; NaN for one prompt.
    """

    stepwise_kl: Float64[Tensor, "T B"]
    total: Float64[Tensor, " B"]
    mean: float
    error: float

    def steps_within(self, entropy: float) -> int:
        """Return how many steps from the noise end the mean stays within the entropy of the prompts, in nats.

        What later steps add is certainly error of the network; `weight_schedule=Schedule(stop=steps - 1)` omits them.
        """
        return int((self.stepwise_kl.mean(dim=1).cumsum(dim=0) <= entropy).sum())


def prompt_divergence(
    pipeline: Any, prompts: str | Sequence[str], *, num_samples: int = 16, seed: int = 0, **settings: Any
) -> PromptDivergence:
    """Estimate `KL(p(x | prompt) || p(x))` from a pipeline's own predictions, noise level by noise level.

    On average over prompts this is a mutual information, which the entropy of the prompts bounds: that of a uniform
    draw among n captions is log n. A learned model's predictions part further than that at the clean end, where a small
    error of the network is divided by a small noise; there the weights of guidance are not to be trusted. The samples
    are those of the conditional law (guidance of scale 1.001, nothing weighed), so the cost is that of one plain call.

    Args:
        pipeline: see `correct`.
        prompts: B prompts, or one.
        num_samples: samples of each.
        seed: of the noise.
        settings: further arguments of `correct`, such as `pipeline_kwargs` and `max_batch`.

    Returns:
        The divergence by step and in total, in nats.

    Raises:
        UnsupportedPipelineError: if the predictions cannot be compared at every step.
        ValueError: for settings that this check makes itself.
    """
    refused = {"guidance_scale", "correction", "num_particles", "reward"} & settings.keys()
    if refused:
        raise ValueError(f"prompt_divergence expected none of {sorted(refused)}, which it sets itself; omit them.")
    run = correct(
        pipeline,
        check_prompts(prompts),
        guidance_scale=_BARELY_GUIDED,
        correction=0.0,
        num_particles=num_samples,
        seed=seed,
        **settings,
    )
    unknown = int((~run.stepwise_kl.isfinite()).any(dim=1).sum())
    if unknown:
        raise UnsupportedPipelineError(
            f"at {unknown} of {run.num_steps} steps of {type(pipeline).__name__} the predictions of guidance were not "
            "found or are not finite; use plain classifier-free guidance at every step and a scheduler whose noise "
            "levels are known (DDIM, DDPM, Euler ancestral)."
        )
    total = run.stepwise_kl.sum(dim=0)
    error = float(total.std() / len(total) ** 0.5) if len(total) > 1 else math.nan
    return PromptDivergence(run.stepwise_kl, total, float(total.mean()), error)

"""Steering in one line: ``fklit.steer(pipeline, prompt, reward=...)``."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from fklit.feynman_kac.potentials import Potential
from fklit.feynman_kac.resampling import Resampler
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Tempering
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.pipelines.call import build_call
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.rewards.base import Reward
from fklit.steering.result import SteeringResult
from fklit.steering.run import SteeringRun


def steer(
    pipeline: Any,
    prompt: str | Sequence[str] | None = None,
    *,
    reward: Reward | Callable[..., Any],
    num_particles: int = 4,
    potential: Potential | str = "difference",
    reward_scale: float | None = None,
    tempering: Tempering | None = None,
    schedule: Schedule | None = None,
    resampler: Resampler | str = "systematic",
    ess_threshold: float = 0.5,
    seed: int = 0,
    prompt_indices: Sequence[int] | None = None,
    scheduler: Literal["auto", "keep"] = "auto",
    max_batch: int | None = None,
    on_nan: OnNan = "error",
    on_degenerate: OnDegenerate = "error",
    decode: Callable[[Tensor], Tensor] | None = None,
    previews: bool = True,
    call: Mapping[str, Any] | None = None,
) -> SteeringResult:
    """Samples from ``p(x | prompt) exp(reward_scale * reward(x))`` with a pretrained diffusers pipeline.

    A population of K particles a prompt goes through the pipeline; at the scheduled steps the denoised predictions are
    scored and the particles resampled (FK steering, Singhal et al. 2025, arXiv 2501.06848, algorithm 1, with weights
    carried between resamplings). The pipeline is intercepted, not changed, and is as before afterwards, also after an
    error. With ``reward_scale=0`` or one particle the samples are the base pipeline's, bit for bit.

    Args:
        pipeline: a diffusers pipeline object of an image diffusion model.
        prompt: one prompt or B prompts; None for an unconditional pipeline (one group of particles).
        reward: a fklit reward, or a function of (images in [0, 1], prompts) that returns one number an image; higher
            is better.
        num_particles: K, samples of each prompt; cost grows in proportion.
        potential: "difference", "max", "sum", "terminal" (best-of-n and importance sampling), or a ``Potential``.
        reward_scale: at least 0; what counts is its product with the spread of the reward among a prompt's samples (1
            to 5 works, far more collapses onto one particle). None takes the reward's ``suggested_scale``.
        tempering: how the scale grows along the run; constant if not given.
        schedule: which steps score and may resample; from 0.2 to 0.8 of the run at every tenth of it if not given.
        resampler: "systematic", "multinomial", "stratified", "residual", "ssp", or a function.
        ess_threshold: fraction of K below which the effective sample size of a prompt makes it resample; in [0, 1].
        seed: seed of the run. The noise of a prompt depends on the seed and its index alone.
        prompt_indices: B indices of the prompts in their data set; 0 .. B - 1 if not given.
        scheduler: "auto" samples with a stochastic sibling of a deterministic scheduler (DDIM with eta=1 by default),
            and warns; "keep" leaves the scheduler and refuses if it would have to resample without noise.
        max_batch: most rows the denoiser, the decoder and the reward get at once, in padded chunks; None for no limit.
        on_nan: "error", or "drop": particles with NaN or +inf rewards die.
        on_degenerate: "error", or "keep": a prompt whose particles all died keeps them, and is reported.
        decode: function from latents to images in [0, 1] for pipelines whose latents fklit cannot decode.
        previews: whether to keep thumbnails of the denoised predictions.
        call: further arguments of the pipeline's call (steps, guidance scale, size, negative prompt, eta), checked
            against its signature.

    Returns:
        All particles with rewards, weights, lineages and the cost.

    Raises:
        ValueError, TypeError: for arguments that do not fit, each with a sentence that says the fix.
        RewardError: if the reward fails, naming the step.
    """
    call = dict(call or {})
    prompts = [""] if prompt is None else [prompt] if isinstance(prompt, str) else list(prompt)
    if (
        prompt is None
        and "prompt" in inspect.signature(type(pipeline).__call__).parameters
        and "prompt_embeds" not in call
    ):
        raise ValueError(
            f"no prompt was given and {type(pipeline).__name__} needs one; give a string or a list of them."
        )
    eta = call.get("eta")
    run = SteeringRun(
        pipeline,
        prompts,
        reward=reward,
        num_particles=num_particles,
        potential=potential,
        reward_scale=reward_scale,
        tempering=tempering,
        schedule=schedule,
        resampler=resampler,
        ess_threshold=ess_threshold,
        seed=seed,
        prompt_indices=prompt_indices,
        scheduler=scheduler,
        eta=None if eta is None else float(eta),
        max_batch=max_batch,
        on_nan=on_nan,
        on_degenerate=on_degenerate,
        decode=decode,
        previews=previews,
    )
    arguments = build_call(pipeline, prompts, num_particles, run.generators, call)
    with run:
        output = pipeline(**arguments)
        if not hasattr(output, "images"):
            raise UnsupportedPipelineError(
                f"{type(pipeline).__name__} returns no images but {type(output).__name__}; steer() serves image "
                "pipelines: use SteeringRun with decode= for others."
            )
    flags = getattr(output, "nsfw_content_detected", None)
    decoded = run.decoded()
    if flags is None or decoded is None or decoded.shape[0] != len(run.generators):
        return run.finish(output.images)
    # A safety checker blackens what it flags: score what was sampled, show what the pipeline returned.
    scored = pipeline.image_processor.postprocess(decoded, output_type="pt", do_denormalize=[True] * decoded.shape[0])
    return run.finish(scored, returned=output.images, flagged=list(flags))

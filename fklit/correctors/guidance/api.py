"""Correct guidance in one line: ``fklit.correct(pipeline, prompt, guidance_scale=7.5)``."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.run import GuidanceRun
from fklit.correctors.guidance.weight import GuidanceIncrement
from fklit.feynman_kac.potentials import Potential
from fklit.feynman_kac.resampling import Resampler
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.pipelines.call import build_call
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.rewards.base import Reward


def correct(
    pipeline: Any,
    prompt: str | ComposedPrompt | Sequence[str | ComposedPrompt],
    *,
    guidance_scale: float = 7.5,
    num_particles: int = 8,
    correction: float = 1.0,
    increment: GuidanceIncrement = "net_interval",
    weigh: Schedule | None = None,
    reward: Reward | Callable[..., Any] | None = None,
    reward_scale: float | None = None,
    potential: Potential | str = "difference",
    schedule: Schedule | None = None,
    resample: Schedule | None = None,
    resampler: Resampler | str = "systematic",
    ess_threshold: float = 0.9,
    seed: int = 0,
    prompt_indices: Sequence[int] | None = None,
    scheduler: Literal["auto", "keep"] = "auto",
    max_batch: int | None = None,
    on_nan: OnNan = "error",
    on_degenerate: OnDegenerate = "error",
    decode: Callable[[Tensor], Tensor] | None = None,
    call: Mapping[str, Any] | None = None,
) -> GuidanceResult:
    """Samples from ``p(x | prompt)^w p(x)^(1 - w)``, which classifier-free guidance with scale w only points at.

    The guided score is the score of that product at no noise level but the last; the samples of the heuristic have
    another law, whatever the number of steps. Feynman-Kac correctors (Skreta et al. 2025, arXiv 2503.02819,
    proposition 3.1) weigh each step by how far the two predictions are apart and resample a group of K particles a
    prompt. Both predictions are there already: no denoiser call is added. With one particle, or ``correction=0``, the
    samples are the base pipeline's, bit for bit.

    With a negative prompt (in ``call``) the target is ``p(x | prompt)^w p(x | negative)^(1 - w)``. In high dimension
    the weights vary so much that K particles carry only a part of the correction: read ``result.spread`` and
    ``result.ess``, and lower ``correction``.

    Args:
        pipeline: a diffusers pipeline object with classifier-free guidance.
        prompt: one prompt or B of them; a :class:`~fklit.correctors.ComposedPrompt` multiplies several.
        guidance_scale: w in the convention of diffusers, ``u + w (c - u)``; the exponent of the conditional law. The
            convention ``(1 + w') c - w' u`` of Ho and Salimans has ``w = 1 + w'``. At least 1; 1 is no guidance. Not
            used by composed prompts, which have scales of their own.
        num_particles: K, samples of each prompt; cost grows in proportion.
        correction: how much of the log weights counts, from 0 (the heuristic) to 1 (exact as K grows).
        increment: "net_interval", or "kernel" (the product of reverse kernels of forward variance); see
            :func:`~fklit.correctors.guidance.weight.guidance_weight`.
        weigh: which steps' guidance is weighed; all if not given. Left out, steps keep the heuristic's error; the
            clean end carries most of the exact weight, but on learned models also most of their own error (see
            :func:`~fklit.correctors.guidance.prompt_divergence`).
        reward: a reward to steer by in the same run: the target is multiplied by ``exp(reward_scale * reward(x))``.
        reward_scale: at least 0; None takes the reward's ``suggested_scale``.
        potential: of the reward: "difference", "max", "sum" or "terminal".
        schedule: which steps score the reward; from 0.2 to 0.8 of the run at every tenth of it if not given.
        resample: which steps may resample; all if not given. Weights of other steps are carried, never dropped.
        resampler: "systematic", "multinomial", "stratified", "residual", "ssp", or a function.
        ess_threshold: fraction of K below which the effective sample size of a prompt makes it resample; in [0, 1].
        seed: seed of the run. The noise of a prompt depends on the seed and its index alone.
        prompt_indices: B indices of the prompts in their data set; 0 .. B - 1 if not given.
        scheduler: "auto" samples with a stochastic sibling of a deterministic scheduler (DDIM with eta=1 by default),
            and warns; "keep" leaves the scheduler and refuses if it would have to resample without noise.
        max_batch: most rows the denoiser, the decoder and the reward get at once, in padded chunks; None for no limit.
        on_nan: "error", or "drop": particles with NaN weights die.
        on_degenerate: "error", or "keep": a prompt whose particles all died keeps them, and is reported.
        decode: function from latents to images in [0, 1], for rewards on pipelines whose latents fklit cannot decode.
        call: further arguments of the pipeline's call, checked against its signature.

    Returns:
        All particles with weights, their spread at each step, lineages and the cost.

    Warns:
        WeightDegeneracyWarning: if the weights left little more than one particle of most groups.

    Raises:
        ValueError, TypeError: for arguments that do not fit, each with a sentence that says the fix.
        UnsupportedPipelineError: if the pipeline's guidance is not ``u + w (c - u)``, or cannot be intercepted.
    """
    given = dict(call or {})
    names = inspect.signature(type(pipeline).__call__).parameters
    if "guidance_scale" not in names or "prompt" not in names:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} takes no {'guidance_scale' if 'prompt' in names else 'prompt'}, so there is no "
            "guidance to correct; give a pipeline with classifier-free guidance."
        )
    if "guidance_scale" in given:
        raise TypeError("call={'guidance_scale': ...} was given; give guidance_scale= as an argument of its own.")
    eta = given.get("eta")
    prompts = [prompt] if isinstance(prompt, str | ComposedPrompt) else list(prompt)
    run = GuidanceRun(
        pipeline,
        prompts,
        guidance_scale=guidance_scale,
        num_particles=num_particles,
        correction=correction,
        increment=increment,
        weigh=weigh,
        reward=reward,
        reward_scale=reward_scale,
        potential=potential,
        schedule=schedule,
        resample=resample,
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
    )
    given["guidance_scale"] = run.call_scale
    arguments = build_call(pipeline, run.texts, num_particles, run.generators, given)
    with run:
        output = pipeline(**arguments)
    samples = getattr(output, "images", getattr(output, "frames", None))
    if samples is None:
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} returns neither images nor frames; use GuidanceRun and give finish() a tensor."
        )
    flags, decoded = getattr(output, "nsfw_content_detected", None), run.decoded()
    if flags is None or decoded is None or decoded.shape[0] != len(run.generators):
        return run.finish(samples)
    # A safety checker blackens what it flags: score what was sampled, show what the pipeline returned.
    scored = pipeline.image_processor.postprocess(decoded, output_type="pt", do_denormalize=[True] * decoded.shape[0])
    return run.finish(scored, returned=samples, flagged=list(flags))

"""Correct guidance in one line: `fklit.correct(pipeline, prompt, guidance_scale=7.5)`."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.correctors.guidance.result import GuidanceResult
from fklit.correctors.guidance.run import GuidanceRun
from fklit.correctors.guidance.settings import GuidanceArguments, GuidanceSettings
from fklit.correctors.guidance.two_models import TwoModelRun
from fklit.pipelines.modular import as_pipeline
from fklit.pipelines.output import read_output
from fklit.sampling.arguments import takes_settings


@takes_settings(GuidanceSettings)
def correct(
    pipeline: Any,
    prompt: str | ComposedPrompt | Sequence[str | ComposedPrompt],
    *,
    guiding_pipeline: Any = None,
    prompt_indices: Sequence[int] | None = None,
    metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    **settings: Unpack[GuidanceArguments],
) -> GuidanceResult:
    """Samples from `p(x | prompt)^w p(x)^(1 - w)`, which classifier-free guidance with scale w only approximates.

    The guided score is the score of that product at no noise level but the last; the samples of the heuristic have
    another law, whatever the number of steps. Feynman-Kac correctors (Skreta et al. 2025, arXiv 2503.02819,
    proposition 3.1) weigh each step by how far the two predictions are apart and resample K particles a prompt. Both
    predictions are there already: no denoiser call is added. With one particle, or `correction=0`, the samples are the
    base pipeline's, bit for bit.

    With a negative prompt (in `pipeline_kwargs`) the target is `p(x | prompt)^w p(x | negative)^(1 - w)`. In high
    dimension the weights vary so much that K particles carry only a part of the correction: read
    `result.log_weight_std` and `result.min_ess`, and lower `correction`.

    With a `guiding_pipeline` the target is that of two models, `p(x | prompt)^b_1 p_guiding(x | prompt)^b_2`, both
    without classifier-free guidance: autoguidance (Karras et al. 2024, arXiv 2406.02507) by default, their product with
    `exponents=(1.0, 1.0)`. It costs one more evaluation of a denoiser a step, in place of the unconditional one.

    ```python
    fklit.correct(good, "a heart", guiding_pipeline=bad, guidance_scale=2.0)  # p_good^2 / p_bad
    fklit.correct(one, "a heart", guiding_pipeline=other, exponents=(1.0, 1.0))  # p_one p_other
    ```

    Args:
        pipeline: a diffusers pipeline object with classifier-free guidance.
        prompt: one prompt or B of them; a `ComposedPrompt` multiplies several.
        guiding_pipeline: a second pipeline in the same space of samples and with the same noise levels; None for none.
        prompt_indices: B indices of the prompts in their data set; None for 0 .. B - 1.
        metadata: what else is known about each prompt, B mappings, for rewards that use it; None for nothing.

    Returns:
        All particles with weights, the standard deviation of these at each step, lineages and the cost.

    Warns:
        WeightDegeneracyWarning: if the weights left little more than one particle of most prompts.

    Raises:
        ValueError, TypeError: for arguments that do not fit, each with the fix.
        DifferentModelsError: if two pipelines differ in noise levels, prediction type or space of samples.
        UnsupportedPipelineError: if the pipeline's guidance is not `u + w (c - u)`, or cannot be intercepted.
    """
    pipeline = as_pipeline(pipeline)
    guiding_pipeline = as_pipeline(guiding_pipeline)
    chosen = GuidanceSettings(**settings)
    if chosen.exponents is not None and guiding_pipeline is None:
        raise ValueError(
            f"exponents={chosen.exponents} expected a guiding pipeline, got none; give guiding_pipeline= as well."
        )
    prompts = [prompt] if isinstance(prompt, str | ComposedPrompt) else list(prompt)
    if guiding_pipeline is None:
        run = GuidanceRun(pipeline, prompts, chosen, prompt_indices=prompt_indices, metadata=metadata)
    else:
        run = TwoModelRun(pipeline, guiding_pipeline, prompts, chosen, prompt_indices=prompt_indices, metadata=metadata)
    arguments = run.call_arguments()  # before the run warns or loads anything
    with run:
        output = pipeline(**arguments)
    found = read_output(pipeline, output, run.decoded(), len(run.generators))
    return run.finish(found.samples, returned=found.returned, flagged=found.flagged)

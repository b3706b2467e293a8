"""Steering in one line: `fklit.steer(pipeline, prompt, reward=...)`."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from fklit.pipelines.call import call_parameters
from fklit.pipelines.call_rows import count_prompts
from fklit.pipelines.modular import as_pipeline
from fklit.pipelines.output import read_output
from fklit.pipelines.proteins.adapter import as_protein_model
from fklit.pipelines.tokens.adapters import as_token_model
from fklit.sampling.arguments import takes_settings
from fklit.sampling.prompts import check_indices, check_metadata, check_prompts
from fklit.steering.model_run import steer_model
from fklit.steering.own_steps import CountsGroups, Steerable
from fklit.steering.result import SteeringResult
from fklit.steering.run import SteeringRun
from fklit.steering.search.rounds import run_rounds
from fklit.steering.search.sequential import SequentialBestOfN
from fklit.steering.search_run import SearchRun
from fklit.steering.settings import SteeringArguments, SteeringSettings


@takes_settings(SteeringSettings)
def steer(
    pipeline: Any,
    prompt: str | Sequence[str] | None = None,
    *,
    prompt_indices: Sequence[int] | None = None,
    metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    **settings: Unpack[SteeringArguments],
) -> SteeringResult:
    """Samples from `p(x | prompt) exp(reward_scale * reward(x))` with a pretrained model.

    K particles a prompt go through the pipeline; at the scheduled steps the denoised predictions are scored and the
    particles resampled (FK steering, Singhal et al. 2025, arXiv 2501.06848, algorithm 1, with weights carried between
    resamplings). The pipeline is intercepted, not changed, and is as before afterwards, also after an error. With
    `reward_scale=0` or one particle the samples are the base pipeline's, bit for bit.

    Args:
        pipeline: a diffusers pipeline object, or any model with a method `steering_model(prompts, settings)`, such as
            `fklit.text.MaskedTextModel` (see `fklit.steering.own_steps`).
        prompt: one prompt or B prompts; None for an unconditional pipeline (one group of particles), or where
            `pipeline_kwargs` hold B embeddings or class labels in place of prompts.
        prompt_indices: B indices of the prompts in their data set; None for 0 .. B - 1.
        metadata: what else is known about each prompt, B mappings, for rewards that use it; None for nothing.

    Returns:
        All particles with rewards, weights, lineages and the cost.

    Raises:
        ValueError, TypeError: for arguments that do not fit, each with the fix.
        RewardError: if the reward fails, naming the step.
    """
    chosen = SteeringSettings(**settings)
    pipeline = as_protein_model(as_token_model(pipeline))
    if isinstance(pipeline, Steerable):
        count = pipeline.count_groups(chosen) if isinstance(pipeline, CountsGroups) else 1
        texts = [""] * count if prompt is None else [prompt] if isinstance(prompt, str) else prompt
        return steer_model(pipeline, texts, chosen, prompt_indices=prompt_indices, metadata=metadata)
    pipeline = as_pipeline(pipeline)
    given = chosen.pipeline_kwargs or {}
    if prompt is None and "prompt" in call_parameters(pipeline) and given.get("prompt_embeds") is None:
        raise ValueError(f"{type(pipeline).__name__} expected a prompt, got None; give a string or a list of strings.")
    prompts = (
        [""] * count_prompts(pipeline, given)
        if prompt is None
        else [prompt]
        if isinstance(prompt, str)
        else list(prompt)
    )
    if isinstance(chosen.search, SequentialBestOfN):
        return run_rounds(
            lambda texts, given, indices, known: _once(pipeline, texts, given, indices, known),
            prompts,
            chosen,
            indices=check_indices(prompt_indices, len(prompts)),
            metadata=check_metadata(metadata, check_prompts(prompts)),
        )
    return _once(pipeline, prompts, chosen, prompt_indices, metadata)


def _once(
    pipeline: Any,
    prompts: Sequence[str],
    settings: SteeringSettings,
    prompt_indices: Sequence[int] | None,
    metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None,
) -> SteeringResult:
    """One call of the pipeline."""
    kind = SteeringRun if settings.search is None else SearchRun
    run = kind(pipeline, prompts, settings, prompt_indices=prompt_indices, metadata=metadata)
    arguments = run.call_arguments()  # before the run warns or loads anything
    with run:
        output = pipeline(**arguments)
    found = read_output(pipeline, output, run.decoded(), len(run.generators))
    return run.finish(found.samples, returned=found.returned, flagged=found.flagged)

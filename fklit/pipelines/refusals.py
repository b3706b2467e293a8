"""Pipelines refused by name before they run: what they make, or how, is nothing that particles could sample."""

from collections.abc import Mapping
from typing import Any

from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.named import is_one_of

_PARTS = "makes a video part by part, each with a denoising of its own that starts from the parts before"
_TWICE = "calls its scheduler twice a step, of which the first only denoises, so its steps cannot be told apart"
_OTHER_TASKS = {
    "LEditsPP": "edits a picture along the noise of its own inversion, so it draws nothing that could be weighed",
    "Marigold": "estimates a map of a picture (depth, normals), where there is nothing to reward",
    "CosmosTextToWorld": _TWICE,
    "CosmosVideoToWorld": _TWICE,
    "AnyFlowFAR": _PARTS,
    "Helios": _PARTS,
    "HunyuanVideoFramepack": _PARTS,
    "LTXI2VLongMultiPrompt": _PARTS,
    "WanAnimate": _PARTS,
    "SkyReelsV2DiffusionForcing": "gives each frame its own noise level and copy of the scheduler, so there is no step "
    "of a whole sample",
    "ShapE": "samples the parameters of a 3-D shape, whose renderings are no decoding of them that fklit knows",
}
_OF_PICTURE = "begins with the tokens of a picture, masked for all samples of a call at once"
# Pictures of discrete tokens that have no adapter in `fklit.pipelines.tokens`.
_TOKENS = {
    "AmusedImg2Img": _OF_PICTURE,
    "AmusedInpaint": _OF_PICTURE,
    "VQDiffusion": "draws the tokens of all samples of a call by one generator, each from a posterior that its "
    "scheduler keeps to itself",
}

# Their networks get two timesteps under guidance, whatever the number of samples.
_GUIDE_ONE_SAMPLE = ("PRX",)

# Theirs gets the sizes of one picture, whatever the number of samples.
_ONE_SAMPLE = ("DreamLitePipeline",)


def check_task(pipeline: Any) -> None:
    """Refuse a pipeline whose task is another one than sampling what a reward can score.

    Raises:
        UnsupportedPipelineError: with the reason.
    """
    name = type(pipeline).__name__
    for start, reason in _TOKENS.items():
        if is_one_of(pipeline, start):
            raise UnsupportedPipelineError(
                f"{name} {reason}, which no adapter of fklit steers; use AmusedPipeline, or a pipeline of continuous "
                "diffusion or flow matching."
            )
    for start, reason in _OTHER_TASKS.items():
        if is_one_of(pipeline, start):
            raise UnsupportedPipelineError(f"{name} {reason}; use a pipeline that samples pictures, videos or audio.")


def check_samples(pipeline: Any, given: Mapping[str, Any], total: int, default: float) -> None:
    """Refuse several samples a call where the pipeline itself takes one, always or under guidance.

    Args:
        pipeline: a diffusers pipeline.
        given: arguments of its call.
        total: samples of the call.
        default: its own guidance scale; 1 if it takes none.

    Raises:
        UnsupportedPipelineError: with the fix.
    """
    name = type(pipeline).__name__
    if is_one_of(pipeline, _ONE_SAMPLE) and total > 1:
        raise UnsupportedPipelineError(
            f"{name} expected one sample a call, as diffusers gives its network the size of one picture, got {total}; "
            "use num_particles=1 with one prompt, or another model."
        )
    scale = given.get("guidance_scale", default)
    if is_one_of(pipeline, _GUIDE_ONE_SAMPLE) and scale > 1 and total > 1:
        raise UnsupportedPipelineError(
            f"{name} expected guidance_scale=1 for {total} samples a call, as under guidance diffusers gives its "
            f"network two timesteps whatever their number, got {scale:g}; set guidance_scale=1 in pipeline_kwargs."
        )

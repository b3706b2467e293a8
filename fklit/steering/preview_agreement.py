"""How well a preview decoder agrees with the pipeline's own on the predictions of a run: in pixels and in rewards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.schedule import Schedule
from fklit.pipelines.preview_decoder import Decode, PreviewDecoder
from fklit.rewards.base import Reward
from fklit.rewards.scoring import Scorer, as_reward
from fklit.steering.api import steer


@dataclass(frozen=True, kw_only=True)
class PreviewAgreement:
    """Agreement of a preview decoder with the full one, at S steps of a run.

    Attributes:
        steps: the scored steps.
        max_difference: largest absolute difference of a pixel, of pictures in [0, 1], (S,).
        mean_difference: mean absolute difference, (S,).
        reward_difference: root mean square of the difference of the rewards, in units of the reward, (S,).
        reward_correlation: correlation of the rewards within prompts (their means taken out), (S,); NaN where one side
            gives all samples of each prompt the same reward.
    """

    steps: tuple[int, ...]
    max_difference: Float64[Tensor, " S"]
    mean_difference: Float64[Tensor, " S"]
    reward_difference: Float64[Tensor, " S"]
    reward_correlation: Float64[Tensor, " S"]


def preview_agreement(
    pipeline: Any,
    prompt: str | Sequence[str],
    *,
    preview_decoder: PreviewDecoder,
    reward: Reward | Callable[..., Any],
    num_particles: int = 8,
    reward_schedule: Schedule | None = None,
    seed: int = 0,
    pipeline_kwargs: Mapping[str, Any] | None = None,
) -> PreviewAgreement:
    """Samples from the base pipeline and decodes its denoised predictions both ways.

    Args:
        pipeline: a diffusers pipeline that makes images.
        prompt: one prompt or B prompts.
        preview_decoder: to be compared.
        reward: scores both.
        num_particles: K, samples of each prompt, at least 2.
        reward_schedule: which steps are compared; None for 0.2 to 0.8 of the run at every tenth of it.
        seed: of the samples.
        pipeline_kwargs: further arguments of the pipeline's call.

    Raises:
        ValueError: the pipeline makes no images, or fewer than 2 samples of each prompt are asked for.
    """
    if num_particles < 2:
        raise ValueError(f"num_particles expected at least 2, to compare rewards, got {num_particles}; raise it.")
    both = _Both(preview_decoder)
    chosen = as_reward(reward)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    result = steer(
        pipeline,
        prompts,
        reward=chosen,
        reward_scale=0.0,
        preview_decoder=both,
        num_particles=num_particles,
        reward_schedule=reward_schedule,
        seed=seed,
        previews=False,
        pipeline_kwargs=pipeline_kwargs,
    )
    if result.modality != "image":
        raise ValueError(f"expected a pipeline that makes images, got one that makes {result.modality}; use another.")
    scorer = Scorer(chosen, prompts, num_particles, max_batch=None, on_nan="error")
    differences, errors, correlations = [], [], []
    for seen, (preview, full) in zip(result.reward_path, both.pictures, strict=True):
        distance = (preview - full).abs().double().cpu()
        rewards = scorer(full, where="of the full decoder").cpu()
        differences.append((float(distance.max()), float(distance.mean())))
        errors.append((seen - rewards).square().mean().sqrt())
        correlations.append(_within(seen, rewards))
    figures = torch.tensor(differences, dtype=torch.float64)
    return PreviewAgreement(
        steps=result.scored_steps,
        max_difference=figures[:, 0],
        mean_difference=figures[:, 1],
        reward_difference=torch.stack(errors),
        reward_correlation=torch.stack(correlations),
    )


def _within(first: Float64[Tensor, "B K"], second: Float64[Tensor, "B K"]) -> Tensor:
    """Correlation of what is left of both without the means of the rows; NaN if nothing is left."""
    left, right = (values - values.mean(1, keepdim=True) for values in (first, second))
    return (left * right).sum() / (left.square().sum() * right.square().sum()).sqrt()


class _Both(PreviewDecoder):
    """Shows the run the previews, and keeps the pictures of both decoders, one pair a scored step."""

    def __init__(self, preview: PreviewDecoder) -> None:
        self.preview = preview
        self.pictures: list[tuple[Tensor, Tensor]] = []

    def prepare(self, vae: Any, full: Decode) -> Decode:
        inner = self.preview.prepare(vae, full)

        def decode(z: Tensor) -> Tensor:
            found = inner(z)
            pair = (found.to(z.dtype), full(z))  # the run sees previews in the dtype of the autoencoder, too
            shown = [(pictures.float() / 2 + 0.5).clamp(0, 1) for pictures in pair]
            self.pictures.append((shown[0], shown[1]))
            return found

        return decode

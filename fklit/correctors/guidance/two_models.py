"""Corrected sampling from two pretrained pipelines at once: products, and autoguidance."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.correctors.guidance.prompt_layout import PromptLayout
from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.correctors.guidance.run import GuidanceRun
from fklit.correctors.guidance.settings import GuidanceSettings
from fklit.correctors.guidance.weight import guidance_weight, stepwise_kl
from fklit.correctors.targets.dispersion import inner, subtract_dispersion, weighted_sum
from fklit.pipelines.denoised import denoised
from fklit.pipelines.guidance_argument import guidance_argument, guidance_value
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.noise_levels import StepLevels
from fklit.pipelines.second_model import SecondDenoiser
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.transition import as_double


class TwoModelRun(GuidanceRun):
    """Context manager that samples `p(x | prompt)^b_1 p_guiding(x | prompt)^b_2` with a call of the first pipeline.

    At every step the guiding pipeline's denoiser predicts for the same samples; the combined prediction is stepped, and
    the weight corrects it (proposition D.5 of arXiv 2503.02819). Classifier-free guidance is off in both: each model
    gives its conditional prediction. With `exponents=None` they are `(w, 1 - w)`, `w = guidance_scale`: autoguidance
    (Karras et al. 2024, arXiv 2406.02507), `D_guiding + w (D - D_guiding)`, with its exact target; `(1, 1)` is the
    product of both models.

    Args:
        pipeline: the pipeline that runs.
        guiding_pipeline: the second model, with the same noise levels and the same space of samples.
        prompts: B prompts.
        settings: see `GuidanceSettings`.
        prompt_indices: see `GuidanceRun`.
        metadata: see `GuidanceRun`.

    Raises:
        DifferentModelsError: if the two models do not fit each other.
        ValueError, TypeError: for settings that do not fit two models.
    """

    def __init__(
        self,
        pipeline: Any,
        guiding_pipeline: Any,
        prompts: Sequence[str | ComposedPrompt],
        settings: GuidanceSettings,
        *,
        prompt_indices: Sequence[int] | None = None,
        metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    ) -> None:
        if any(isinstance(prompt, ComposedPrompt) for prompt in prompts):
            raise ValueError("two models expected plain prompts, got a ComposedPrompt; give strings.")
        if "negative_prompt" in (settings.pipeline_kwargs or {}):
            raise ValueError(
                "two models expected no negative_prompt, got one, which would not be used: the guiding pipeline takes "
                "the place of the unconditional prediction; omit it."
            )
        scale = settings.guidance_scale
        self.exponents = (scale, 1.0 - scale) if settings.exponents is None else settings.exponents
        self._total = sum(self.exponents)
        self._second = SecondDenoiser(pipeline, guiding_pipeline, max_batch=settings.max_batch)
        if self._total != 1.0:
            self._check_product(pipeline, settings)
        super().__init__(pipeline, prompts, settings, prompt_indices=prompt_indices, metadata=metadata)
        self.call_scale = 1.0  # no classifier-free guidance
        self._context = ExitStack()
        self._settings |= {"exponents": list(self.exponents), "guiding_pipeline": type(guiding_pipeline).__name__}

    def _check_product(self, pipeline: Any, settings: GuidanceSettings) -> None:
        if settings.increment == "kernel":
            raise ValueError(
                f"increment='kernel' expected exponents of sum 1, got {self.exponents}; use increment='net_interval'."
            )
        kind = getattr(pipeline.scheduler, "config", {}).get("prediction_type", "epsilon")
        if kind != "epsilon":
            raise UnsupportedPipelineError(
                f"exponents of sum {self._total:g} expected models that predict epsilon, got prediction_type={kind!r}; "
                "use exponents of sum 1."
            )

    def _find_scale_name(self, pipeline: Any) -> str:
        return guidance_argument(pipeline, self._kwargs, guides=False)

    def _is_guided(self, layout: PromptLayout) -> bool:
        return self.exponents != (1.0, 0.0)

    @property
    def _replaces_output(self) -> bool:
        return True

    def __enter__(self) -> Self:
        self._second.prepare(
            self.texts,
            self._system.num_particles,
            self.generators,
            {**self._kwargs, self._scale_name: guidance_value(self._pipeline, self.call_scale)},
        )
        super().__enter__()
        with self._context:
            if self._total != 1.0:
                self._start_cooler()
            self._context.enter_context(self._second.watching())
            self._context = self._context.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._context.close()
        return super().__exit__(kind, error, trace)

    def _start_cooler(self) -> None:
        """Let the pipeline draw its first samples from `N(0, s^2 / B)`, the product of both noise ends."""
        scheduler = self._interception.scheduler
        if isinstance(getattr(type(scheduler), "init_noise_sigma", None), property):
            raise UnsupportedPipelineError(
                f"exponents of sum {self._total:g} expected a scheduler whose init_noise_sigma can be set, got "
                f"{type(scheduler).__name__}; use DDIM, DDPM or DPM-Solver++ (SDE)."
            )
        before = scheduler.init_noise_sigma
        scheduler.init_noise_sigma = before / math.sqrt(self._total)
        self._context.callback(setattr, scheduler, "init_noise_sigma", before)

    def _predictions(self, call: StepCall) -> tuple[Tensor, Tensor] | None:
        found = call.predictions
        if len(found) != 1 or found[0].shape != call.model_output.shape or not torch.equal(found[0], call.model_output):
            raise UnsupportedPipelineError(
                f"at step {call.index} the model output of {type(self._pipeline).__name__} is not what its denoiser "
                "returned, so that a second model cannot be combined with it; use a pipeline without classifier-free "
                "guidance at guidance_scale=1 and without a learned variance."
            )
        if call.index == 0 and self._total != 1.0:
            self._check_start(call)
        other = self._second.predict()
        self._interception.denoiser_calls += other.shape[0]
        return call.model_output, other

    def _check_start(self, call: StepCall) -> None:
        """Make sure that the pipeline scaled its noise by `init_noise_sigma`."""
        expected = float(self._interception.scheduler.init_noise_sigma)
        count = call.sample.numel()
        ratio = float(call.sample.double().square().mean()) / expected**2
        if abs(ratio - 1) > 8 * math.sqrt(2 / count):
            raise UnsupportedPipelineError(
                f"expected first samples of standard deviation {expected:.3g}, got {expected * ratio**0.5:.3g}; "
                f"{type(self._pipeline).__name__} does not scale its noise by the scheduler's init_noise_sigma, or "
                "was given latents: use exponents of sum 1."
            )

    def _combined(self, predictions: tuple[Tensor, Tensor], call: StepCall) -> Tensor:
        # Scores add with their exponents, and so do predictions of epsilon; with a sum of 1 all predictions do.
        first, second = self.exponents
        return (first * predictions[0] + second * predictions[1]).to(call.model_output.dtype)

    def _exact(self, call: StepCall, predictions: tuple[Tensor, Tensor], levels: StepLevels) -> tuple[Tensor, Tensor]:
        groups, particles = self._system.num_groups, self._system.num_particles
        both = [denoised(call.scheduler, value, call.timestep, call.sample) for value in predictions]
        divergence = stepwise_kl([both[1], both[0]], levels).reshape(groups, particles)
        if self._total == 1.0:
            weight = guidance_weight(both, self.exponents, levels, self._given.increment)
        else:
            weight = product_weight(both, self.exponents, call.sample, levels)
            if call.index == 0:
                weight = weight + log_z_of_noise(self.exponents, call.sample[0].numel(), levels)
        return weight.reshape(groups, particles), divergence


def product_weight(
    predictions: Sequence[Tensor], exponents: Sequence[float], sample: Tensor, levels: StepLevels
) -> Float64[Tensor, " K"]:
    """Return the log weight of a step for the target `prod_i q_i^beta_i` with exponents of any sum.

    The rate of proposition D.5 of arXiv 2503.02819, `(B - 1) div f + g^2/2 (|S|^2 - sum_i beta_i |s_i|^2)`, on the
    variance-preserving path of the same levels `l = sigma / a`, whose interval has `integral of g^2 = log(1 + l^2) -
    log(1 + l'^2)`. There the two terms cancel at the noise end, for steps of any length, as they do not in `x / a`.

    Args:
        predictions: denoised predictions `D_i`, each (K, *event).
        exponents: `beta_i`.
        sample: x, (K, *event).
        levels: before and after the step.

    Returns:
        Log weights (K,), float64.
    """
    before = (levels.sigma / levels.scale) ** 2
    after = (levels.next_sigma / levels.next_scale) ** 2
    noise = math.log1p(before) - math.log1p(after)
    # Scores in units of sqrt(1 + l^2), in which the noised sample has unit variance at the noise end.
    y = as_double(sample).unsqueeze(0) / levels.scale
    unit = math.sqrt(1 + before) / before
    scores = [unit * (as_double(prediction).unsqueeze(0) - y) for prediction in predictions]
    combined = weighted_sum(scores, exponents)
    # |S|^2 - sum_i beta_i |s_i|^2, without the cancellation where the experts agree.
    surplus = sum(exponents) - 1.0
    excess = surplus * inner(combined, combined)
    dispersion = subtract_dispersion(excess, scores, exponents, combined).squeeze(0)
    return 0.5 * noise * (dispersion - surplus * sample[0].numel())


def log_z_of_noise(exponents: Sequence[float], dim: int, levels: StepLevels) -> float:
    """Return the log integral of `prod_i N(0, l^2 / (1 + l^2))^beta_i`: what log Z starts from at the noise end.

    Args:
        exponents: `beta_i`, of positive sum.
        dim: numbers of one sample.
        levels: of the first step; `l = sigma / a`.
    """
    total = sum(exponents)
    level = (levels.sigma / levels.scale) ** 2
    variance = level / (1 + level)
    return 0.5 * dim * ((1.0 - total) * math.log(2 * math.pi * variance) - math.log(total))

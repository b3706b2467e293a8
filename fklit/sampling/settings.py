"""The settings that steering and corrected guidance share: of the particles, of the reward, and of the call."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from torch import Tensor

from fklit.checks import as_number, check_choice, check_count, check_fraction
from fklit.feynman_kac.potentials import Potential, PotentialName, get_potential
from fklit.feynman_kac.resampling import Resampler, ResamplerName, get_resampler
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Tempering
from fklit.feynman_kac.weights import OnDegenerate, OnNan
from fklit.pipelines.flow.names import DEFAULT_KERNEL, FlowKernelName, get_flow_kernel
from fklit.pipelines.preview_decoder import PreviewDecoder
from fklit.rewards.base import Reward
from fklit.rewards.latent_reward import LatentReward
from fklit.rewards.scoring import as_reward

SchedulerChoice = Literal["auto", "stochastic", "keep"]
DEFAULT_REWARD_SCHEDULE = Schedule(start=0.2, stop=0.8, every=0.1)


@dataclass(frozen=True, kw_only=True)
class ParticleSettings:
    """How the particles of each prompt are carried through a pipeline.

    Attributes:
        num_particles: K, samples of each prompt; the cost grows in proportion.
        resampler: "systematic", "multinomial", "stratified", "residual", "ssp", "birth_death", or a function, see
            `fklit.feynman_kac.resampling`.
        ess_threshold: fraction of K, in [0, 1]: a prompt resamples when its effective sample size is below it; 0 never
            resamples, 1 whenever weights differ.
        seed: seed of the samples. The noise of a prompt depends on the seed and the prompt's index alone.
        on_nan: "error" names the part that returned NaN or an infinity (denoiser, scheduler, decoder, reward) and
            stops; "drop" lets such particles die, whose samples are returned as zeros with weight zero.
        on_degenerate: "error", or "keep" for prompts all of whose particles died.
        max_batch: most rows that the denoiser, the decoder and the reward get at once, in chunks padded to exactly this
            size, so that results have the same bits in every batch and on any number of processes; None for no limit
            (equal to the pipeline's own call bit for bit, and to other batches up to rounding).
        decode_batch: most samples decoded at once, in chunks of exactly this size; None for `max_batch`, and without
            one for one video at a time on the way (decoding is what takes most memory) and for the pipeline's own
            call at the end. 1 needs the least memory.
        scheduler: "auto" samples with a stochastic sibling of a deterministic scheduler where particles may be
            resampled (DDIM with eta=1 by default), and warns; "stochastic" does so where nothing is resampled, too, so
            that base and best-of-n have the sampler of steering; "keep" runs the pipeline's own, and refuses to
            resample without noise.
        flow_kernel: how "auto" and "stochastic" step flow-matching models (SD3, Flux, Wan, ...): "capped_dpmsolver++"
            (the least biased), "sde-dpmsolver++", "sde" (Flow-GRPO), "dance", "cps" or "precise", see docs/flow.md.
        noise_level: noise of the kernel, at least 0; None for its own (1, 1, 0.7, 0.3, 0.7, 1); 0 for the pipeline's
            own steps, which cannot be resampled.
    """

    num_particles: int = 4
    resampler: ResamplerName | Resampler = "systematic"
    ess_threshold: float = 0.5
    seed: int = 0
    on_nan: OnNan = "error"
    on_degenerate: OnDegenerate = "error"
    max_batch: int | None = None
    decode_batch: int | None = None
    scheduler: SchedulerChoice = "auto"
    flow_kernel: FlowKernelName = DEFAULT_KERNEL
    noise_level: float | None = None

    def __post_init__(self) -> None:
        # Numbers of NumPy or torch become Python's, which records and hashes take.
        object.__setattr__(self, "num_particles", check_count("num_particles", self.num_particles))
        get_resampler(self.resampler)
        object.__setattr__(self, "ess_threshold", check_fraction("ess_threshold", self.ess_threshold))
        object.__setattr__(self, "seed", _check_seed(self.seed))
        check_choice("on_nan", self.on_nan, ("error", "drop"))
        check_choice("on_degenerate", self.on_degenerate, ("error", "keep"))
        check_choice("scheduler", self.scheduler, ("auto", "stochastic", "keep"))
        if self.noise_level is not None:
            level = as_number(self.noise_level)
            if level is None or not math.isfinite(level):
                raise ValueError(
                    f"noise_level expected a finite number of at least 0, got {self.noise_level!r}; give such a number."
                )
            object.__setattr__(self, "noise_level", level)
        get_flow_kernel(self.flow_kernel, self.noise_level)
        if self.max_batch is not None:
            object.__setattr__(self, "max_batch", check_count("max_batch", self.max_batch))
        if self.decode_batch is not None:
            object.__setattr__(self, "decode_batch", check_count("decode_batch", self.decode_batch))


def _check_seed(seed: object) -> int:
    number = as_number(seed)
    if not isinstance(number, int):
        raise TypeError(f"seed expected an integer, got {seed!r}; give a whole number.")
    return number


class ParticleArguments(TypedDict, total=False):
    """`ParticleSettings` as keyword arguments."""

    num_particles: int
    resampler: ResamplerName | Resampler
    ess_threshold: float
    seed: int
    on_nan: OnNan
    on_degenerate: OnDegenerate
    max_batch: int | None
    decode_batch: int | None
    scheduler: SchedulerChoice
    flow_kernel: FlowKernelName
    noise_level: float | None


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """What the particles are steered towards, and when.

    Attributes:
        reward: a fklit reward, or a function of (images in [0, 1], prompts) that returns one number an image; higher is
            better. The target is multiplied by `exp(reward_scale * reward(x))`.
        reward_scale: at least 0; what counts is its product with the standard deviation of the reward among a prompt's
            samples (1 to 5 works, far more collapses onto one particle). None takes the reward's `suggested_scale`.
        potential: "difference", "max", "sum", "max-statistic", "sum-statistic", "rt", "terminal" (best-of-n and
            importance sampling), or a `Potential`.
        reward_schedule: which steps score the reward; None for 0.2 to 0.8 of the run at every tenth of it.
        tempering: how the scale grows along the run; None for constant.
        decode: function from latents to samples (images or videos in [0, 1], waveforms), for pipelines whose latents
            fklit cannot decode.
        preview_decoder: decodes the predictions that are scored on the way for less:
            `fklit.pipelines.fast_decoder.FastDecoder`, `fklit.pipelines.tiny_decoder.TinyDecoder`, or your own; the
            finished samples, and gradients of a proposal, always take the pipeline's own, so the target is the same.
            None for the pipeline's.
        latent_reward: scores denoised latents in place of the reward at the scheduled steps before its `until`, without
            decoding, in the units of the reward (see `fklit.rewards.LatentReward`); finished samples are scored by the
            reward, so the target is the same. None decodes at every scheduled step.
        stop_scoring_above: a prompt is scored no more before the end once the rewards of all its particles are above
            this value, or were all equal at two scores in a row (infinity for the latter alone); the target is the
            same. None scores at every scheduled step.
    """

    reward: Reward | Callable[..., Any] | None = None
    reward_scale: float | None = None
    potential: PotentialName | Potential = "difference"
    reward_schedule: Schedule | None = None
    tempering: Tempering | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    preview_decoder: PreviewDecoder | None = None
    latent_reward: LatentReward | None = None
    stop_scoring_above: float | None = None

    def __post_init__(self) -> None:
        if self.reward_scale is not None:
            scale = as_number(self.reward_scale)
            if scale is None or not 0 <= scale < math.inf:
                raise ValueError(
                    f"reward_scale expected a finite number of at least 0, got {self.reward_scale!r}; negate the "
                    "reward to steer away from it."
                )
            object.__setattr__(self, "reward_scale", scale)
            if self.reward is None:
                raise ValueError(f"reward_scale={scale!r} expected a reward, got none; give reward= as well.")
        if self.reward is not None:
            object.__setattr__(self, "reward", as_reward(self.reward))
        object.__setattr__(self, "potential", get_potential(self.potential))
        if self.preview_decoder is not None:
            _check_preview_decoder(self.preview_decoder, self.decode)
        if self.latent_reward is not None and not isinstance(self.latent_reward, LatentReward):
            raise TypeError(
                f"latent_reward expected a LatentReward, got a {type(self.latent_reward).__name__}; give one such as "
                "fklit.rewards.LatentImageReward(folder)."
            )
        if self.stop_scoring_above is not None:
            limit = as_number(self.stop_scoring_above)
            if limit is None or math.isnan(limit):
                raise ValueError(
                    f"stop_scoring_above expected a reward, got {self.stop_scoring_above!r}; give a number."
                )
            object.__setattr__(self, "stop_scoring_above", float(limit))
        schedule: Any = self.reward_schedule
        if isinstance(schedule, Mapping):  # as in YAML
            object.__setattr__(self, "reward_schedule", Schedule(**schedule))
        elif schedule is not None and not isinstance(schedule, Schedule):
            raise TypeError(
                f"reward_schedule expected a Schedule, got a {type(schedule).__name__}; give one such as "
                "fklit.Schedule(start=0.2, stop=0.8, every=0.1)."
            )


def _check_preview_decoder(decoder: object, decode: object) -> None:
    if not isinstance(decoder, PreviewDecoder):
        raise TypeError(
            f"preview_decoder expected a PreviewDecoder, got a {type(decoder).__name__}; give one such as "
            "fklit.pipelines.fast_decoder.FastDecoder()."
        )
    if decode is not None:
        raise ValueError(
            "expected decode or preview_decoder, got both: decode decodes the predictions already; omit one."
        )


class RewardArguments(TypedDict, total=False):
    """`RewardSettings` as keyword arguments, but for the reward, which one method requires and another does not."""

    reward_scale: float | None
    potential: PotentialName | Potential
    reward_schedule: Schedule | None
    tempering: Tempering | None
    decode: Callable[[Tensor], Tensor] | None
    preview_decoder: PreviewDecoder | None
    latent_reward: LatentReward | None
    stop_scoring_above: float | None


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(ParticleSettings, RewardSettings):
    """All settings that methods on pipelines share; each method adds its own.

    Attributes:
        pipeline_kwargs: further arguments of the pipeline's call (steps, guidance scale, size, negative prompt, eta),
            checked against its signature.
    """

    pipeline_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        ParticleSettings.__post_init__(self)
        RewardSettings.__post_init__(self)

    def keywords(self) -> dict[str, Any]:
        """Return the settings by name, as keyword arguments."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


class SamplingArguments(ParticleArguments, RewardArguments, total=False):
    """`SamplingSettings` as keyword arguments, but for the reward."""

    pipeline_kwargs: Mapping[str, Any] | None

"""The reward of an intercepted run: denoised predictions are decoded, scored, and rewards become log potentials."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fklit.feynman_kac.potentials import get_potential
from fklit.feynman_kac.reward_path import RewardPath
from fklit.feynman_kac.tempering import Constant, Tempering
from fklit.pipelines.modality import Modality
from fklit.pipelines.step_call import StepCall
from fklit.rewards.base import Reward
from fklit.rewards.scoring import Scorer, chosen_scale
from fklit.sampling.describe import describe
from fklit.sampling.early_stop import EarlyStop
from fklit.sampling.latent_scores import LatentScores
from fklit.sampling.look_ahead import LookAhead
from fklit.sampling.look_ahead_scores import LookAheadScores
from fklit.sampling.prediction_decoder import PredictionDecoder
from fklit.sampling.prediction_scores import PredictionScores
from fklit.sampling.settings import DEFAULT_REWARD_SCHEDULE, ParticleSettings, RewardSettings

REWARD_RECORD = (
    *("reward", "reward_scale", "potential", "reward_schedule", "tempering"),
    *("preview_decoder", "latent_reward", "stop_scoring_above"),
)
"""Keys of the reward's settings in a record; null without a reward."""


class RewardTerm:
    """What a reward adds to the log weights of B * K samples, at scheduled steps and at the end.

    Args:
        pipeline: decodes the predictions.
        prompts: B prompts, in whose order the samples lie.
        reward: the reward settings, with a reward.
        particles: how the particles are carried.
        modality: what the pipeline makes.
        metadata: what is known about each of the B prompts, for rewards that use it; None for nothing.
        look_ahead: draws what is scored on the way; None scores denoised predictions.
        prompt_indices: B indices of the prompts, from which its noise follows; None for 0 .. B - 1.

    Raises:
        ValueError: the reward cannot score samples of this modality.

    Attributes:
        reward: the reward.
        reward_scale: at least 0; the reward's own suggestion where the settings name none.
        potential: how rewards become potentials.
        schedule: which steps score.
        steps: the S scored steps; known once the run has begun.
        path: reward histories; known once the run has begun.
        seconds: wall time of the scores on the way.
        decoder: decodes the predictions, and counts them.
        predictions: decodes and scores predictions, all or some, with gradients where they are asked for.
        latent: scores of the latent reward, if there is one.
        look_ahead: draws and scores clean samples, if predictions are not scored themselves.
        scored: which of the B prompts each step has scored, (B,) bool each.
        terms: parts of the rewards of the finished samples by name, (B, K) float64 each, on the CPU.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str],
        reward: RewardSettings,
        particles: ParticleSettings,
        *,
        modality: Modality = "image",
        metadata: Sequence[Mapping[str, Any]] | None = None,
        look_ahead: LookAhead | None = None,
        prompt_indices: Sequence[int] | None = None,
    ) -> None:
        assert isinstance(reward.reward, Reward)
        self.reward = reward.reward
        _check_modality(self.reward, modality, pipeline)
        self.modality = modality
        self.reward_scale = chosen_scale(self.reward, reward.reward_scale)
        self.potential = get_potential(reward.potential)
        self.schedule = DEFAULT_REWARD_SCHEDULE if reward.reward_schedule is None else reward.reward_schedule
        self.tempering: Tempering = Constant() if reward.tempering is None else reward.tempering
        self.steps: tuple[int, ...] = ()
        self.seconds = 0.0
        self.terms: dict[str, Tensor] = {}
        self.scored: list[Tensor] = []
        self._stop = EarlyStop(reward.stop_scoring_above, len(prompts))
        self.decoder = PredictionDecoder(
            pipeline,
            decode=reward.decode,
            preview=reward.preview_decoder,
            modality=modality,
            at_once=particles.decode_batch or particles.max_batch,
        )
        self._preview_decoder = reward.preview_decoder
        given = reward.latent_reward
        self.latent = None if given is None else LatentScores(given, prompts, particles.num_particles)
        self._path: RewardPath | None = None
        self._shape = (len(prompts), particles.num_particles)
        self._scorer = Scorer(
            self.reward,
            prompts,
            particles.num_particles,
            max_batch=particles.max_batch,
            on_nan=particles.on_nan,
            metadata=metadata,
        )
        self.predictions = PredictionScores(self.decoder, self._scorer, prompts, particles)
        self.look_ahead: LookAheadScores | None = None
        if look_ahead is not None:
            self.look_ahead = LookAheadScores(
                look_ahead,
                pipeline,
                predictions=self.predictions,
                prompt_indices=range(len(prompts)) if prompt_indices is None else prompt_indices,
                particles=particles,
                reward_scale=self.reward_scale,
            )
        self._rewards: list[Tensor] = []

    def record(self) -> dict[str, Any]:
        """Return the settings that ran, JSON-able."""
        return {
            "reward": self.reward.display_name,
            "reward_scale": self.reward_scale,
            "potential": repr(self.potential),
            "reward_schedule": repr(self.schedule),
            "tempering": repr(self.tempering),
            "preview_decoder": None if self._preview_decoder is None else repr(self._preview_decoder),
            "latent_reward": None if self.latent is None else repr(self.latent.reward),
            "stop_scoring_above": None if self._stop.threshold is None else describe(self._stop.threshold),
        }

    @property
    def steers(self) -> bool:
        """Whether weights can part before the end."""
        intermediate = self.potential.scores_intermediate and self.schedule.indices != ()
        return intermediate and self.reward_scale > 0 and self._shape[1] > 1

    @property
    def path(self) -> RewardPath:
        """Reward histories of all particles."""
        assert self._path is not None, "the run has not begun"
        return self._path

    @property
    def num_scored(self) -> int:
        """Steps scored so far."""
        return len(self._rewards)

    @property
    def reward_calls(self) -> int:
        """Images scored so far."""
        return self._scorer.reward_calls

    @property
    def reward_checks(self) -> int:
        """Images scored once more, alone, to check the reward."""
        return self._scorer.reward_checks

    @property
    def reward_path(self) -> Float64[Tensor, "S B K"]:
        """Rewards of the steps scored so far, on the CPU."""
        return torch.stack(self._rewards) if self._rewards else torch.zeros(0, *self._shape, dtype=torch.float64)

    def begin(
        self,
        num_steps: int,
        describe_run: Callable[[], Mapping[str, Any]] | None = None,
        *,
        steps: tuple[int, ...] | None = None,
    ) -> None:
        """Resolve the schedule and prepare the potential, once the number of steps is known.

        Args:
            num_steps: of the run.
            describe_run: says what runs, for potentials that belong to a run (`fklit.sampling.describe_run`).
            steps: to score in place of the schedule's; None for these.
        """
        if steps is not None:
            self.steps = steps
        elif self.potential.scores_intermediate:
            try:
                self.steps = self.schedule.resolve(num_steps)
            except ValueError as error:
                if self.schedule != DEFAULT_REWARD_SCHEDULE:
                    raise
                raise ValueError(
                    f"expected a run with a step at a reward_schedule of 0.2 to 0.8 of it, the default, got one of "
                    f"{num_steps} step(s), which cannot be steered on the way; use potential='terminal' (best-of-n), "
                    "or more steps."
                ) from error
        self.potential = self.potential.prepare(
            self.steps, num_steps=num_steps, reward_scale=self.reward_scale, describe_run=describe_run
        )
        self._path = RewardPath(self.potential, *self._shape, steps=self.steps)

    def load(self) -> None:
        """Load the weights of what scores."""
        self.reward.load()
        if self.latent is not None:
            self.latent.reward.load()

    def score(
        self, latents: Tensor, *, where: str, call: StepCall | None = None
    ) -> tuple[Float64[Tensor, "B K"], Tensor | None]:
        """Return the rewards of denoised latents (B * K, ...), and the samples that were scored.

        Prompts that are scored no more get rewards of NaN, and zeros in place of their samples. The samples are None
        where nothing was decoded.

        Args:
            latents: denoised predictions.
            where: names the moment in messages.
            call: the step, which a latent reward and a look-ahead must know.
        """
        began = _now(latents.device)
        active = self._stop.active
        self.scored.append(active)
        early = self.latent if self.latent is not None and call is not None and self.latent.takes(call) else None
        if early is not None and call is not None:
            early.steps.append(call.index)
        groups = None if bool(active.all()) else active.nonzero().flatten().tolist()
        rewards = torch.full(self._shape, torch.nan, dtype=torch.float64, device=self.path.total.device)
        samples: Tensor | None = None
        if groups != []:
            found: Tensor
            seen: Tensor | None
            if early is not None and call is not None:
                rows = latents if groups is None else latents[self.predictions.rows(groups).to(latents.device)]
                found, seen = early(rows, groups, call, where=where), None
            elif self.look_ahead is not None and call is not None:
                found, seen = self.look_ahead(latents, groups, call, where=where)
            else:
                found, seen = self.predictions(latents, groups, where=where)
            rewards, samples = (found, seen) if groups is None else self._spread(found, seen, groups, rewards)
        elif self.look_ahead is not None:
            self.look_ahead.skip()
        self._rewards.append(rewards.cpu())
        self.seconds += _now(latents.device) - began
        return rewards, samples

    def keep_scores(self, rewards: Float64[Tensor, "B K"]) -> None:
        """Record these rewards in place of those that were scored last."""
        self._rewards[-1] = rewards.cpu()

    def _spread(
        self, found: Tensor, seen: Tensor | None, groups: Sequence[int], rewards: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Put rewards and samples of some prompts among all."""
        rewards[groups] = found.to(rewards.device)
        if seen is None:
            return rewards, None
        samples = seen.new_zeros((self._shape[0] * self._shape[1], *seen.shape[1:]))
        samples[self.predictions.rows(groups).to(samples.device)] = seen
        return rewards, samples

    def update(self, rewards: Float64[Tensor, "B K"], log_weights: Float64[Tensor, "B K"]) -> Float64[Tensor, "B K"]:
        """Return the log potential of the rewards just scored.

        Args:
            rewards: from `score`.
            log_weights: carried, which an adaptive tempering looks at.
        """
        scored = self.scored[-1]
        every = bool(scored.all())
        if not every:
            rewards = torch.where(scored.to(rewards.device).unsqueeze(1), rewards, 0.0)
        scale = self.tempering.scale(
            self.path,
            rewards,
            log_weights=log_weights,
            reward_scale=self.reward_scale,
            point=self.num_scored - 1,
            num_points=len(self.steps),
        )
        log_potential = self.path.update(rewards, scale, scored=None if every else scored)
        self._stop.see(rewards, ~self.path.dead)
        return log_potential

    def stop_scoring(self, groups: Bool[Tensor, " B"]) -> None:
        """Score these prompts no more before the end."""
        self._stop.stop(groups)

    def close(
        self, samples: Tensor, broken: Bool[Tensor, " N"]
    ) -> tuple[Float64[Tensor, "B K"], Float64[Tensor, "B K"]]:
        """Return the rewards of the finished samples (B * K, ...), and the log potential that closes the weights.

        Args:
            samples: what is scored.
            broken: samples that are not finite, whose reward is NaN whatever the reward makes of them.
        """
        rewards = self.predictions.rewards_of(samples, broken, where="at the finished samples")
        self._scorer.finish()
        rows = broken.reshape(self._shape).cpu()
        self.terms = {name: part.cpu().masked_fill(rows, math.nan) for name, part in self._scorer.terms.items()}
        return rewards, self.path.terminal(rewards, self.reward_scale)


def _now(device: torch.device) -> float:
    """Seconds, once a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _check_modality(reward: Reward, modality: Modality, pipeline: Any) -> None:
    part = reward.refused(modality)
    if part is None:
        return
    fix = "give another reward"
    if modality == "video" and part.accepts == "image":
        fix = f"score its frames with rewards.Frames({part.display_name}(...)), or make pictures with num_frames=1"
    raise ValueError(
        f"reward expected one of {modality} samples, as {type(pipeline).__name__} makes them, got "
        f"{part.display_name}, which takes {part.accepts}s; {fix}."
    )

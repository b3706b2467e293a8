"""The reward of an intercepted run: denoised predictions become images, images rewards, and rewards log potentials."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.checks import check_count
from fklit.feynman_kac.potentials import Potential, RewardPath
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.weights import OnNan
from fklit.pipelines.decode import decode_latents
from fklit.pipelines.images import as_unit_images
from fklit.rewards.base import Reward
from fklit.rewards.scoring import Scorer

DEFAULT_SCHEDULE = Schedule(start=0.2, stop=0.8, every=0.1)


class RewardTerm:
    """What a reward adds to the log weights of a population of B * K samples, at scheduled steps and at the end.

    Args:
        pipeline: decodes the predictions.
        reward: the reward.
        prompts: B prompts, in whose order the samples lie.
        num_particles: K.
        reward_scale: at least 0.
        potential: how rewards become potentials.
        schedule: which steps are scored.
        max_batch: most images for the reward at once, padded; None for no limit.
        on_nan: what NaN and +inf do.
        decode: function from latents to images in place of the pipeline's decoder.

    Attributes:
        steps: the S scored steps; known once the run has begun.
        path: reward histories; known once the run has begun.
        decodes: rows that ``decode`` got so far.
    """

    def __init__(
        self,
        pipeline: Any,
        reward: Reward,
        prompts: Sequence[str],
        num_particles: int,
        *,
        reward_scale: float,
        potential: Potential,
        schedule: Schedule | None,
        max_batch: int | None,
        on_nan: OnNan,
        decode: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.reward = reward
        self.reward_scale = reward_scale
        self.potential = potential
        self.schedule = DEFAULT_SCHEDULE if schedule is None else schedule
        self.steps: tuple[int, ...] = ()
        self.decodes = 0
        self._path: RewardPath | None = None
        self._pipeline = pipeline
        self._shape = (len(prompts), check_count("num_particles", num_particles))
        self._scorer = Scorer(reward, prompts, num_particles, max_batch=max_batch, on_nan=on_nan)
        self._decode = decode
        self._rewards: list[Tensor] = []

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
    def reward_path(self) -> Float64[Tensor, "S B K"]:
        """Rewards of the steps scored so far, on the CPU."""
        return torch.stack(self._rewards) if self._rewards else torch.zeros(0, *self._shape, dtype=torch.float64)

    def begin(self, num_steps: int) -> None:
        """Resolve the schedule, once the number of steps is known."""
        if self.potential.scores_intermediate:
            self.steps = self.schedule.resolve(num_steps)
        self._path = RewardPath(self.potential, *self._shape, num_points=len(self.steps))

    def score(self, latents: Tensor, *, where: str) -> tuple[Float64[Tensor, "B K"], Tensor]:
        """Return the rewards of denoised latents (B * K, ...), and the images that were scored."""
        if self._decode is None:
            images = decode_latents(self._pipeline, latents)
        else:
            self.decodes += latents.shape[0]
            images = as_unit_images(self._decode(latents), latents.shape[0])
        rewards = self._scorer(images, where=where)
        self._rewards.append(rewards.cpu())
        return rewards, images

    def close(self, samples: Tensor) -> tuple[Float64[Tensor, "B K"], Float64[Tensor, "B K"]]:
        """Return the rewards of the finished samples (B * K, ...), and the log potential that closes the weights."""
        rewards = self._scorer(samples, where="at the finished samples")
        return rewards, self.path.terminal(rewards, self.reward_scale)

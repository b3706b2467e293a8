"""What a search is: it looks for samples of high reward, and says that it does not sample the target."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.feynman_kac.randomness import Generators, uniforms


class Search(ABC):
    """A way to look for samples of high reward, in place of weights and resampling.

    **It does not sample the target** `p(x) exp(reward_scale * reward(x))`: what it returns follows no known law. Its
    results therefore have equal weights, and a `log_z` of NaN. All samples in flight are counted by `num_particles`,
    so methods with equal `num_particles` make equal denoiser calls unless they say otherwise.

    Attributes:
        paper: where it was published.
    """

    paper: ClassVar[str]

    @property
    def uses_scale(self) -> bool:
        """Whether `reward_scale` matters beyond being 0, which switches the search off."""
        return False

    @abstractmethod
    def check(self, num_particles: int) -> None:
        """Refuse a number of particles that does not fit.

        Raises:
            ValueError: with the fix.
        """

    def described(self) -> str:
        """What it is, for records and reports."""
        return f"{type(self).__name__}: a search, does not sample the target; {self.paper}; {self!r}"


class Selection(Search):
    """A search that, at some steps, lets some particles of a prompt replace others."""

    @abstractmethod
    def steps(self, num_steps: int) -> tuple[int, ...]:
        """Return the steps at which the parents are scored and selected, sorted; 0 is the noisiest.

        Args:
            num_steps: of the run.
        """

    @abstractmethod
    def ancestors(
        self, rewards: Float64[Tensor, "B K"], *, reward_scale: float, generator: Generators
    ) -> Int64[Tensor, "B K"]:
        """Return which particle takes each slot.

        Args:
            rewards: of the particles' denoised predictions; `-inf` for those that may not be chosen.
            reward_scale: above 0.
            generator: one for each prompt.
        """


def chosen_of_blocks(
    rewards: Float64[Tensor, "B K"], children: int, *, reward_scale: float | None, generator: Generators
) -> Int64[Tensor, "B K"]:
    """Return ancestors by which, in each block of `children` neighbors, one takes all slots.

    Args:
        rewards: of the particles.
        children: size of a block; divides K.
        reward_scale: None takes the best, the first of equals; else one is drawn by `exp(reward_scale * reward)`.
        generator: one for each prompt, for the draws.
    """
    groups, particles = rewards.shape
    blocks = rewards.reshape(groups, particles // children, children)
    if reward_scale is None:
        chosen = blocks.argmax(dim=2)
    else:
        # The Gumbel-max trick: the largest of log weight + Gumbel noise is a draw by weight. A draw of 0 is no noise.
        drawn = uniforms(generator, (groups, particles), device=rewards.device).reshape(blocks.shape)
        noise = -torch.log(-torch.log(drawn.clamp(1e-300, 1 - 1e-16)))
        chosen = (reward_scale * blocks + noise).argmax(dim=2)
    first = torch.arange(0, particles, children, device=rewards.device)
    return (chosen + first).repeat_interleave(children, dim=1)


def check_children(name: str, children: int, num_particles: int) -> None:
    """Refuse children that do not fill the particles.

    Raises:
        ValueError: naming the argument.
    """
    if num_particles % children != 0:
        raise ValueError(
            f"expected num_particles to be a multiple of {name}={children}, as it counts all samples in flight, got "
            f"{num_particles}; give {children} or {2 * children}."
        )

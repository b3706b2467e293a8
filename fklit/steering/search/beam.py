"""Beam search: the best few of all children go on."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.checks import check_count
from fklit.feynman_kac.randomness import Generators
from fklit.feynman_kac.schedule import Schedule
from fklit.steering.search.search import Selection, check_children


@dataclass(frozen=True, kw_only=True)
class Beam(Selection):
    """Keeps the `width` particles with the best denoised predictions, each with `num_particles / width` children.

    Beam search over denoising steps (Oshima et al. 2025, arXiv 2501.19252); `width=1` is greedy search. It does not
    sample the target.

    Attributes:
        width: particles that go on, at least 1; divides `num_particles`. 1 is greedy.
        schedule: the steps that select; None for all that have drawn children.
    """

    width: int = 1
    schedule: Schedule | None = None
    paper: ClassVar[str] = "beam search (arXiv 2501.19252)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", check_count("width", self.width))

    def check(self, num_particles: int) -> None:
        """Refuse particles that are no multiple of the width."""
        check_children("width", self.width, num_particles)

    def steps(self, num_steps: int) -> tuple[int, ...]:
        """Return all steps but the first, whose samples are noise, or those of the schedule."""
        return tuple(range(1, num_steps)) if self.schedule is None else self.schedule.resolve(num_steps)

    def ancestors(
        self, rewards: Float64[Tensor, "B K"], *, reward_scale: float, generator: Generators
    ) -> Int64[Tensor, "B K"]:
        """Return the best `width` particles, the first of equals, each for as many slots."""
        order = torch.sort(rewards, dim=1, descending=True, stable=True).indices[:, : self.width]
        return order.sort(dim=1).values.repeat_interleave(rewards.shape[1] // self.width, dim=1)

"""SVDD: each particle has children, of which one goes on."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.checks import check_choice, check_count
from fklit.feynman_kac.randomness import Generators
from fklit.feynman_kac.schedule import Schedule
from fklit.steering.search.search import Selection, check_children, chosen_of_blocks


@dataclass(frozen=True, kw_only=True)
class SVDD(Selection):
    """At each step every particle has M children, which are scored by their denoised predictions; one of them goes on.

    Li et al. 2024, arXiv 2408.08252 (SVDD-PM). It does not sample the target: choosing among M children is
    importance sampling of one step, whose normalizing constant differs from particle to particle and is dropped, and
    `select="best"` is its limit at temperature 0. `num_particles / children` chains run side by side.

    Attributes:
        children: M, at least 1; 1 is the base. Divides `num_particles`, which counts all of them.
        select: "best", or "softmax" for a draw by `exp(reward_scale * reward)` (the paper's, with its alpha the
            inverse of `reward_scale`).
        schedule: the steps that select; None for all that have drawn children. The others go on with all of them.
    """

    children: int = 4
    select: Literal["best", "softmax"] = "best"
    schedule: Schedule | None = None
    paper: ClassVar[str] = "SVDD (arXiv 2408.08252)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", check_count("children", self.children))
        check_choice("select", self.select, ("best", "softmax"))

    @property
    def uses_scale(self) -> bool:
        """Whether `reward_scale` matters beyond being 0."""
        return self.select == "softmax"

    def check(self, num_particles: int) -> None:
        """Refuse particles that are no multiple of the children."""
        check_children("children", self.children, num_particles)

    def steps(self, num_steps: int) -> tuple[int, ...]:
        """Return all steps but the first, whose samples are noise, or those of the schedule."""
        if self.children == 1:
            return ()
        return tuple(range(1, num_steps)) if self.schedule is None else self.schedule.resolve(num_steps)

    def ancestors(
        self, rewards: Float64[Tensor, "B K"], *, reward_scale: float, generator: Generators
    ) -> Int64[Tensor, "B K"]:
        """Return one child of each particle for all its slots."""
        scale = reward_scale if self.select == "softmax" else None
        return chosen_of_blocks(rewards, self.children, reward_scale=scale, generator=generator)

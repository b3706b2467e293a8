"""CoDe: blocks of steps, after each of which the best sample goes on."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.checks import check_count
from fklit.feynman_kac.randomness import Generators
from fklit.steering.search.search import Selection, check_children, chosen_of_blocks


@dataclass(frozen=True, kw_only=True)
class CoDe(Selection):
    """Best-of-n by blocks: N samples run for a block of steps; the one with the best denoised prediction replaces all.

    Singh et al. 2025, arXiv 2502.00968. It does not sample the target. With a block as long as the run it
    is best-of-n; with blocks of one step it is `SVDD(select="best")`.

    Attributes:
        block: steps of a block, at least 1.
        samples: N, at least 2; divides `num_particles`, which counts all of them. None for all particles of a prompt.
    """

    block: int = 5
    samples: int | None = None
    paper: ClassVar[str] = "CoDe (arXiv 2502.00968)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", check_count("block", self.block))
        if self.samples is not None:
            object.__setattr__(self, "samples", check_count("samples", self.samples, minimum=2))

    def check(self, num_particles: int) -> None:
        """Refuse particles that are no multiple of the samples of a block."""
        if self.samples is not None:
            check_children("samples", self.samples, num_particles)

    def steps(self, num_steps: int) -> tuple[int, ...]:
        """Return the first step of each block but the first."""
        return tuple(range(self.block, num_steps, self.block))

    def ancestors(
        self, rewards: Float64[Tensor, "B K"], *, reward_scale: float, generator: Generators
    ) -> Int64[Tensor, "B K"]:
        """Return the best of each set of N for all its slots."""
        size = self.samples or rewards.shape[1]
        return chosen_of_blocks(rewards, size, reward_scale=None, generator=generator)

"""Rollover budget forcing: children are drawn until one is better, and what is left is spent on later steps."""

from dataclasses import dataclass
from typing import ClassVar

from fklit.checks import check_count
from fklit.steering.search.search import Search


@dataclass(frozen=True, kw_only=True)
class RolloverBudget(Search):
    """Draws a child after the other at each step, until the reward rises; unspent draws roll over to the steps after.

    Kim et al. 2025, arXiv 2503.19385 (RBF). Where no child is better than its parent, the best of them goes on. It does
    not sample the target. Each particle is a chain of its own, so `num_particles=1` is one chain a prompt; the denoiser
    is called at most `draws` times as often as by the base, and less where children are soon better.

    Attributes:
        draws: children a step that each chain may draw on average, at least 1; 1 is the base.
    """

    draws: int = 4
    paper: ClassVar[str] = "rollover budget forcing (arXiv 2503.19385)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", check_count("draws", self.draws))

    def check(self, num_particles: int) -> None:
        """Take any number of particles."""

"""The settings of steering."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Required

from fklit.checks import check_count
from fklit.rewards.base import Reward
from fklit.sampling.settings import SamplingArguments, SamplingSettings
from fklit.steering.proposal import Proposal


@dataclass(frozen=True, kw_only=True)
class SteeringSettings(SamplingSettings):
    """All settings of `fklit.steer`, of `SteeringRun` and of `SteeringTask`.

    Attributes:
        previews: whether thumbnails of the denoised predictions are kept; of texts, one predicted text of each particle
            at each scored step, and the step that unmasked each token.
        num_sweeps: sweeps of particle Gibbs after the first run, at least 0: each runs all particles but one again and
            keeps one trajectory of the last sweep; for models that own their steps, such as those of text. The cost
            grows in proportion; the law comes nearer to the target without more particles.
        proposal: draws the children of each step from a law with a shifted mean, such as
            `fklit.steering.gradient_proposal.GradientProposal`; the importance ratio keeps the target. None draws from
            the sampler's own law.
    """

    reward: Reward | Callable[..., Any]
    previews: bool = True
    num_sweeps: int = 0
    proposal: Proposal | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "num_sweeps", check_count("num_sweeps", self.num_sweeps, minimum=0))
        if self.num_sweeps and self.num_particles < 2:
            raise ValueError(
                f"expected num_particles of at least 2 with num_sweeps={self.num_sweeps}, got {self.num_particles}: "
                "one is kept; raise it."
            )
        if self.proposal is not None and not isinstance(self.proposal, Proposal):
            raise TypeError(
                f"proposal expected a Proposal, got a {type(self.proposal).__name__}; give one such as "
                "GradientProposal() of fklit.steering.gradient_proposal."
            )


class SteeringArguments(SamplingArguments, total=False):
    """`SteeringSettings` as keyword arguments."""

    reward: Required[Reward | Callable[..., Any]]
    previews: bool
    num_sweeps: int
    proposal: Proposal | None

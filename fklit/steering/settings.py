"""The settings of steering."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Required

from fklit.checks import check_count
from fklit.feynman_kac.potentials import Difference
from fklit.rewards.base import Reward
from fklit.sampling.settings import SamplingArguments, SamplingSettings
from fklit.steering.proposal import Proposal
from fklit.steering.search.search import Search

_OF_WEIGHTS = (
    "potential", "reward_schedule", "tempering", "resampler", "ess_threshold", "num_sweeps", "proposal",
)  # fmt: skip


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
        search: looks for samples of high reward in place of weights and resampling, such as
            `fklit.steering.search.SVDD`; it does not sample the target. None for FK steering, which does.
    """

    reward: Reward | Callable[..., Any]
    previews: bool = True
    num_sweeps: int = 0
    proposal: Proposal | None = None
    search: Search | None = None

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
        if self.search is not None:
            self._check_search(self.search)

    def _check_search(self, search: object) -> None:
        """Refuse what is no search, and settings that a search would ignore."""
        if not isinstance(search, Search):
            raise TypeError(
                f"search expected a Search, got a {type(search).__name__}; give one such as SVDD(children=4) of "
                "fklit.steering.search."
            )
        for item in fields(self):
            value = getattr(self, item.name)
            usual = Difference() if item.name == "potential" else item.default
            if item.name in _OF_WEIGHTS and value != usual:
                raise ValueError(
                    f"search={type(search).__name__} expected {item.name}={usual!r}, as a search does not weigh and "
                    f"chooses its own steps, got {value!r}; omit it, or set search=None."
                )
        search.check(self.num_particles)


class SteeringArguments(SamplingArguments, total=False):
    """`SteeringSettings` as keyword arguments."""

    reward: Required[Reward | Callable[..., Any]]
    previews: bool
    num_sweeps: int
    proposal: Proposal | None
    search: Search | None

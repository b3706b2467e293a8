"""The settings of steering."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Required

from fklit.checks import check_count
from fklit.feynman_kac.potentials import Difference, get_potential
from fklit.rewards.base import Reward
from fklit.sampling.look_ahead import LookAhead
from fklit.sampling.settings import SamplingArguments, SamplingSettings
from fklit.steering.calibration.proposal import Goal
from fklit.steering.calibration.record import Calibration, as_calibration
from fklit.steering.fewer_particles import FewerParticles
from fklit.steering.goals import settings_of_goal
from fklit.steering.proposal import Proposal
from fklit.steering.search.search import Search

_OF_WEIGHTS = (
    *("goal", "potential", "reward_schedule", "tempering"),
    *("resampler", "ess_threshold", "num_sweeps", "proposal", "latent_reward", "look_ahead", "stop_scoring_above"),
    "fewer_particles",
)


@dataclass(frozen=True, kw_only=True)
class SteeringSettings(SamplingSettings):
    """All settings of `fklit.steer`, of `SteeringRun` and of `SteeringTask`.

    Attributes:
        goal: "best" for one good sample of each prompt (a plain difference at a high scale, resampled below K/2), or
            "sample" for draws from the target (the calibrated potential, resampled whenever weights differ); it sets
            potential, ess_threshold and, where they are None and there is a calibration, reward_scale and
            reward_schedule; see docs/calibration.md. A setting that equals its default counts as not given, any other
            value than the goal's is refused. None leaves all settings as they are.
        calibration: of this sampler and reward, or the path of one that `fklit calibrate` has written; for `goal`.
        previews: whether thumbnails of the denoised predictions are kept; of texts, one predicted text of each particle
            at each scored step, and the step that unmasked each token.
        num_sweeps: sweeps of particle Gibbs after the first run, at least 0: each runs all particles but one again and
            keeps one trajectory of the last sweep; for models that own their steps, such as those of text. The cost
            grows in proportion; the law comes nearer to the target without more particles.
        proposal: draws the children of each step from a law with a shifted mean, such as
            `fklit.steering.gradient_proposal.GradientProposal`; the importance ratio keeps the target. None draws from
            the sampler's own law.
        look_ahead: `fklit.sampling.look_ahead.LookAhead(num_samples=2, num_steps=2)`: clean samples are drawn from each
            particle by a short rollout of the denoiser and scored, in place of the denoised prediction; the target is
            the same. None scores the prediction.
        fewer_particles: `FewerParticles(above=..., number=1)`: a prompt all of whose particles score above a value goes
            on with fewer of them, which saves calls of the denoiser; None keeps K particles.
        search: looks for samples of high reward in place of weights and resampling, such as
            `fklit.steering.search.SVDD`; it does not sample the target. None for FK steering, which does.
    """

    reward: Reward | Callable[..., Any]
    goal: Goal | None = None
    calibration: str | Path | Calibration | None = None
    previews: bool = True
    num_sweeps: int = 0
    proposal: Proposal | None = None
    look_ahead: LookAhead | None = None
    fewer_particles: FewerParticles | None = None
    search: Search | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search is not None:  # before the goal sets what a search would refuse
            self._check_search(self.search)
        if self.calibration is not None:
            object.__setattr__(self, "calibration", as_calibration(self.calibration))
            if self.goal is None:
                raise ValueError(
                    "expected a goal with a calibration, got none; give goal='sample' or goal='best', or the potential "
                    "fklit.steering.calibration.Calibrated(calibration) alone."
                )
        if self.goal is not None:
            self._settle(self.goal)
        object.__setattr__(self, "num_sweeps", check_count("num_sweeps", self.num_sweeps, minimum=0))
        if self.num_sweeps and self.num_particles < 2:
            raise ValueError(
                f"expected num_particles of at least 2 with num_sweeps={self.num_sweeps}, got {self.num_particles}: "
                "one is kept; raise it."
            )
        if self.fewer_particles is not None:
            self._check_fewer(self.fewer_particles)
        if self.look_ahead is not None:
            self._check_look_ahead(self.look_ahead)
        if self.proposal is not None and not isinstance(self.proposal, Proposal):
            raise TypeError(
                f"proposal expected a Proposal, got a {type(self.proposal).__name__}; give one such as "
                "GradientProposal() of fklit.steering.gradient_proposal."
            )

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

    def _check_fewer(self, given: object) -> None:
        """Refuse what is no `FewerParticles`, and settings that it does not go with."""
        if not isinstance(given, FewerParticles):
            raise TypeError(
                f"fewer_particles expected a FewerParticles, got a {type(given).__name__}; give one such as "
                "FewerParticles(above=-0.1) of fklit.steering.fewer_particles."
            )
        for name, wrong, why in (
            ("num_particles", self.num_particles % given.number != 0, f"which {given.number} does not divide"),
            ("ess_threshold", self.ess_threshold == 0, "which never resamples"),
            ("proposal", self.proposal is not None, "whose ratio belongs to each particle"),
        ):
            if wrong:
                raise ValueError(
                    f"fewer_particles={given!r} does not go with {name}={getattr(self, name)!r}, {why}; change one, or "
                    "omit fewer_particles."
                )

    def _check_look_ahead(self, given: object) -> None:
        """Refuse what is no `LookAhead`, and settings with which nothing would be looked ahead for."""
        if not isinstance(given, LookAhead):
            raise TypeError(
                f"look_ahead expected a LookAhead, got a {type(given).__name__}; give one such as "
                "LookAhead(num_samples=2, num_steps=2) of fklit.sampling.look_ahead."
            )
        if self.latent_reward is not None:
            raise ValueError(
                f"expected look_ahead=None with latent_reward={self.latent_reward!r}, which scores the latents of the "
                f"particles themselves, got {given!r}; omit one of the two."
            )
        if not get_potential(self.potential).scores_intermediate:
            raise ValueError(
                f"expected look_ahead=None with potential={self.potential!r}, which scores finished samples only, got "
                f"{given!r}; omit it, or take potential='difference'."
            )

    def _settle(self, goal: Goal) -> None:
        """Set what the goal sets."""
        names = ("potential", "ess_threshold", "reward_scale", "reward_schedule")
        usual: dict[str, Any] = {name: type(self).__dataclass_fields__[name].default for name in names}
        usual["potential"] = get_potential(usual["potential"])
        found = None if self.calibration is None else as_calibration(self.calibration)
        for name, value in settings_of_goal(goal, found, {n: getattr(self, n) for n in names}, usual).items():
            object.__setattr__(self, name, value)


class SteeringArguments(SamplingArguments, total=False):
    """`SteeringSettings` as keyword arguments."""

    reward: Required[Reward | Callable[..., Any]]
    goal: Goal | None
    calibration: str | Path | Calibration | None
    previews: bool
    num_sweeps: int
    proposal: Proposal | None
    look_ahead: LookAhead | None
    fewer_particles: FewerParticles | None
    search: Search | None

"""What a nudge does to a network: the response that equilibrium propagation takes for its error vector."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from fklit.eqprop.dynamics import Settled
from fklit.eqprop.nudges import Nudge
from fklit.eqprop.state import State, blank_rows

if TYPE_CHECKING:
    from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork

Force = State | Nudge
"""A constant nudge of each population, or a loss that is followed along the trajectory."""


@dataclass(frozen=True)
class Response:
    """What a nudge did.

    Attributes:
        error: Error vector of each population, ``(samples, *shape)``, real; zero for samples that diverged.
        reports: The relaxations behind it; rows are phase after phase of all samples.
        diverged: Samples of which a phase diverged.
        point: Activities at which weights are to be credited, if not the free equilibrium.
    """

    error: State
    reports: tuple[Settled, ...]
    diverged: Bool[Tensor, " samples"]
    point: State | None = None


class Estimator(ABC):
    """Measures the response to a nudge at a free equilibrium."""

    needs_holomorphic: ClassVar[bool] = False

    @abstractmethod
    def respond(self, network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> Response:
        """Return the error vector.

        Args:
            network: The network.
            equilibrium: Its free equilibrium.
            force: Derivative of each sample's loss with respect to the activities of every population, or a loss.
        """


def check_beta(beta: float) -> float:
    """Return beta if it is above 0.

    Raises:
        ValueError: Otherwise.
    """
    if not beta > 0:
        raise ValueError(f"beta={beta} was given; it is the size of the nudge and must be above 0.")
    return beta


def finish(error: State, reports: tuple[Settled, ...], samples: int, point: State | None = None) -> Response:
    """Collect which samples diverged in a phase and set their error to zero."""
    diverged = torch.stack([report.diverged.view(-1, samples).any(0) for report in reports]).any(0)
    clean = tuple(blank_rows(diverged, part) for part in error)
    return Response(clean, reports, diverged, point)


def constant_force(network: "EquilibriumNetwork", equilibrium: "Equilibrium", force: Force) -> State:
    """The force as a state: a loss is evaluated at the free equilibrium."""
    if not isinstance(force, Nudge):
        return force
    out = equilibrium.state[network.output]
    pull = force.force(network, out)
    return tuple(pull if i == network.output else torch.zeros_like(s) for i, s in enumerate(equilibrium.state))

"""Estimators of the response to a nudge, which equilibrium propagation takes for its error vector."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from fklit.eqprop.learning.nudges import Nudge
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State, zero_rows
from fklit.eqprop.relaxation.result import Equilibrium, RelaxationResult, UnconvergedPolicy
from fklit.eqprop.relaxation.settings import Relaxation

Force = State | Nudge
"""A constant nudge of each layer, or a loss whose gradient is followed along the trajectory."""


@dataclass(frozen=True)
class Response:
    """The response to a nudge.

    Attributes:
        error: Error vector of each layer, `(samples, *shape)`, real; zero for samples that diverged.
        results: The relaxations behind it; rows are phase after phase of all samples.
        diverged: Samples of which a phase diverged.
        converged: Samples of which every phase converged.
        gradient_state: Activities at which the local gradients are to be taken; None for the free equilibrium.
    """

    error: State
    results: tuple[RelaxationResult, ...]
    diverged: Bool[Tensor, " samples"]
    converged: Bool[Tensor, " samples"]
    gradient_state: State | None = None


class Estimator(ABC):
    """Measures the response to a nudge at a free equilibrium.

    Attributes:
        needs_holomorphic: Whether activations and pooling have to be holomorphic.
        relaxation: Of the phases that it runs.
        linearizes: Whether it takes derivatives at the free state. They say nothing about a sample that has not reached
            its fixed point: the linear iteration there may have no fixed point at all, and its response no bound.
        low_precision: Whether `Execution.response_precision` may be a low one.
    """

    needs_holomorphic: ClassVar[bool] = False
    linearizes: ClassVar[bool] = False
    low_precision: ClassVar[bool] = False

    relaxation: Relaxation

    def policy(self, unconverged: UnconvergedPolicy | None) -> UnconvergedPolicy:
        """What is done with samples that have not converged.

        Args:
            unconverged: What was asked for.

        Returns:
            The same; for None `"drop"` if the estimator linearizes, otherwise `"keep"`.
        """
        if unconverged is None:
            return "drop" if self.linearizes else "keep"
        return unconverged

    @abstractmethod
    def respond(self, network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> Response:
        """Return the error vector.

        Args:
            network: The network.
            equilibrium: Its free equilibrium.
            force: Derivative of each sample's loss with respect to the activities of every layer, or a loss.
        """

    def check(self, network: RecurrentNetwork) -> None:
        """Refuse networks that this estimator cannot be used with.

        Raises:
            ValueError: If it has complex phases and an activation or a pooling is not holomorphic, or the network's
                execution asks for a response in a low precision and this is no linear one.
        """
        asked = network.execution.response_precision
        if asked != "full" and not self.low_precision:
            raise ValueError(
                f"expected ExactResponse or RecurrentBackprop for execution.response_precision={asked!r}, got "
                f"{type(self).__name__}, whose small differences of states do not survive it; give 'full'."
            )
        if self.needs_holomorphic and not network.holomorphic:
            raise ValueError(
                f"expected holomorphic activations and pooling for the complex phases of {type(self).__name__}, got "
                f"{', '.join(network.not_holomorphic())}; use another activation or pooling='softmax', or OneSided, "
                "Symmetric or ExactResponse."
            )


def check_beta(beta: float) -> float:
    """Return beta if it is above 0.

    Raises:
        ValueError: Otherwise.
    """
    if not beta > 0:
        raise ValueError(f"expected beta, the size of the nudge, above 0, got beta={beta}.")
    return beta


def collect(
    error: State, results: tuple[RelaxationResult, ...], samples: int, gradient_state: State | None = None
) -> Response:
    """Make a response, with an error of zero for the samples that diverged in a phase."""
    diverged = torch.stack([result.diverged.view(-1, samples).any(0) for result in results]).any(0)
    converged = torch.stack([result.converged.view(-1, samples).all(0) for result in results]).all(0)
    clean = tuple(zero_rows(diverged, part) for part in error)
    return Response(clean, results, diverged, converged, gradient_state)


def constant_force(network: RecurrentNetwork, equilibrium: Equilibrium, force: Force) -> State:
    """The force as a state: the gradient of a loss is taken at the free equilibrium."""
    if not isinstance(force, Nudge):
        return force
    gradient = force.force(network, equilibrium.state[network.output])
    return tuple(
        gradient if i == network.output else torch.zeros_like(part) for i, part in enumerate(equilibrium.state)
    )

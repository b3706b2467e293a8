"""Equilibrium networks: a recurrent network with free phase, estimator and policy, as an ordinary module."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.eqprop.learning.autograd import attach_gradient
from fklit.eqprop.learning.estimators import Symmetric
from fklit.eqprop.learning.nudges import Nudge
from fklit.eqprop.learning.responses import Estimator, Response
from fklit.eqprop.learning.unconverged import check_policy
from fklit.eqprop.network.activations import Activation
from fklit.eqprop.network.connections import Connection
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.network.feedforward import feedforward_pass
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State
from fklit.eqprop.relaxation.free_phase import relax_free
from fklit.eqprop.relaxation.precision import full_precision
from fklit.eqprop.relaxation.result import Equilibrium, UnconvergedPolicy
from fklit.eqprop.relaxation.settings import Relaxation
from fklit.hyperparameters import RecordsArguments


class EquilibriumNetwork(RecordsArguments, RecurrentNetwork):
    """A network whose output is a fixed point, trained by equilibrium propagation.

    `network(x)` is differentiable as any module is: `loss.backward()` runs the nudged phases of `estimator` and
    fills `.grad` with the equilibrium-propagation gradient (Laborieux & Zenke 2024, arXiv 2309.02214). Activities
    follow `s <- act(sum of links + bias + input)`. Dynamics and readout run in the weights' precision, in single
    precision for weights of half of it, whatever autocast says: differences of states are small.

    Args:
        input_shape: Of one sample.
        layers: In the order of updates and of states.
        connections: Between them; at most one for each ordered pair.
        output: Name of the layer that is read and nudged; None for the last.
        num_classes: Size of a trainable linear readout on top of it, outside the dynamics; None for no readout.
        activation: For layers that name none; None for the shifted sigmoid.
        free: How the free phase relaxes; None for the defaults of `Relaxation`.
        estimator: How the response to a nudge is measured; None for `Symmetric`.
        unconverged: What is done with samples whose free phase has not converged, or, for an estimator that linearizes
            (`ExactResponse`, `RecurrentBackprop`, `CorrectedNudge`), whose linear iteration has not: `"keep"` treats
            them as the others, `"drop"` gives them no gradient of the dynamics (their error vector is zero;
            `EqPropTask` also leaves out the loss of those whose free phase has not converged), `"raise"` stops with an
            error. None means `"drop"` for estimators that linearize, whose response at a state that is no fixed point
            has no bound, and `"keep"` for finite nudges. Diverged samples never have a gradient of the dynamics.
        execution: Switches for speed; None for the defaults.

    Raises:
        ValueError: If names, shapes or connections do not fit, or the estimator needs complex numbers and an
            activation is not holomorphic.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Sequence[Layer],
        *,
        connections: Sequence[Connection],
        output: str | None = None,
        num_classes: int | None = None,
        activation: Activation | None = None,
        free: Relaxation | None = None,
        estimator: Estimator | None = None,
        unconverged: UnconvergedPolicy | None = None,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(
            input_shape,
            layers,
            connections=connections,
            output=output,
            num_classes=num_classes,
            activation=activation,
            execution=execution,
        )
        self.free = Relaxation() if free is None else free
        self.estimator = Symmetric() if estimator is None else estimator
        self.unconverged = unconverged
        self.estimator.check(self)
        check_policy(unconverged, self.free, self.estimator)

    def constructor_arguments(self) -> dict[str, Any]:
        """Arguments that build this network again, without its weights; policies are those that hold now.

        Returns:
            The arguments of the constructor by name.
        """
        now = {name: getattr(self, name) for name in ("input_shape", "free", "estimator", "unconverged", "execution")}
        arguments = super().constructor_arguments()
        return arguments | {name: value for name, value in now.items() if name in arguments}

    @torch.no_grad()
    def free_equilibrium(self, x: Tensor, *, start: State | None = None) -> Equilibrium:
        """Relax without a nudge.

        Args:
            x: Input, `(samples, *input_shape)`.
            start: First activities, for a warm start; None for what `free.start` says.

        Returns:
            The state of the batch, how it was reached, and the drive; without gradient.

        Raises:
            ValueError: If x or the start has a wrong shape.
            RuntimeError: If `unconverged="raise"` and a sample has not converged.
        """
        with torch.autocast(x.device.type, enabled=False), full_precision():
            x = x.to(self.dtype)
            if self.execution.channels_last and x.dim() == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            drive = self.drive(x)
            if start is not None:
                first = self._checked(start, len(x))
            else:
                first = feedforward_pass(self, drive) if self.free.start == "feedforward" else self.zero_state(len(x))
            result = relax_free(self, drive, first, self.free)
        if self.unconverged == "raise" and not bool(result.converged.all()):
            counts = result.counts()
            raise RuntimeError(
                f"expected all {counts['samples']} samples to converge in {self.free.max_iterations} iterations, got "
                f"{counts['unconverged']} that did not ({counts['period_two']} of period two, {counts['diverged']} "
                "diverged); raise free.max_iterations, lower free.rate, or choose unconverged='keep' or 'drop'."
            )
        return Equilibrium(x.detach(), drive, result)

    def _checked(self, start: State, samples: int) -> State:
        wanted = [(samples, *layer.shape) for layer in self.layers]
        given = [tuple(part.shape) for part in start]
        if given != wanted:
            raise ValueError(f"expected a start of shapes {wanted}, got {given}.")
        return tuple(part.to(self.dtype) for part in start)

    def attach(
        self,
        equilibrium: Equilibrium,
        *,
        x: Tensor | None = None,
        nudge: Nudge | None = None,
        record: list[Response] | None = None,
    ) -> State:
        """Give a free equilibrium its equilibrium-propagation gradient.

        Args:
            equilibrium: From `free_equilibrium`.
            x: The input it was computed from, if that is to receive a gradient, too.
            nudge: None nudges with the constant gradient that comes back from the loss, scaled to norm 1 for each
                sample, so that |beta| means the same for any reduction. The gradient of a loss here is followed along
                the nudged trajectory instead, as published; the loss that is minimized must then be the same up to a
                factor.
            record: A list to which the backward pass appends the response of the nudged phases.

        Returns:
            Activities of every layer, with gradient.

        Raises:
            ValueError: If the nudge has not one target for each sample.
        """
        if nudge is not None and len(nudge.target) != len(equilibrium.x):
            raise ValueError(
                f"expected one target of the nudge for each of {len(equilibrium.x)} samples, got {len(nudge.target)}."
            )
        self.estimator.check(self)  # they may have been exchanged since
        check_policy(self.unconverged, self.free, self.estimator)
        return attach_gradient(
            self,
            equilibrium,
            estimator=self.estimator,
            unconverged=self.unconverged,
            x=x,
            nudge=nudge,
            record=record,
        )

    def forward(self, x: Tensor, nudge: Nudge | None = None) -> Tensor:
        """Relax and read.

        Args:
            x: Input, `(samples, *input_shape)`.
            nudge: As in `attach`.

        Returns:
            Logits of the readout `(samples, classes)`, or without one the output layer's activities.
        """
        return self.read(self.attach(self.free_equilibrium(x), x=x, nudge=nudge))

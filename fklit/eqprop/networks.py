"""Networks that settle: a graph of populations and connections, declared with plain arguments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fklit.eqprop.activations import Activation, ShiftedSigmoid, is_holomorphic
from fklit.eqprop.autograd import attach
from fklit.eqprop.connections import Connection, Link, lecun_
from fklit.eqprop.dynamics import Relaxation, Settled
from fklit.eqprop.estimators import Symmetric
from fklit.eqprop.execution import Execution, relax_freely
from fklit.eqprop.graph import Population, build_links, color
from fklit.eqprop.nudges import Nudge
from fklit.eqprop.responses import Estimator, Response
from fklit.eqprop.state import State, halves

UnsettledPolicy = Literal["keep", "drop", "raise"]


@dataclass(frozen=True)
class Equilibrium:
    """A free equilibrium of a batch.

    Attributes:
        x: The input.
        drive: Static input of each population: biases and input links (no gradient).
        report: State, residual and steps of each sample.
    """

    x: Tensor
    drive: State
    report: Settled

    @property
    def state(self) -> State:
        """Activities of each population (no gradient)."""
        return self.report.state


class EquilibriumNetwork(nn.Module):
    """A network whose output is a fixed point, trained by equilibrium propagation.

    ``network(x)`` is differentiable as any module is: ``loss.backward()`` runs the nudged phases of ``estimator`` and
    fills ``.grad`` with the equilibrium-propagation gradient (Laborieux & Zenke 2024, arXiv 2309.02214). Activities
    follow ``s <- act(sum of links + bias + input)``. Dynamics and readout run in the weights' precision, in single
    precision for weights of half of it, whatever autocast says: differences of states are small.

    Args:
        input_shape: Of one sample.
        populations: In the order of sweeps and reports.
        connections: Between them; at most one for each ordered pair.
        output: Name of the population that is read and nudged; None for the last.
        num_classes: Size of a trainable linear readout on top of it, outside the dynamics; None for no readout.
        activation: For populations that name none.
        free: How the free phase relaxes.
        estimator: How the response to a nudge is measured.
        unsettled: What unsettled samples teach: ``"keep"`` as the others, ``"drop"`` nothing to the dynamics (their
            error vector is zero), ``"raise"`` stops with an error. Diverged samples never teach the dynamics.
        execution: Switches for speed; None for the defaults.

    Raises:
        ValueError: If names, shapes or connections do not fit, or the estimator needs complex numbers and an
            activation is not holomorphic.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        populations: Sequence[Population],
        *,
        connections: Sequence[Connection],
        output: str | None = None,
        num_classes: int | None = None,
        activation: Activation | None = None,
        free: Relaxation | None = None,
        estimator: Estimator | None = None,
        unsettled: UnsettledPolicy = "keep",
        execution: Execution | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.populations = tuple(populations)
        self.names = tuple(population.name for population in self.populations)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"Populations {list(self.names)} were given; there is at least one, and names differ.")
        if output is not None and output not in self.names:
            raise ValueError(f"output={output!r} was given; give one of {list(self.names)}.")
        if unsettled not in ("keep", "drop", "raise"):
            raise ValueError(f"unsettled={unsettled!r} was given; give 'keep', 'drop' or 'raise'.")
        self.output = len(self.names) - 1 if output is None else self.names.index(output)
        default = ShiftedSigmoid() if activation is None else activation
        self.activations = tuple(population.activation or default for population in self.populations)
        self.free = Relaxation() if free is None else free
        self.unsettled = unsettled
        self.execution = Execution() if execution is None else execution
        self.links, self.ends = build_links(self.input_shape, self.populations, connections)
        self.colors = color(len(self.names), [ends for ends in self.ends.values() if ends[0] >= 0])
        self.biases = nn.ParameterDict()
        for population in self.populations:
            if population.bias:
                sides = len(population.shape) - 1
                self.biases[population.name] = nn.Parameter(torch.zeros(population.shape[0], *[1] * sides))
        self.readout: nn.Linear | None = None
        if num_classes is not None:
            size = math.prod(self.populations[self.output].shape)
            self.readout = nn.Linear(size, num_classes)
            lecun_(self.readout.weight.data, size)
            nn.init.zeros_(self.readout.bias)
        self.holomorphic = all(is_holomorphic(activation) for activation in self.activations)
        self.estimator = Symmetric() if estimator is None else estimator
        self.check_estimator(self.estimator)
        if self.execution.channels_last:
            self.to(memory_format=torch.channels_last)  # convolutions then hand out states in that format

    def check_estimator(self, estimator: Estimator) -> None:
        """Refuse an estimator with complex phases for activations that are not holomorphic.

        Raises:
            ValueError: In that case.
        """
        if estimator.needs_holomorphic and not self.holomorphic:
            wrong = sorted({repr(a) for a in self.activations if not is_holomorphic(a)})
            raise ValueError(
                f"{type(estimator).__name__} uses complex phases, but {', '.join(wrong)} is not holomorphic; use a "
                "holomorphic activation, or OneSided, Symmetric or ExactResponse."
            )

    @property
    def dtype(self) -> torch.dtype:
        """Number format of states."""
        return torch.promote_types(next(self.parameters()).dtype, torch.float32)

    @property
    def num_neurons(self) -> int:
        """Neurons of all populations, D in the paper."""
        return sum(math.prod(population.shape) for population in self.populations)

    def link(self, name: str) -> Link:
        """A link by its name ``pre-post``."""
        module = self.links[name]
        assert isinstance(module, Link)
        return module

    def drive(self, x: Tensor) -> State:
        """Static input of each population: bias and links from the input, ``(samples, *shape)`` each.

        Raises:
            ValueError: If x does not have the network's input shape.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"A batch of shape {tuple(x.shape)} was given; samples of this network have shape {self.input_shape}."
            )
        total: list[Tensor | None] = [None] * len(self.names)
        for name, (pre, post) in self.ends.items():
            if pre < 0:
                given = self.link(name).to_post(x)
                earlier = total[post]
                total[post] = given if earlier is None else earlier + given
        return tuple(self._with_bias(i, part, x) for i, part in enumerate(total))

    def _with_bias(self, i: int, part: Tensor | None, x: Tensor) -> Tensor:
        population = self.populations[i]
        if part is None:
            part = self._zeros(len(x), population)
        return part + self.biases[population.name] if population.bias else part

    def recurrent(
        self, state: State, populations: Sequence[int] | None = None, *, split: bool = False
    ) -> dict[int, Tensor]:
        """Input H(s) that populations get from one another, without the static drive.

        Args:
            state: Activities of all populations (real, complex or split).
            populations: Whose input; None for all. Those that get none are left out of the answer.
            split: Whether the state is split into real and imaginary half.
        """
        wanted = set(range(len(self.names)) if populations is None else populations)
        inputs: dict[int, Tensor] = {}

        def add(i: int, given: Tensor) -> None:
            inputs[i] = inputs[i] + given if i in inputs else given

        for name, (pre, post) in self.ends.items():
            if pre < 0:
                continue
            link = self.link(name)
            if post in wanted:
                add(post, link.to_post(state[pre], split=split))
            if link.reciprocal and pre in wanted:
                add(pre, link.to_pre(state[pre], state[post], split=split))
        return inputs

    def activate(self, population: int, total: Tensor, *, split: bool = False) -> Tensor:
        """Activities of a population from its total input."""
        activation = self.activations[population]
        return torch.cat(activation.split(*halves(total))) if split else activation(total)

    def slopes(self, state: State, drive: State) -> State:
        """Derivative of each neuron's activation at its total input."""
        with torch.no_grad():
            inputs = self.recurrent(state)
        return tuple(
            self.activations[i].slope(part + inputs[i] if i in inputs else part) for i, part in enumerate(drive)
        )

    def zero_state(self, samples: int) -> State:
        """Activities of zero, the usual start."""
        return tuple(self._zeros(samples, population) for population in self.populations)

    def _zeros(self, samples: int, population: Population) -> Tensor:
        device = next(self.parameters()).device
        zeros = torch.zeros(samples, *population.shape, dtype=self.dtype, device=device)
        last = self.execution.channels_last and zeros.dim() == 4
        return zeros.contiguous(memory_format=torch.channels_last) if last else zeros

    @torch.no_grad()
    def free_equilibrium(self, x: Tensor, *, start: State | None = None) -> Equilibrium:
        """Relax without a nudge.

        Args:
            x: Input, ``(samples, *input_shape)``.
            start: First activities, for a warm start; None for zeros.

        Raises:
            ValueError: If x or the start has a wrong shape.
            RuntimeError: If ``unsettled="raise"`` and a sample did not settle.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.dtype)
            if self.execution.channels_last and x.dim() == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            drive = self.drive(x)
            first = self.zero_state(len(x)) if start is None else self._checked(start, len(x))
            report = relax_freely(self, drive, first)
        if self.unsettled == "raise" and not bool(report.settled.all()):
            counts = report.counts()
            raise RuntimeError(
                f"{counts['unsettled']} of {counts['samples']} samples did not settle in {self.free.max_steps} sweeps "
                f"({counts['period_two']} of period two, {counts['diverged']} diverged); raise free.max_steps, lower "
                "free.rate, or choose unsettled='keep' or 'drop'."
            )
        return Equilibrium(x.detach(), drive, report)

    def _checked(self, start: State, samples: int) -> State:
        wanted = [(samples, *population.shape) for population in self.populations]
        given = [tuple(part.shape) for part in start]
        if given != wanted:
            raise ValueError(f"start has shapes {given}; for this batch and network they must be {wanted}.")
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
            equilibrium: From :meth:`free_equilibrium`.
            x: The input it was computed from, if that is to receive a gradient, too.
            nudge: None nudges with the constant gradient that comes back from the loss, scaled to norm 1 for each
                sample, so that |beta| means the same for any reduction. A loss here is followed along the nudged
                trajectory instead, as published; the loss that is minimized must then be the same up to a factor.
            record: A list to which the backward pass appends the response of the nudged phases.

        Returns:
            Activities of every population, with gradient.

        Raises:
            ValueError: If the nudge has not one target for each sample.
        """
        if nudge is not None and len(nudge.target) != len(equilibrium.x):
            raise ValueError(
                f"A nudge with {len(nudge.target)} targets was given for {len(equilibrium.x)} samples; give one for "
                "each."
            )
        return attach(self, equilibrium, x=x, nudge=nudge, record=record)

    def read(self, state: State) -> Tensor:
        """Logits of the readout ``(samples, classes)``, or without one the output population's activities."""
        out = state[self.output]
        if self.readout is None:
            return out
        with torch.autocast(out.device.type, enabled=False):
            weight, bias = (parameter.to(out.dtype) for parameter in (self.readout.weight, self.readout.bias))
            return F.linear(out.flatten(1), weight, bias)

    def forward(self, x: Tensor, nudge: Nudge | None = None) -> Tensor:
        """Relax and read.

        Args:
            x: Input, ``(samples, *input_shape)``.
            nudge: As in :meth:`attach`.
        """
        return self.read(self.attach(self.free_equilibrium(x), x=x, nudge=nudge))

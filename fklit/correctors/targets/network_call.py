"""How a network is called: functions, modules, and the UNets and transformers of diffusers with their outputs."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Condition = Tensor | Mapping[str, Any]
"""A tensor (B, ...) with a row for each group (or one row), or tensors by the name of the network's argument."""


class NetworkCall:
    """Calls a network as its signature asks, in evaluation mode and in its own dtype.

    - A network with an argument `timestep` (all of diffusers) gets the time by that name, and a condition that is one
      tensor as `encoder_hidden_states` or `class_labels`, whichever it has; any other gets `(x, time, condition)`.
    - Output objects give their `sample`, tuples their first entry; of an output with twice the channels of the sample
      (a learned variance) the first half counts.
    - Modules left in training mode are switched to evaluation for the call, and back.
    - Floating inputs are cast to the dtype of the network's weights.

    Args:
        network: a function or a module.
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network = network
        self.module = network if isinstance(network, nn.Module) else None
        function = network if self.module is None else self.module.forward
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # built-in functions have none
            parameters = {}  # type: ignore[assignment]
        self._names = tuple(parameters)

    @property
    def _diffusers(self) -> bool:
        return self.module is not None and "timestep" in self._names

    def __call__(self, x: Tensor, time: Tensor, condition: Condition | None) -> Tensor:
        """Return the prediction for x (n, ...) at times (n,), of the shape of x.

        Args:
            x: samples.
            time: one a row.
            condition: with n rows, or None.

        Raises:
            TypeError: for an output that holds no tensor, or a condition that the network does not take.
        """
        kind = self._dtype() or x.dtype
        rows, time, condition = (_cast(value, kind) for value in (x, time, condition))
        with _evaluating(self.module):
            if not self._diffusers:
                if isinstance(condition, Mapping):
                    output = self.network(rows, time, **condition)
                else:
                    output = self.network(rows, time) if condition is None else self.network(rows, time, condition)
            else:
                output = self.network(rows, timestep=time, **self._named(condition))
        return _prediction(output, x)

    def _named(self, condition: Condition | None) -> dict[str, Any]:
        if condition is None:
            return {}
        if isinstance(condition, Mapping):
            unknown = sorted(set(condition) - set(self._names))
            if unknown:
                raise TypeError(
                    f"expected conditions that {type(self.network).__name__} takes, got {unknown}; it takes "
                    f"{', '.join(self._names)}."
                )
            return dict(condition)
        # Class numbers are integers of one axis; everything else is an embedding.
        numbers = not condition.is_floating_point() and condition.ndim == 1
        order = ("class_labels", "encoder_hidden_states") if numbers else ("encoder_hidden_states", "class_labels")
        for name in order:
            if name in self._names:
                return {name: condition}
        raise TypeError(
            f"expected a network with encoder_hidden_states or class_labels, got {type(self.network).__name__}; give "
            "the condition as a mapping {argument: tensor}."
        )

    def _dtype(self) -> torch.dtype | None:
        """Dtype of the weights, or None for a function or a module without."""
        if self.module is None:
            return None
        return next((value.dtype for value in self.module.parameters() if value.is_floating_point()), None)


def rows_of(condition: Any, groups: int, particles: int) -> Any:
    """Return a condition with a row for each particle, group by group.

    Args:
        condition: a tensor of 1 or `groups` rows, or mappings of such.
        groups: B.
        particles: K.

    Raises:
        ValueError: for another number of rows, or no condition at all.
    """
    if isinstance(condition, Mapping):
        return {name: rows_of(value, groups, particles) for name, value in condition.items()}
    if condition is None:
        raise ValueError(
            "expected a condition for every expert of a network, got experts with and without a condition; pass an "
            "empty prompt's embedding for the unconditional one."
        )
    if not isinstance(condition, Tensor):
        return condition  # an option, not a condition
    if condition.ndim == 0 or condition.shape[0] not in (1, groups):
        raise ValueError(
            f"expected a condition of 1 or {groups} rows, got {tuple(condition.shape[:1]) and condition.shape[0]} rows "
            f"for {groups} groups; pass one row, or one for each group."
        )
    return condition.expand(groups, *condition.shape[1:]).repeat_interleave(particles, dim=0)


def stacked(conditions: list[Any]) -> Any:
    """Return conditions of several experts one after another: tensors concatenated, by name where they have names."""
    first = conditions[0]
    if isinstance(first, Mapping):
        if any(not isinstance(other, Mapping) or set(other) != set(first) for other in conditions):
            raise ValueError(
                f"expected conditions of the same names {sorted(first)} for every expert of a network, got others; "
                "give each expert all of them."
            )
        return {name: stacked([other[name] for other in conditions]) for name in first}
    return torch.cat(conditions) if isinstance(first, Tensor) else first


def part_of(condition: Any, rows: slice) -> Any:
    """Return some rows of a condition."""
    if isinstance(condition, Mapping):
        return {name: part_of(value, rows) for name, value in condition.items()}
    return condition[rows] if isinstance(condition, Tensor) else condition


def _cast(value: Any, kind: torch.dtype) -> Any:
    if isinstance(value, Mapping):
        return {name: _cast(part, kind) for name, part in value.items()}
    return value.to(kind) if isinstance(value, Tensor) and value.is_floating_point() else value


def _prediction(output: Any, x: Tensor) -> Tensor:
    found = getattr(output, "sample", None) if not isinstance(output, Tensor) else output
    if isinstance(output, tuple | list) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        raise TypeError(
            f"expected a tensor, or an output with a tensor `sample`, got {type(output).__name__} from the network; "
            "wrap the network in a function that returns its prediction."
        )
    twice = (x.shape[0], 2 * x.shape[1], *x.shape[2:]) if x.ndim > 2 else None
    return found[:, : x.shape[1]] if found.shape == twice else found


@contextmanager
def _evaluating(module: nn.Module | None) -> Iterator[None]:
    """Switch what is in training mode to evaluation, and back."""
    training = [] if module is None else [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True

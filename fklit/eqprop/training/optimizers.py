"""Optimizers with a learning rate for each layer, as the convolutional networks of the paper need."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fklit.eqprop.network.recurrent import RecurrentNetwork


@dataclass(frozen=True)
class OptimizerSettings:
    """What to optimize with.

    Attributes:
        name: `"adam"`, `"adamw"` (decoupled decay) or `"sgd"` (decay added to the gradient, with momentum).
        learning_rate: Base rate.
        momentum: Of SGD.
        weight_decay: Base decay.
        rate_factors: Factor on the rate for a link by its name (`"conv1-conv2"`, both directions and the biases of its
            post layer) or for `"readout"`; 1 for all others.
        decay_factors: The same for the decay.
        schedule: `"cosine"` falls to 0 over all steps of the run, `"constant"` stays.

    Raises:
        ValueError: If a value is out of range.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    decay_factors: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["cosine", "constant"] = "constant"

    def __post_init__(self) -> None:
        if self.name not in ("adam", "adamw", "sgd") or self.schedule not in ("cosine", "constant"):
            raise ValueError(
                "expected name 'adam', 'adamw' or 'sgd' and schedule 'cosine' or 'constant', got "
                f"name={self.name!r} and schedule={self.schedule!r}."
            )
        if not self.learning_rate > 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ValueError(
                "expected learning_rate above 0, momentum in [0, 1) and weight_decay of at least 0, got "
                f"learning_rate={self.learning_rate}, momentum={self.momentum}, weight_decay={self.weight_decay}."
            )

    def plain(self) -> dict[str, Any]:
        """The settings as plain numbers, strings and dictionaries."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def parameter_groups(network: RecurrentNetwork, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """One group for each link, with the biases of its post layer, and one for the readout.

    The biases of a layer that is the post layer of several links are with the first of them.

    Raises:
        ValueError: If a factor names no link.
    """
    groups: dict[str, list[torch.nn.Parameter]] = {name: list(network.link(name).parameters()) for name in network.ends}
    for i, name in enumerate(network.names):
        if name in network.biases:
            first = next(link for link, (pre, post) in network.ends.items() if i in (post, pre))
            owner = next((link for link, (_, post) in network.ends.items() if post == i), first)
            groups[owner].append(network.biases[name])
    if network.readout is not None:
        groups["readout"] = list(network.readout.parameters())
    groups = {name: weights for name, weights in groups.items() if weights}  # residual connections have none
    unknown = (set(settings.rate_factors) | set(settings.decay_factors)) - set(groups)
    if unknown:
        raise ValueError(f"expected factors for some of {list(groups)}, got factors for {sorted(unknown)}.")
    return [
        {
            "params": weights,
            "name": name,
            "lr": settings.learning_rate * settings.rate_factors.get(name, 1.0),
            "weight_decay": settings.weight_decay * settings.decay_factors.get(name, 1.0),
        }
        for name, weights in groups.items()
    ]


def build_optimizer(network: RecurrentNetwork, settings: OptimizerSettings) -> Optimizer:
    """The optimizer of the settings for a network."""
    groups = parameter_groups(network, settings)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.learning_rate)


def cosine(optimizer: Optimizer, steps: Callable[[], int]) -> LRScheduler:
    """All rates fall from their first values to 0 over all steps, on half a cosine.

    The rate is a function of the step, so a run that is resumed with more epochs follows the longer curve.

    Args:
        optimizer: Whose rates.
        steps: Returns their number. It is called after the first step only: Lightning's estimate sets up the data,
            which a resumed run must do after the checkpoint is loaded.
    """

    def factor(step: int) -> float:
        return 1.0 if step == 0 else 0.5 * (1 + math.cos(math.pi * min(step / steps(), 1.0)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

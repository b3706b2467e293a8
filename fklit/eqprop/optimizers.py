"""Optimizers with a learning rate for each layer, as the conv nets of the paper need."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

if TYPE_CHECKING:
    from fklit.eqprop.networks import EquilibriumNetwork


@dataclass(frozen=True)
class OptimizerSettings:
    """What to optimize with.

    Attributes:
        name: ``"adam"``, ``"adamw"`` (decoupled decay) or ``"sgd"`` (decay added to the gradient, with momentum).
        learning_rate: Base rate.
        momentum: Of SGD.
        weight_decay: Base decay.
        rate_factors: Factor on the rate for a link by its name (``"conv1-conv2"``, both ways and the biases of its
            upper population) or for ``"readout"``; 1 for all others.
        decay_factors: The same for the decay.
        schedule: ``"cosine"`` falls to 0 over all steps of the run, ``"constant"`` stays.
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
                f"name={self.name!r}, schedule={self.schedule!r} were given; the optimizer is 'adam', 'adamw' or "
                "'sgd', the schedule 'cosine' or 'constant'."
            )
        if not self.learning_rate > 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate}, momentum={self.momentum}, weight_decay={self.weight_decay} were "
                "given; the rate is above 0, momentum in [0, 1), decay at least 0."
            )

    def plain(self) -> dict[str, Any]:
        """The settings as plain numbers, strings and dictionaries."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def parameter_groups(network: "EquilibriumNetwork", settings: OptimizerSettings) -> list[dict[str, Any]]:
    """One group a link, with the biases of its upper population, and one for the readout.

    A population with several links from below has its biases with the first.

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
    unknown = (set(settings.rate_factors) | set(settings.decay_factors)) - set(groups)
    if unknown:
        raise ValueError(f"Factors were given for {sorted(unknown)}; the network has {list(groups)}.")
    return [
        {
            "params": weights,
            "name": name,
            "lr": settings.learning_rate * settings.rate_factors.get(name, 1.0),
            "weight_decay": settings.weight_decay * settings.decay_factors.get(name, 1.0),
        }
        for name, weights in groups.items()
    ]


def build_optimizer(network: "EquilibriumNetwork", settings: OptimizerSettings) -> Optimizer:
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
        steps: Gives their number. It is asked after the first step only: Lightning must not be asked before, as it
            would then set up the data too early to put them where a checkpoint left them.
    """

    def factor(step: int) -> float:
        return 1.0 if step == 0 else 0.5 * (1 + math.cos(math.pi * min(step / steps(), 1.0)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

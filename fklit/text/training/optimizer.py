"""Muon for the matrices of a network and AdamW for the rest, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """`torch.optim.Muon` (Jordan et al. 2024) for matrices and `torch.optim.AdamW` for everything else.

    One optimizer, so that automatic optimization, gradient clipping, schedules and checkpoints work as usual; a
    schedule scales both learning rates.

    Args:
        matrices: Parameters of two axes that map hidden states to hidden states.
        others: Embeddings, heads, biases and weights of norms; they do not decay.
        learning_rate: Of Muon.
        adamw_learning_rate: Of AdamW.
        weight_decay: Of the matrices.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        adamw_learning_rate: float,
        weight_decay: float,
    ) -> None:
        first, second = list(matrices), list(others)
        super().__init__([*first, *second], {})
        self.muon = Muon(first, lr=learning_rate, weight_decay=weight_decay)
        self.adamw = AdamW(second, lr=adamw_learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self._share_groups()

    def _share_groups(self) -> None:
        # The same dictionaries, so that a schedule reaches both.
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; returns what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """States of both, by name."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()


def split_parameters(network: nn.Module, *, inside: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices of the hidden layers, and the other parameters.

    Args:
        network: The network.
        inside: What the names of its hidden layers start with, such as `blocks.`.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (matrices if name.startswith(inside) and _is_matrix(parameter) else others).append(parameter)
    return matrices, others


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim == 2

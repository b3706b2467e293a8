"""One pass through the layers: what a network computes without its backward directions."""

from torch import Tensor

from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.state import State


def feedforward_pass(network: RecurrentNetwork, drive: State) -> State:
    """Activities of one pass through the layers in their order, differentiable by autograd.

    Each layer gets its drive and the input from links from earlier layers; backward directions and links to earlier
    layers are left out.

    Args:
        network: Whose weights and activations.
        drive: Static input of each layer, from `RecurrentNetwork.drive`.
    """
    state: list[Tensor] = []
    for i, total in enumerate(drive):
        for name, (pre, post) in network.ends.items():
            if post == i and 0 <= pre < i:
                total = total + network.link(name).to_post(state[pre])
        state.append(network.activate(i, total))
    return tuple(state)

"""Optimizers with rates layer by layer, and the cosine."""

import pytest
import torch
from equilibria import convnet, mlp

from fklit.eqprop import Dense, EquilibriumNetwork, Layer, OptimizerSettings
from fklit.eqprop.training.optimizers import build_optimizer, cosine, parameter_groups


def small():
    return mlp(inputs=20, hidden=(16, 12), dtype=torch.float32)


def test_rates_by_layer():
    """Factors apply to both directions, the biases of the post layer, and the readout; every weight is in one group."""
    network = convnet((4, 5, 6, 7), tied=False)
    settings = OptimizerSettings(
        "sgd", 7e-3, weight_decay=1e-4, rate_factors={"input-conv1": 25, "readout": 5}, decay_factors={"readout": 2}
    )
    groups = {group["name"]: group for group in parameter_groups(network, settings)}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"input-conv1": 0.175, "conv1-conv2": 7e-3, "conv2-conv3": 7e-3, "conv3-out": 7e-3, "readout": 0.035}
    )
    assert groups["readout"]["weight_decay"] == 2e-4 and groups["conv3-out"]["weight_decay"] == 1e-4
    assert [tuple(weight.shape) for weight in groups["conv1-conv2"]["params"]] == [(5, 4, 3, 3)] * 2 + [(5, 1, 1)]
    members = [weight for group in groups.values() for weight in group["params"]]
    assert {id(w) for w in members} == {id(w) for w in network.parameters()} and len(members) == len(set(members))
    optimizer = build_optimizer(network, settings)
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_kinds_of_optimizers(name, kind):
    assert type(build_optimizer(small(), OptimizerSettings(name))).__name__ == kind


def test_biases_are_with_the_first_link_to_their_layer():
    network = EquilibriumNetwork(
        (4,),
        [Layer("a", (3,)), Layer("b", (3,)), Layer("c", (3,))],
        connections=[
            Dense("c", "b", reciprocal=True),
            Dense("a", "b", reciprocal=False),
            Dense("b", "a", reciprocal=False),
            Dense("input", "a"),
        ],
    )
    groups = {group["name"]: group["params"] for group in parameter_groups(network, OptimizerSettings())}
    owners = {
        layer: next(name for name, weights in groups.items() if any(w is network.biases[layer] for w in weights))
        for layer in ("a", "b", "c")
    }
    assert owners == {"a": "b-a", "b": "c-b", "c": "c-b"}  # c is the post layer of none


def test_accepted_settings_of_optimizers():
    OptimizerSettings(learning_rate=1e-9, momentum=0.0, weight_decay=0.0)
    for options in ({"learning_rate": 0.0}, {"momentum": -0.1}, {"weight_decay": -1e-9}, {"name": "lion"}):
        with pytest.raises(ValueError, match="expected"):
            OptimizerSettings(**options)


def test_the_cosine_ends_at_zero_and_stays_there():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = cosine(optimizer, lambda: 4), []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    half = 0.5**0.5
    assert rates == pytest.approx([2, 1 + half, 1, 1 - half, 0, 0, 0], abs=1e-12)


def test_the_number_of_steps_is_not_asked_before_the_first_step():
    def steps():
        raise AssertionError

    cosine(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0), steps)

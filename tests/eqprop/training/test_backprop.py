"""The feed-forward baseline: the same numbers as a relaxed network without backward weights."""

import torch
from equilibria import TIGHT, convnet, images, mlp
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from fklit.eqprop import Convolution, Dense, EquilibriumNetwork, RecurrentBackprop
from fklit.eqprop.presets import LoopNet
from fklit.eqprop.training.backprop import BackpropTask, feedforward
from fklit.eqprop.training.optimizers import OptimizerSettings


def one_way(network, connection, **more):
    """The same layers and forward weights without backward ones."""
    ends = {name: tuple(("input", *network.names)[i + 1] for i in pair) for name, pair in network.ends.items()}
    twin = EquilibriumNetwork(
        network.input_shape,
        network.layers,
        connections=[connection(pre, post) for pre, post in ends.values()],
        num_classes=10,
        activation=network.activations[0],
        free=TIGHT,
        estimator=RecurrentBackprop(relaxation=TIGHT),
    ).double()
    twin.load_state_dict({k: v for k, v in network.state_dict().items() if "backward_weight" not in k})
    return twin


def check(network, twin):
    x, y = images(5, network.input_shape)
    weights = [name for name, _ in twin.named_parameters()]
    torch.nn.functional.cross_entropy(network.read(feedforward(network, x)), y).backward()
    torch.nn.functional.cross_entropy(twin(x), y).backward()
    mine, other = dict(network.named_parameters()), dict(twin.named_parameters())
    for name in weights:
        torch.testing.assert_close(mine[name].grad, other[name].grad, rtol=1e-8, atol=1e-12)
    assert all(w.grad is None for name, w in mine.items() if "backward_weight" in name)


def test_a_pass_is_the_equilibrium_of_a_one_way_network():
    network = mlp(inputs=50, hidden=(32, 24))
    check(network, one_way(network, lambda pre, post: Dense(pre, post, reciprocal=False)))


def test_convolutions():
    network = convnet((4, 5, 6), tied=False, shape=(2, 16, 16))

    def connection(pre, post):
        return Convolution(pre, post, reciprocal=False, padding=0 if post == "out" else 1)

    check(network, one_way(network, connection))


def test_training_leaves_backward_weights_alone(tmp_path):
    torch.manual_seed(0)
    x, y = images(40, (20,), dtype=torch.float32)
    batches = DataLoader([{"x": a, "y": b, "index": i} for i, (a, b) in enumerate(zip(x, y, strict=True))], 8)
    for network in (mlp(inputs=20, hidden=(16, 12), dtype=torch.float32), LoopNet((20,), (16, 12))):
        before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        run = Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=5,
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        run.fit(BackpropTask(network, optimizer=OptimizerSettings(learning_rate=0.02)), batches, batches)
        still = {name for name, weight in network.named_parameters() if torch.equal(weight, before[name])}
        assert still == {name for name in before if "backward" in name or "out-l1" in name}
        assert float(run.callback_metrics["val/loss"]) < 2.1 and 0 <= float(run.callback_metrics["val/top5"]) <= 1

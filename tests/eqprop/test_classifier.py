"""Equilibrium networks as rewards: a second reading of the fixed point, files, and what is refused."""

import json

import pytest
import torch
from lightning.pytorch import Trainer

from fklit.callbacks import ClassifierExport
from fklit.data import DigitsDataModule
from fklit.eqprop import (
    MLP,
    BackpropTask,
    ClippedReLU,
    Convolution,
    Dense,
    EqPropTask,
    EquilibriumClassifier,
    EquilibriumNetwork,
    Layer,
    RecurrentBackprop,
    Relaxation,
    Residual,
    Tanh,
    load_classifier,
    save_classifier,
)
from fklit.rewards import RewardError
from fklit.rewards.testing import RewardTests

LABELS = ("red heart", "cat", "green book")
MEAN, STD = (0.5, 0.4, 0.6), (0.3, 0.2, 0.25)
SPOTS = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
IMAGES = torch.nn.functional.interpolate(SPOTS, size=(32, 32))


def small(shape=(3, 8, 8), **more):
    torch.manual_seed(0)
    settings = {"free": Relaxation(500, 1e-7), "tied": False, "angle": 60.0} | more
    return MLP(shape, (7, 6), num_outputs=5, num_classes=3, gain=1.0, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("networks") / "small"
    save_classifier(small(), place, labels=LABELS, mean=MEAN, std=STD)
    return str(place)


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder

    def make_reward(self, max_batch=None):
        return EquilibriumClassifier(self.folder, "cat", max_batch=max_batch)


def second_reading(images, network):
    """Log probabilities by plain loops in double precision."""
    w = {name: value.detach().double() for name, value in network.state_dict().items()}
    x = images.double().unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))  # 32 x 32 to 8 x 8
    x = ((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).flatten(1)

    def sigmoid(z):
        return 1 / (1 + torch.exp(2 - 4 * z))

    one, two, out = (x.new_zeros(len(x), n) for n in (7, 6, 5))
    for _ in range(400):
        one = sigmoid(
            x @ w["links.input-l1.forward_weight"].T + two @ w["links.l1-l2.backward_weight"].T + w["biases.l1"]
        )
        two = sigmoid(
            one @ w["links.l1-l2.forward_weight"].T + out @ w["links.l2-out.backward_weight"].T + w["biases.l2"]
        )
        out = sigmoid(two @ w["links.l2-out.forward_weight"].T + w["biases.out"])
    return (out @ w["readout.weight"].T + w["readout.bias"]).log_softmax(1)


def test_scores_equal_a_second_reading(folder):
    expected = second_reading(IMAGES, small())
    assert expected.std(0).min() > 1e-3
    for number, name in enumerate(LABELS):
        scores = EquilibriumClassifier(folder, name)(IMAGES)
        assert torch.allclose(scores.double(), expected[:, number], atol=1e-5)
    metadata = [{"class": name} for name in ("cat", 2, "red heart", 1)]
    scores = EquilibriumClassifier(folder)(IMAGES, metadata=metadata)
    assert torch.allclose(scores.double(), expected[torch.arange(4), torch.tensor([1, 2, 0, 1])], atol=1e-5)


def test_the_gradient_of_pixels_is_that_of_the_estimator(tmp_path):
    network = small(estimator=RecurrentBackprop(relaxation=Relaxation(500, 1e-8)))
    save_classifier(network, tmp_path, labels=LABELS, mean=MEAN, std=STD)
    images, exact = (IMAGES.clone().requires_grad_() for _ in range(2))
    (found,) = torch.autograd.grad(EquilibriumClassifier(str(tmp_path), 0)(images).sum(), images)
    (wanted,) = torch.autograd.grad(second_reading(exact, network)[:, 0].sum(), exact)
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_what_has_not_converged_has_no_score(tmp_path):
    save_classifier(small(free=Relaxation(2, 1e-7)), tmp_path, labels=LABELS, mean=MEAN, std=STD)
    assert EquilibriumClassifier(str(tmp_path), 0)(IMAGES).isnan().all()


def test_gray_images_of_two_axes(tmp_path):
    network = small((8, 8))
    save_classifier(network, tmp_path, labels=LABELS, mean=[0.4], std=[0.3])
    gray = IMAGES.mean(1).unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4))
    with torch.no_grad():
        expected = network((gray - 0.4) / 0.3).log_softmax(1)
    assert torch.allclose(load_classifier(tmp_path).log_probabilities(IMAGES), expected, atol=1e-5)


def test_networks_with_everything_are_built_again(tmp_path):
    network = EquilibriumNetwork(
        (3, 8, 8),
        [Layer("a", (2, 4, 4)), Layer("b", (2, 4, 4)), Layer("c", (2, 4, 4)), Layer("out", (6,), activation=Tanh())],
        connections=[
            Convolution("input", "a", stride=2, pool=1),
            Convolution("a", "b", pool=1, gain=0.3),
            Convolution("b", "c", pool=1, gain=0.3),
            Residual("a", "c", scale=0.1),
            Dense("c", "out", gain=0.3),
        ],
        activation=ClippedReLU(0.9),
        num_classes=3,
        free=Relaxation(200, 1e-6, anderson_window=3, start="feedforward"),
    )
    save_classifier(network, tmp_path, labels=LABELS, mean=MEAN, std=STD)
    again = load_classifier(tmp_path).network.network
    assert again.free == network.free and repr(again.activations) == repr(network.activations)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(again(x), network(x))


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        (lambda: MLP((3, 8, 8), (4,), num_outputs=3, num_classes=None), {}, "a network with a readout, got none"),
        (lambda: small((192,)), {}, r"images of 1 or 3 channels, got input_shape=\(192,\)"),
        (small, {"labels": ("a", "b")}, "expected 3 labels, one for each class, got 2"),
        (small, {"std": (0.1, 0.0, 0.1)}, "std above 0 of 3 channel"),
        (small, {"mean": (0.1,)}, "mean and std above 0 of 3 channel"),
    ],
)
def test_refused_networks(network, change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_classifier(network(), tmp_path, **({"labels": LABELS, "mean": MEAN, "std": STD} | change))
    assert not list(tmp_path.iterdir())


def test_refused_folders_and_labels(folder, tmp_path):
    with pytest.raises(OSError, match=r"expected config\.json in .*, got no such file; write the folder by"):
        EquilibriumClassifier(str(tmp_path), 0).load()
    save_classifier(small(), tmp_path, labels=LABELS, mean=MEAN, std=STD)
    config = json.loads((tmp_path / "config.json").read_text())
    config["network"]["init_args"]["hidden"] = [7, 7]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"expected a network that save_classifier wrote, got .*; write it again"
    ) as error:
        EquilibriumClassifier(str(tmp_path), 0).load()
    assert "\n" not in str(error.value)
    with pytest.raises(
        ValueError, match=r"EquilibriumClassifier expected a label of its model .* got 'kat'; did you mean"
    ):
        EquilibriumClassifier(folder, "kat").load()
    with pytest.raises(RewardError, match="EquilibriumClassifier expected the class of each prompt"):
        EquilibriumClassifier(folder)(IMAGES)


def fit(task, *callbacks, data=None, root="."):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu", max_steps=2, limit_val_batches=0, callbacks=list(callbacks), default_root_dir=root, **quiet
    )
    trainer.fit(task, datamodule=data or DigitsDataModule(batch_size=10, num_train=20, num_test=10))
    return trainer


def test_a_callback_writes_what_was_trained(tmp_path):
    task = EqPropTask(MLP((1, 8, 8), (6,), num_outputs=10, num_classes=10, free=Relaxation(100, 1e-6)))
    trainer = fit(task, ClassifierExport(), root=tmp_path)
    batch = next(iter(trainer.datamodule.test_dataloader()))
    scale = trainer.datamodule.normalization()
    images = (batch["x"] * scale.std[0] + scale.mean[0]).clamp(0, 1)
    with torch.no_grad():
        expected = task.eval()(batch["x"]).log_softmax(1)[:, 3]
    found = EquilibriumClassifier(str(tmp_path / "classifier"), "3")(images)
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_callback_refuses_what_it_cannot_write(tmp_path):
    network = MLP((1, 8, 8), (6,), num_outputs=10, num_classes=10)
    with pytest.raises(ValueError, match="expected an EqPropTask for ClassifierExport, got BackpropTask"):
        fit(BackpropTask(network), ClassifierExport(), root=tmp_path)
    bare = EqPropTask(MLP((1, 8, 8), (6,), num_outputs=10, num_classes=None), loss="mse")
    with pytest.raises(ValueError, match="a network with a readout for ClassifierExport"):
        fit(bare, ClassifierExport(), root=tmp_path)

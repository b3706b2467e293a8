"""ImageClassifier against a second reading of a vision transformer, and against torchvision on its own files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from plain_vit import logits, published_config, published_shapes, write_classifier

from fklit.rewards import ImageClassifier, RewardError
from fklit.rewards.testing import RewardTests

pytestmark = pytest.mark.slow  # the quick tests have HPSv2 and ImageReward

LABELS = ["tabby, tabby cat", "crane, bird", "crane, machine", "Hot_Dog", "dog"]
SPOTS = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
IMAGES = torch.nn.functional.interpolate(SPOTS, size=(28, 28))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classifier")


@pytest.fixture(scope="module")
def weights(folder):
    return write_classifier(folder, LABELS, layers=12)


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, folder, weights):
        self.folder = folder

    def make_reward(self, max_batch=None):
        return ImageClassifier(str(self.folder), "dog", max_batch=max_batch)


def test_scores_and_gradients_equal_a_second_reading(folder, weights):
    ours, theirs = (IMAGES.clone().requires_grad_() for _ in range(2))
    scores = ImageClassifier(str(folder), "dog")(ours)
    expected = logits(theirs, weights).log_softmax(-1)[:, 4]
    assert expected.std() > 0.1
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-5)
    (mine,) = torch.autograd.grad(scores.sum(), ours)
    (other,) = torch.autograd.grad(expected.sum(), theirs)
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


def test_independent_labels_have_a_sigmoid_each(tmp_path):
    weights = write_classifier(tmp_path, LABELS, problem_type="multi_label_classification")
    scores = ImageClassifier(str(tmp_path), 3)(IMAGES)
    assert torch.allclose(scores, logits(IMAGES, weights)[:, 3].sigmoid().log(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (100, 45), (33, 57), (20, 11)])
def test_preprocessing_equals_pil(folder, weights, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(pixels).resize((28, 28), Image.Resampling.BILINEAR))
    network = ImageClassifier(str(folder), 0).load().network
    ours = network.preprocess(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
    assert ((ours * 0.5 + 0.5) - torch.from_numpy(picture).permute(2, 0, 1) / 255).abs().max() < 1.01 / 255


@pytest.mark.parametrize(
    ("label", "number"),
    [
        (4, 4),
        (np.int64(0), 0),
        ("dog", 4),
        ("tabby, tabby cat", 0),
        ("Tabby Cat", 0),
        ("hot dog", 3),
        ("bird", 1),
        ("crane, machine", 2),
    ],
)
def test_labels_by_number_and_by_name(folder, weights, label, number):
    assert torch.equal(ImageClassifier(str(folder), label)(IMAGES), ImageClassifier(str(folder), number)(IMAGES))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (5, "expected a label of 0 to 4, got 5; give one of these"),
        (-1, "expected a label of 0 to 4, got -1"),
        (True, "a label as a name or a number, got True"),
        (1.0, "a label as a name or a number, got 1.0"),
        ("crane", r"one label by the name 'crane', got 1 \('crane, bird'\), 2 \('crane, machine'\); give the number"),
        ("taby cat", r"a label of its model \('tabby, tabby cat', .*\), got 'taby cat'; did you mean 'tabby cat'\?"),
        ("xyzzy", "got 'xyzzy'; give one of these"),
    ],
)
def test_labels_that_the_model_does_not_have_are_refused(folder, weights, label, words):
    with pytest.raises(ValueError, match=words) as caught:
        ImageClassifier(str(folder), label).load()
    assert "\n" not in str(caught.value)


def test_the_class_may_come_from_the_metadata(folder, weights):
    reward = ImageClassifier(str(folder))
    metadata = [{"class": "dog"}, {"class": 4}, {"class": "bird"}, {"class": 0}]
    expected = logits(IMAGES, weights).log_softmax(-1)[torch.arange(4), torch.tensor([4, 4, 1, 0])]
    assert torch.allclose(reward(IMAGES, metadata=metadata), expected, rtol=1e-5, atol=1e-5)
    other = ImageClassifier(str(folder), metadata_key="kind", max_batch=3)
    renamed = [{"kind": item["class"]} for item in metadata]
    assert torch.allclose(other(IMAGES, metadata=renamed), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(RewardError, match=r"metadata under 'class', got \{'prompt': 'a'\}; add it, or set label"):
        reward(IMAGES[:1], ["a"])
    with pytest.raises(RewardError, match="got 'unicorn'; give one of these"):
        reward(IMAGES[:1], metadata=[{"class": "unicorn"}])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(tmp_path, dtype):
    write_classifier(tmp_path, LABELS)
    full, half = (
        ImageClassifier(str(tmp_path), 0)(IMAGES),
        ImageClassifier(str(tmp_path), 0).to(dtype)(IMAGES.to(dtype)),
    )
    assert half.dtype == torch.float32
    assert torch.allclose(full, half, atol=0.2 if dtype == torch.bfloat16 else 0.03)


def test_the_full_network_has_the_shapes_of_the_published_files():
    """google/vit-base-patch16-224; that the published keys are read is shown above, on 12 layers."""
    from transformers import ViTConfig, ViTForImageClassification

    config = published_config(768, 12, 12, 16, 224, [str(number) for number in range(1000)])
    with torch.device("meta"):
        network = ViTForImageClassification(ViTConfig(**config))
    shapes = sorted(tuple(tensor.shape) for tensor in network.state_dict().values())
    assert shapes == sorted(published_shapes(768, 12, 16, 224, 1000).values())
    assert sum(parameter.numel() for parameter in network.parameters()) == 86_567_656


def test_models_that_do_not_classify_are_refused(tmp_path):
    weights = write_classifier(tmp_path, LABELS)
    torch.save(
        {key: value for key, value in weights.items() if "classifier" not in key}, tmp_path / "pytorch_model.bin"
    )
    with pytest.raises(ValueError, match=r"the key 'classifier.bias' in the weights, got none of 2 such key\(s\) in"):
        ImageClassifier(str(tmp_path), 0).load()
    write_classifier(tmp_path, LABELS, problem_type="regression")
    with pytest.raises(ValueError, match=r"a classifier with two labels or more, got .* problem type 'regression'"):
        ImageClassifier(str(tmp_path), 0).load()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "x", "auto_map": {"AutoConfig": "x.Y"}}))
    with pytest.raises(OSError, match=r"AutoModelForImageClassification to load .*, got ValueError"):
        ImageClassifier(str(tmp_path), 0).load()  # code of the repository is not run, and nobody is asked
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "clip_text_model"}))
    with pytest.raises(OSError, match="ImageClassifier expected AutoModelForImageClassification to load"):
        ImageClassifier(str(tmp_path), 0).load()


# torchvision: its own files, with random weights, where it keeps downloads.


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory):
    from torchvision import models

    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    for name, weights in (
        ("squeezenet1_1", models.SqueezeNet1_1_Weights.IMAGENET1K_V1),
        ("regnet_y_400mf", models.RegNet_Y_400MF_Weights.IMAGENET1K_V2),
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = models.get_model(name, weights=None).state_dict()
        torch.save(state, home / "hub" / "checkpoints" / weights.url.rpartition("/")[2])
    return home


@pytest.mark.parametrize("name", ["SqueezeNet1_1_Weights.IMAGENET1K_V1", "RegNet_Y_400MF_Weights.IMAGENET1K_V2"])
def test_torchvision_gives_its_own_scores(torch_home, monkeypatch, name):
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 90, 61, 3), dtype=np.uint8)
    weights = models.get_weight(name)
    network = models.get_model("squeezenet1_1" if "Squeeze" in name else "regnet_y_400mf", weights=weights).eval()
    given = torch.stack([weights.transforms()(Image.fromarray(image)) for image in pixels])
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).requires_grad_()
    reward = ImageClassifier(f"torchvision:{name}", "tabby").load()
    expected = network(given).log_softmax(-1)[:, 281]
    # PIL rounds to bytes twice, of a deviation of 0.225.
    assert (reward.network.preprocess(images) - given).abs().max() < 2 / 255 / 0.225
    assert torch.allclose(reward(images), expected, atol=0.02)
    again = network(reward.network.preprocess(images)).log_softmax(-1)[:, 281]
    assert torch.allclose(reward(images), again, rtol=1e-5)
    (gradient,) = torch.autograd.grad(reward(images).sum(), images)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("resnet50", {}, "expected classifier weights of torchvision, .*, got 'resnet50'"),
        ("ResNet50_Weights.IMAGENET1K_V9", {}, "got 'ResNet50_Weights.IMAGENET1K_V9'"),
        ("FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1", {}, "classifier weights of torchvision"),
        ("ResNet50_Weights.IMAGENET1K_V2", {"cache_dir": "x"}, "no cache_dir with .*, got 'x'; set .* TORCH_HOME"),
    ],
)
def test_wrong_weights_of_torchvision_are_refused(name, settings, words):
    with pytest.raises(ValueError, match=words):
        ImageClassifier(f"torchvision:{name}", 0, **settings).load()


def test_damaged_and_dangerous_files_of_torchvision_are_refused(torch_home, tmp_path, monkeypatch, capsys):
    from torchvision import models

    class Evil:
        def __reduce__(self):
            return (print, ("code from a pickle",))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    url = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    torch.save(Evil(), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    with pytest.raises(
        OSError, match=r"expected the weights SqueezeNet1_1_Weights.IMAGENET1K_V1 of torchvision, got Unpickling"
    ):
        ImageClassifier("torchvision:SqueezeNet1_1_Weights.IMAGENET1K_V1", 0).load()
    assert "code from a pickle" not in capsys.readouterr().out

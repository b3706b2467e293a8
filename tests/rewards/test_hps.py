"""HPSv2 against a second reading of the network and of the published preprocessing, on the published layout."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from plain_clip import MEAN, STD, embed_image, embed_text, expected_shapes, random_weights

from fklit.rewards import HPSv2
from fklit.rewards.testing import RewardTests

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 7},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
SHAPES = expected_shapes(32, 2, 7, 28, 24, text_width=16, text_layers=2)
PROMPTS = ["a red heart", "a cat left of a dog", "word " * 100]
IMAGES = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))


class TinyHPS(HPSv2):
    """The same class with small sizes."""

    architecture = "fklit-tiny-hps"


@pytest.fixture(scope="module", autouse=True)
def _architecture(tmp_path_factory):
    import open_clip

    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{TinyHPS.architecture}.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    yield
    open_clip.factory._MODEL_CONFIGS.pop(TinyHPS.architecture)


@pytest.fixture(scope="module")
def weights():
    return random_weights(SHAPES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("hps")
    torch.save({"epoch": 1, "name": "x", "state_dict": weights}, folder / "HPS_v2.1_compressed.pt")
    torch.save({"state_dict": random_weights(SHAPES, seed=1)}, folder / "HPS_v2_compressed.pt")
    return folder


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, folder):
        self.folder = folder

    def make_reward(self, max_batch=None):
        return TinyHPS(weights=str(self.folder), max_batch=max_batch)


def tokens(prompts):
    """First 76 words of the published byte-pair encoding and the end; ids from open_clip's own table."""
    from open_clip.tokenizer import SimpleTokenizer

    table = SimpleTokenizer()
    ids = torch.zeros(len(prompts), 77, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        words = [*[49406, *table.encode(prompt)][:76], 49407]
        row[: len(words)] = torch.tensor(words)
    return ids


def reference(images, prompts, weights):
    pixels = (images - MEAN) / STD
    return 100 * (embed_image(pixels, weights, heads=2) * embed_text(tokens(prompts), weights, heads=2)).sum(-1)


def test_scores_and_gradients_equal_a_second_reading(folder, weights):
    reward = TinyHPS(weights=str(folder / "HPS_v2.1_compressed.pt"))
    ours, theirs = (IMAGES.clone().requires_grad_() for _ in range(2))
    scores, expected = reward(ours, PROMPTS), reference(theirs, PROMPTS, weights)
    assert scores.std() > 1  # images and prompts matter
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-4)  # of 100 times a cosine
    (mine,) = torch.autograd.grad(scores.sum(), ours)
    (other,) = torch.autograd.grad(expected.sum(), theirs)
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


def test_the_learned_temperature_is_the_suggested_scale(tmp_path, weights):
    torch.save({"state_dict": weights | {"logit_scale": torch.tensor(4.6)}}, tmp_path / "HPS_v2.1_compressed.pt")
    assert HPSv2().suggested_scale is None  # known with the weights only, as for CLIPScore
    assert TinyHPS(weights=str(tmp_path)).load().suggested_scale == pytest.approx(math.exp(4.6) / 100)


def test_versions_are_files(folder):
    new, old = (TinyHPS(version, str(folder))(IMAGES, PROMPTS) for version in ("v2.1", "v2.0"))
    assert not torch.allclose(new, old)
    with pytest.raises(ValueError, match=r"version='2.1' is not known; use one of 'v2.1', 'v2.0'"):
        HPSv2("2.1")


def published_transform(picture, side, antialias):
    """ToTensor, longest side to `side`, centered padding, Normalize, with torchvision (arXiv:2306.09341's package)."""
    from torchvision.transforms import functional as tv

    image = tv.to_tensor(picture)
    height, width = image.shape[1:]
    scale = side / max(height, width)
    size = [round(height * scale), round(width * scale)]
    image = tv.resize(image, size, tv.InterpolationMode.BICUBIC, antialias=antialias)
    high, wide = side - size[0], side - size[1]
    image = tv.pad(image, [wide // 2, high // 2, wide - wide // 2, high - high // 2])
    return tv.normalize(image, MEAN.flatten().tolist(), STD.flatten().tolist())


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (101, 37), (33, 57), (28, 28), (20, 11), (27, 90)])
def test_preprocessing_equals_the_packages(folder, shape, antialias):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    reward = TinyHPS(weights=str(folder), antialias=antialias).load()
    ours = reward.preprocess(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
    expected = published_transform(Image.fromarray(pixels), 28, antialias)
    assert ours.shape == expected.shape == (3, 28, 28)
    assert torch.allclose(ours, expected, atol=1e-5)


def test_a_picture_with_the_longer_side_in_place_is_padded(folder):
    reward = TinyHPS(weights=str(folder)).load()
    out = reward.preprocess(torch.ones(1, 3, 28, 10)) * STD + MEAN
    assert torch.allclose(out[0, :, :, 9:19], torch.ones(3, 28, 10), atol=1e-6)
    assert out[0, :, :, :9].abs().max() < 1e-6 and out[0, :, :, 19:].abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(folder, dtype):
    full = TinyHPS(weights=str(folder))(IMAGES, PROMPTS)
    half = TinyHPS(weights=str(folder)).to(dtype)(IMAGES.to(dtype), PROMPTS)
    assert half.dtype == torch.float32
    assert torch.allclose(full, half, atol=3 if dtype == torch.bfloat16 else 0.5)
    assert torch.allclose(TinyHPS(weights=str(folder)).double()(IMAGES.double(), PROMPTS).float(), full, atol=1e-3)


def test_the_full_network_has_the_keys_and_shapes_of_the_published_file():
    with torch.device("meta"):
        network = HPSv2().network()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == expected_shapes(1280, 32, 14, 224, 1024, text_width=1024, text_layers=24)
    assert len(shapes) == 686
    assert sum(parameter.numel() for parameter in network.parameters()) == 986_109_441
    assert network.visual.transformer.resblocks[0].attn.num_heads == 16  # 1280 / head_width of 80
    assert network.transformer.resblocks[0].attn.num_heads == 16
    assert isinstance(network.transformer.resblocks[0].mlp.gelu, torch.nn.GELU)


def _without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: _without(w, "visual.proj"), r"the key 'visual.proj' in the weights, got none of 1 such key\(s\) in"),
        (lambda w: w | {"extra": torch.zeros(1)}, "no keys of another model in the weights, got 'extra' and 0 more in"),
        (lambda w: w | {"visual.proj": torch.zeros(2, 2)}, r"'visual.proj' of shape \(32, 24\) .*, got \(2, 2\) in"),
        (lambda w: {"visual_projection.weight": torch.zeros(2)}, "the key 'positional_embedding'"),
    ],
)
def test_another_models_weights_are_refused_by_key(tmp_path, weights, change, words):
    torch.save({"state_dict": change(weights)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=words) as caught:
        TinyHPS(weights=str(tmp_path / "weights.pt")).load()
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return (print, ("code from a pickle",))


@pytest.mark.parametrize("held", ["nothing", Evil(), [torch.zeros(1)]])
def test_files_that_hold_no_weights_are_refused(tmp_path, held, capsys):
    file = tmp_path / "HPS_v2.1_compressed.pt"
    if held == "nothing":
        file.write_bytes(b"not a checkpoint")
    else:
        torch.save(held, file)
    with pytest.raises(OSError, match=r"HPSv2 expected a .*, got .*HPS_v2.1_compressed.pt|a list in .*"):
        TinyHPS(weights=str(tmp_path)).load()
    assert "code from a pickle" not in capsys.readouterr().out


def test_places_without_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"with HPS_v2.1_compressed.pt, got .*, which has none; give the file"):
        TinyHPS(weights=str(tmp_path)).load()
    with pytest.raises(ValueError, match=r"'owner/name' of the hub, got '/no/such/file.pt'; check the path"):
        TinyHPS(weights="/no/such/file.pt").load()
    with pytest.raises(OSError, match=r"HPS_v2.1_compressed.pt of 'xswu/HPSv2' on the hub, got .*; check"):
        TinyHPS(cache_dir=str(tmp_path)).load()

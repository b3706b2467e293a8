"""AestheticScore against a second reading of the image encoder and of the predictor, on the published layouts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from plain_clip import MEAN, STD, embed_image, expected_shapes, quick_gelu, random_weights
from tiny_transformers_clip import config_of, to_transformers, write_processor

from fklit.rewards import AestheticScore
from fklit.rewards.aesthetic import predictor
from fklit.rewards.testing import RewardTests

SIZES = {"text_width": 16, "text_layers": 1}
SHAPES = expected_shapes(32, 2, 7, 28, 24, vocabulary=50, **SIZES)
CONFIG = config_of(32, 2, 2, 7, 28, 24, text_heads=2, act="quick_gelu", **SIZES)
# Large spots of color: the embeddings of fine noise are nearly alike.
SPOTS = torch.rand(3, 3, 3, 3, generator=torch.Generator().manual_seed(1))
IMAGES = torch.nn.functional.interpolate(SPOTS, size=(28, 28))
V2 = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}  # layer of the published file -> size of its output


def v2_shapes(width):
    shapes = {}
    for layer, size in V2.items():
        shapes |= {f"layers.{layer}.weight": (size, width), f"layers.{layer}.bias": (size,)}
        width = size
    return shapes


HEADS = {"v2": v2_shapes, "v1": lambda width: {"weight": (1, width), "bias": (1,)}}


def rate(embeddings, weights):
    """An affine map a layer, no activations."""
    for name in [name for name in weights if name.endswith("weight")]:
        embeddings = embeddings @ weights[name].T + weights[name.removesuffix("weight") + "bias"]
    return embeddings[:, 0]


@pytest.fixture(scope="module")
def weights():
    return random_weights(SHAPES)


@pytest.fixture(scope="module")
def heads():
    return {version: random_weights(shapes(24)) for version, shapes in HEADS.items()}


@pytest.fixture(scope="module")
def make(tmp_path_factory, weights, heads):
    folder = tmp_path_factory.mktemp("aesthetic")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_processor(folder, 28)
    torch.save(to_transformers(weights), folder / "pytorch_model.bin")
    torch.save(heads["v2"], folder / "aesthetic-model.pth")
    torch.save(heads["v1"], folder / "sa_0_4_vit_l_14_linear.pth")

    def make(version="v2", head=folder, **settings):
        return AestheticScore(version, str(head), clip_name=str(folder), **settings)

    make.folder = folder
    return make


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _make(self, make):
        self.make = make

    def make_reward(self, max_batch=None):
        return self.make(max_batch=max_batch)


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_scores_and_gradients_equal_a_second_reading(make, weights, heads, version):
    ours, theirs = (IMAGES.clone().requires_grad_() for _ in range(2))
    scores = make(version)(ours)
    expected = rate(embed_image((theirs - MEAN) / STD, weights, 2, act=quick_gelu), heads[version])
    assert scores.std() > 0.02
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-5)
    (mine,) = torch.autograd.grad(scores.sum(), ours)
    (other,) = torch.autograd.grad(expected.sum(), theirs)
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


@pytest.mark.parametrize("shape", [(64, 64), (100, 45), (225, 100), (20, 11)])
def test_preprocessing_equals_pil(make, shape):
    pixels = np.random.default_rng(0).integers(90, 166, (*shape, 3), dtype=np.uint8)
    height, width = (int(28 * side / min(shape)) for side in shape)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 28) // 2, (height - 28) // 2
    cropped = torch.from_numpy(np.array(picture.crop((left, top, left + 28, top + 28)))).permute(2, 0, 1) / 255
    ours = make().load().preprocess(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
    assert ((ours * STD + MEAN) - cropped).abs().max() < 1 / 255


def test_prompts_are_not_read_and_gray_is_accepted(make):
    reward = make()
    assert torch.equal(reward(IMAGES), reward(IMAGES, ["a", "b", "c"]))
    gray = IMAGES[:, :1]
    assert torch.equal(reward(gray), reward(gray.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(make, dtype):
    full, half = make()(IMAGES), make().to(dtype)(IMAGES.to(dtype))
    assert half.dtype == torch.float32
    assert torch.allclose(full, half, rtol=0.02 if dtype == torch.bfloat16 else 2e-3)


def test_the_full_networks_have_the_keys_and_shapes_of_the_published_files():
    from transformers import CLIPConfig, CLIPVisionModelWithProjection

    config = CLIPConfig(**config_of(1024, 24, 16, 14, 224, 768, text_width=768, text_layers=12, text_heads=12))
    config.vision_config.projection_dim = 768
    written = expected_shapes(1024, 24, 14, 224, 768)
    with torch.device("meta"):
        network = CLIPVisionModelWithProjection(config.vision_config)
        published = to_transformers({name: torch.empty(shape) for name, shape in written.items()})
        heads = {version: predictor(version).state_dict() for version in HEADS}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == {name: tuple(t.shape) for name, t in published.items() if not name.endswith("position_ids")}
    assert sum(parameter.numel() for parameter in network.parameters()) == 303_966_208
    for version, head in heads.items():
        assert {name: tuple(tensor.shape) for name, tensor in head.items()} == HEADS[version](768)


def test_the_other_versions_weights_are_refused_by_key(make):
    with pytest.raises(ValueError, match=r"the key 'layers.0.weight' in the weights, got none of 10 such key\(s\)"):
        make("v2", make.folder / "sa_0_4_vit_l_14_linear.pth").load()
    with pytest.raises(ValueError, match=r"the key 'weight' in the weights, got none of 2 such key\(s\)"):
        make("v1", make.folder / "aesthetic-model.pth").load()


def test_version_1_needs_a_file():
    with pytest.raises(
        ValueError, match=r"expected head with version='v1', got None; download https://github.com/LAION"
    ):
        AestheticScore("v1")
    with pytest.raises(ValueError, match="version='v3' is not known"):
        AestheticScore("v3")

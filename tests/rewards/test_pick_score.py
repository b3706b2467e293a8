"""PickScore against a second reading of CLIP and PIL's preprocessing, on the published layout."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from plain_clip import MEAN, STD, embed_image, embed_text, expected_shapes, random_weights
from tiny_transformers_clip import config_of, to_transformers, write_processor, write_tokenizer

from fklit.rewards import PickScore
from fklit.rewards.testing import RewardTests

pytestmark = pytest.mark.slow  # the quick tests have HPSv2 and ImageReward

SHAPES = expected_shapes(32, 2, 7, 28, 24, text_width=16, text_layers=2)
CONFIG = config_of(32, 2, 2, 7, 28, 24, text_width=16, text_layers=2, text_heads=2)
PROMPTS = ["a red heart", "a cat left of a dog", "word " * 100]
IMAGES = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def weights():
    return random_weights(SHAPES) | {"logit_scale": torch.tensor(4.6)}


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    write_tokenizer(folder)
    write_processor(folder, 28)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights):
    return write(tmp_path_factory.mktemp("pick"), weights)


def write(folder, weights, config=CONFIG):
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(to_transformers(weights), folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def make(folder, processor):
    return lambda **settings: PickScore(str(folder), str(processor), **settings)


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, weights):
        config = CONFIG | {"text_config": CONFIG["text_config"] | {"eos_token_id": 2}}
        self.places = (str(write(tmp_path, weights, config)), str(tmp_path))
        write_tokenizer(tmp_path, letters_only=True)
        write_processor(tmp_path, 28)

    def make_reward(self, max_batch=None):
        return PickScore(*self.places, max_batch=max_batch)


def tokens(prompts):
    """First 76 words of the published byte-pair encoding and the end; filled up with the end."""
    from open_clip.tokenizer import SimpleTokenizer

    rows = [[*[49406, *SimpleTokenizer().encode(prompt)][:76], 49407] for prompt in prompts]
    return torch.tensor([row + [49407] * (77 - len(row)) for row in rows])


@pytest.mark.parametrize("end", [2, 49407])  # configurations of 2023 have a wrong number, which is known to be so
def test_scores_and_gradients_equal_a_second_reading(tmp_path, processor, weights, end):
    config = CONFIG | {"text_config": CONFIG["text_config"] | {"eos_token_id": end}}
    reward = PickScore(str(write(tmp_path, weights, config)), str(processor))
    ours, theirs = (IMAGES.clone().requires_grad_() for _ in range(2))
    scores = reward(ours, PROMPTS)
    cosines = embed_image((theirs - MEAN) / STD, weights, 2) * embed_text(tokens(PROMPTS), weights, 2)
    expected = math.exp(4.6) * cosines.sum(-1)
    assert scores.std() > 1
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-4)
    (mine,) = torch.autograd.grad(scores.sum(), ours)
    (other,) = torch.autograd.grad(expected.sum(), theirs)
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


@pytest.mark.parametrize("shape", [(64, 64), (100, 45), (33, 57), (28, 28), (225, 100), (20, 11)])
def test_preprocessing_equals_pil(make, shape):
    """Shorter side to 28 with PIL's bicubic kernel, center crop, normalize: the processor of 2023 on bytes."""
    reward = make().load()
    # No overshoot, which PIL clips between rows and columns: see the same test of CLIPScore.
    pixels = np.random.default_rng(0).integers(90, 166, (*shape, 3), dtype=np.uint8)
    height, width = (int(28 * side / min(shape)) for side in shape)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 28) // 2, (height - 28) // 2
    cropped = torch.from_numpy(np.array(picture.crop((left, top, left + 28, top + 28)))).permute(2, 0, 1) / 255
    ours = reward.preprocess(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
    assert ((ours * STD + MEAN) - cropped).abs().max() < 1 / 255


def test_overshoot_is_clipped_as_in_bytes(make):
    edge = torch.zeros(1, 3, 56, 56)
    edge[..., 20:30] = 1
    out = make().load().preprocess(edge) * STD + MEAN
    assert out.min() > -1e-6 and out.max() < 1 + 1e-6


def test_the_learned_temperature_is_the_factor(make, folder):
    reward = make().load()
    assert reward.scale == pytest.approx(math.exp(4.6))
    with pytest.raises(OSError, match="PickScore expected AutoImageProcessor to load"):
        PickScore(str(folder), None).load()  # nothing but weights is there


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    write_tokenizer(tmp_path, letters_only=True)
    write_processor(tmp_path, 28)
    with pytest.raises(ValueError, match=r"texts end with 513, .*, got eos_token_id=49407 of .*; give its own"):
        PickScore(str(folder), str(tmp_path)).load()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(make, dtype):
    full, half = make()(IMAGES, PROMPTS), make().to(dtype)(IMAGES.to(dtype), PROMPTS)
    assert half.dtype == torch.float32
    assert torch.allclose(full, half, atol=3 if dtype == torch.bfloat16 else 0.5)


def test_weights_stored_in_half_precision_are_read_in_float32(tmp_path, weights, processor):
    write(tmp_path, {name: tensor.half() for name, tensor in weights.items()}, CONFIG | {"torch_dtype": "float16"})
    reward = PickScore(str(tmp_path), str(processor)).load()
    assert {parameter.dtype for parameter in reward.parameters()} == {torch.float32}


def test_the_full_network_has_the_keys_and_shapes_of_the_published_file():
    from transformers import CLIPConfig, CLIPModel

    sizes = {"text_width": 1024, "text_layers": 24}
    config = CLIPConfig(**config_of(1280, 32, 16, 14, 224, 1024, text_heads=16, **sizes))
    written = expected_shapes(1280, 32, 14, 224, 1024, **sizes)
    with torch.device("meta"):
        network = CLIPModel(config)
        published = {name: torch.empty(shape) for name, shape in written.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    published = {name: tuple(tensor.shape) for name, tensor in to_transformers(published).items()}
    assert shapes == {name: shape for name, shape in published.items() if not name.endswith("position_ids")}
    assert sum(parameter.numel() for parameter in network.parameters()) == 986_109_441


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda w, c: w.pop("visual.proj"), ValueError, "the key 'visual_projection.weight' in the weights, got"),
        (
            lambda w, c: c["vision_config"].update(image_size=14),
            ValueError,
            r"'vision_model.embeddings.position_embedding.weight' of shape \(5, 32\) .*, got \(17, 32\) in",
        ),
        (lambda w, c: c.update(model_type="nothing"), OSError, "PickScore expected CLIPModel to load|key"),
    ],
)
def test_another_models_weights_are_refused_by_key(tmp_path, weights, processor, change, error, words):
    weights, config = dict(weights), json.loads(json.dumps(CONFIG))
    change(weights, config)
    if config["model_type"] == "nothing":
        (tmp_path / "config.json").write_text("{")
    else:
        write(tmp_path, weights, config)
    with pytest.raises(error, match=words) as caught:
        PickScore(str(tmp_path), str(processor)).load()
    assert "\n" not in str(caught.value)

"""CLIPScore on a tiny open_clip folder, and its preprocessing against open_clip's own."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fklit.rewards import CLIPScore
from fklit.rewards.preprocess import ClipPreprocess
from fklit.rewards.testing import RewardTests

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


class TestContract(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _folder(self, clip_folder):
        self.folder = clip_folder

    def make_reward(self, max_batch=None):
        return CLIPScore(str(self.folder), max_batch=max_batch)


def test_it_is_the_cosine_of_open_clip(clip_folder):
    import open_clip

    name = f"local-dir:{clip_folder}"
    model, transform = open_clip.create_model_from_pretrained(name)
    model.eval()
    prompts = ["a red heart", "a cat left of a dog"]
    pictures = [Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()) for image in IMAGES]
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(name)(prompts), normalize=True)
    bytes_as_floats = (IMAGES * 255).byte().float() / 255
    ours = CLIPScore(name)(bytes_as_floats, prompts)
    assert torch.allclose(ours, (images * texts).sum(-1), atol=2e-3)  # PIL rounds to bytes after resizing
    assert torch.allclose(CLIPScore(name, scale=100)(bytes_as_floats, prompts), 100 * ours, rtol=1e-5)


def test_units_are_stated(clip_folder):
    cosine, usual = CLIPScore(str(clip_folder)).load(), CLIPScore(str(clip_folder), scale=100).load()
    assert cosine.typical_range == (-0.5, 0.5)
    assert usual.typical_range == (-50, 50)
    assert cosine.suggested_scale == pytest.approx(1 / 0.07, rel=1e-5)  # the learned inverse temperature
    assert usual.suggested_scale == pytest.approx(1 / 7, rel=1e-5)


def test_prompts_are_embedded_once(clip_folder):
    reward = CLIPScore(str(clip_folder)).load()
    calls = []
    encode = reward.model.encode_text
    reward.model.encode_text = lambda tokens: calls.append(len(tokens)) or encode(tokens)
    first = reward(IMAGES, ["a cat", "a cat"])
    assert calls == [1]
    assert reward(IMAGES, ["a cat", "a dog"])[0] == first[0]
    assert calls == [1, 1]
    assert reward.double()(IMAGES, ["a cat", "a cat"]).dtype == torch.float64  # cast: embedded again
    assert calls == [1, 1, 1]


def test_half_precision_gives_float32_near_the_full_score(clip_folder):
    full = CLIPScore(str(clip_folder))(IMAGES, ["a cat", "a dog"])
    half = CLIPScore(str(clip_folder)).bfloat16()(IMAGES.bfloat16(), ["a cat", "a dog"])
    assert half.dtype == torch.float32
    assert torch.allclose(full, half, atol=0.05)


def test_grey_images_are_accepted(clip_folder):
    gray = IMAGES[:, :1]
    reward = CLIPScore(str(clip_folder))
    assert torch.equal(reward(gray, ["a", "a"]), reward(gray.expand(-1, 3, -1, -1), ["a", "a"]))


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("ViT-B-32",), {}, "pretrained=None"),
        (("hf-hub:owner/name", "openai"), {}, "expected no pretrained, as weights come with .*; omit it"),
        (("ViT-B-32", "openai"), {"scale": 0.0}, "expected scale above 0, got 0.0"),
        (("fklit:nothing",), {}, "fklit ships"),
    ],
)
def test_wrong_arguments_are_refused(arguments, settings, words):
    with pytest.raises(ValueError, match=words):
        CLIPScore(*arguments, **settings)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_preprocessing_equals_open_clips(resize_mode):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    shapes = ((64, 64), (100, 70), (33, 57), (48, 48))
    for size, interpolation, shape in itertools.product((48, (48, 32)), ("bicubic", "bilinear"), shapes):
        if resize_mode == "squash" and size == (48, 32) and shape == (48, 48):
            shape = (48, 32)
        settings = {"interpolation": interpolation, "resize_mode": resize_mode, "fill_color": 128}
        theirs = image_transform_v2(PreprocessCfg(size=size, mean=mean, std=std, **settings), is_train=False)
        # Overshoot is clipped between the two passes, whose order depends on Pillow's version unless both sides are
        # equal.
        low, high = (0, 256) if shape[0] == shape[1] and size == 48 else (90, 166)
        pixels = np.random.default_rng(0).integers(low, high, (*shape, 3), dtype=np.uint8)
        expected = theirs(Image.fromarray(pixels))
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        ours = ClipPreprocess(size, mean, std=std, **settings)(batch)[0]
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() < 2.5 / 255 / 0.26  # PIL rounds to bytes twice


def test_resized_shapes_equal_torchvisions_on_every_ratio():
    from torchvision.transforms.functional import _compute_resized_output_size

    preprocess = ClipPreprocess(48, (0.5,), std=(0.5,))
    for height, width in itertools.product(range(40, 400, 5), (40, 100, 150, 212, 333)):
        assert list(preprocess._resized(height, width)) == _compute_resized_output_size((height, width), [48])


def test_preprocessing_refuses_unknown_modes():
    with pytest.raises(ValueError, match="interpolation"):
        ClipPreprocess(32, (0.5,), std=(0.5,), interpolation="nearest")
    with pytest.raises(ValueError, match="resize_mode"):
        ClipPreprocess(32, (0.5,), std=(0.5,), resize_mode="crop")


def test_a_folder_without_weights_is_refused(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "model")
    (tmp_path / "model" / "open_clip_model.safetensors").unlink()
    with pytest.raises(OSError, match=r"CLIPScore expected weights that can be loaded, got those of .*model"):
        CLIPScore(str(tmp_path / "model")).load()
    assert json.loads((tmp_path / "model" / "open_clip_config.json").read_text())["reward"]

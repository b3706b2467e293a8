"""Sizes of JPEG files against files that PIL writes, and orders that are known beforehand."""

import numpy as np
import pytest
import torch
from PIL import Image

from fklit.rewards import JPEGCompressibility, JPEGIncompressibility
from fklit.rewards.testing import RewardTests

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 40, 61, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255


class TestIncompressibility(RewardTests):
    def make_reward(self, max_batch=None):
        return JPEGIncompressibility(max_batch=max_batch)


class TestCompressibility(RewardTests):
    def make_reward(self, max_batch=None):
        return JPEGCompressibility(max_batch=max_batch)


@pytest.mark.parametrize("quality", [95, 50])
def test_scores_are_the_sizes_of_files(tmp_path, quality):
    sizes = []
    for number, pixels in enumerate(PIXELS):
        file = tmp_path / f"{number}.jpg"
        Image.fromarray(pixels).save(file, quality=quality)
        sizes.append(file.stat().st_size / 1000)
    expected = torch.tensor(sizes)
    assert torch.equal(JPEGIncompressibility(quality=quality)(IMAGES), expected)
    assert torch.equal(JPEGCompressibility(quality=quality)(IMAGES), -expected)
    assert torch.equal(JPEGIncompressibility(quality=quality)(IMAGES.double()), expected)


def test_plain_images_compress_and_noise_does_not():
    noise = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise[..., :8, :8], size=(512, 512), mode="bicubic").clamp(0, 1)
    plain, some, most = JPEGIncompressibility()(torch.cat([torch.full_like(noise, 0.5), smooth, noise])).tolist()
    assert plain < 10 < some < 60 < 200 < most


def test_overshoot_is_clipped_and_gray_is_accepted():
    dark, bright = torch.full((1, 3, 16, 16), -0.005), torch.full((1, 3, 16, 16), 1.005)
    reward = JPEGIncompressibility()
    assert torch.equal(reward(torch.cat([dark, bright])), reward(torch.cat([dark, bright]).clamp(0, 1)))
    assert 0 < reward(IMAGES[:1, :1]) < reward(IMAGES[:1])


def test_an_image_that_is_not_finite_has_no_size():
    images = IMAGES.clone()
    images[1, 0, 0, 0] = float("nan")
    for reward in (JPEGIncompressibility(), JPEGCompressibility()):
        scores = reward(images)
        assert scores.isnan().tolist() == [False, True, False]


def test_no_gradient_is_pretended():
    assert not JPEGIncompressibility()(IMAGES.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize("quality", [0, 101, 95.5])
def test_wrong_qualities_are_refused(quality):
    with pytest.raises((ValueError, TypeError), match="quality"):
        JPEGCompressibility(quality=quality)

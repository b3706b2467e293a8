"""Degradations: exact where they can be, in range, and leaving the originals alone."""

import pytest
import torch

from fklit.emoji.training.degrade import Degrade, gaussian_blur

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_blur_zero_is_the_identity():
    sigma = torch.tensor([0.0, 0, 0, 3, 3, 3])
    blurred = gaussian_blur(IMAGES, sigma)
    assert torch.allclose(blurred[:3], IMAGES[:3], atol=1e-6)
    assert (blurred[3:] - IMAGES[3:]).abs().max() > 0.1


def test_blur_has_the_variance_it_says():
    dot = torch.zeros(2, 1, 65, 65)
    dot[:, :, 32, 32] = 1
    blurred = gaussian_blur(dot, torch.tensor([1.5, 4.0]))
    place = torch.arange(65.0) - 32
    for image, sigma in zip(blurred, (1.5, 4.0), strict=True):
        along = image[0].sum(0)
        assert along.sum() == pytest.approx(1, abs=1e-5)
        assert (along * place.square()).sum().sqrt() == pytest.approx(sigma, rel=0.03)  # cut off at three sigma


def test_a_flat_picture_stays_flat():
    flat = torch.full((2, 3, 32, 32), 0.7)
    assert torch.allclose(gaussian_blur(flat, torch.tensor([5.0, 0.5])), flat, atol=1e-5)


def test_all_at_once():
    before = IMAGES.clone()
    torch.manual_seed(0)
    degraded = Degrade(4.0, 0.3, share=1.0, jpeg_quality=20)(IMAGES)
    assert torch.equal(IMAGES, before)
    assert degraded.shape == IMAGES.shape and degraded.min() >= 0 and degraded.max() <= 1
    assert not torch.equal(degraded, IMAGES)
    assert torch.equal(Degrade()(IMAGES), IMAGES)


def test_amounts_are_those_of_a_squared_uniform_for_a_share_of_the_images():
    torch.manual_seed(0)
    flat = torch.full((2000, 1, 16, 16), 0.5).expand(-1, 3, -1, -1)
    sigma = (Degrade(noise=0.1, share=0.25)(flat) - 0.5).flatten(1).std(1)
    noisy = sigma[sigma > 0]
    assert abs(len(noisy) - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5
    assert noisy.mean() == pytest.approx(0.1 / 3, rel=0.15) and noisy.max() < 0.11  # E u^2 = 1/3
    assert noisy.median() == pytest.approx(0.1 / 4, rel=0.25)


def test_jpeg_is_chosen_image_by_image():
    torch.manual_seed(0)
    images = IMAGES.repeat(50, 1, 1, 1)
    changed = (Degrade(share=0.25, jpeg_quality=95)(images) != images).flatten(1).any(1)
    assert abs(int(changed.sum()) - 75) < 4 * (300 * 0.25 * 0.75) ** 0.5


def test_the_autoencoder(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), block_out_channels=(8,),
        norm_num_groups=4, mid_block_add_attention=False,
    )  # fmt: skip
    vae.save_pretrained(tmp_path)
    degrade = Degrade(vae_folder=str(tmp_path), vae_share=1.0)
    with torch.no_grad():
        expected = vae.decode(vae.encode(IMAGES * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
    assert torch.allclose(degrade(IMAGES), expected.clamp(0, 1), atol=1e-6)
    assert not list(degrade.parameters())  # neither trained nor in checkpoints
    noisy = Degrade(vae_folder=str(tmp_path), vae_share=1.0, latent_noise=1.0)(IMAGES)
    assert not torch.allclose(noisy, expected.clamp(0, 1), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blur": -1.0}, "of at least 0, got -1.0, 0.0 and 0.0"),
        ({"noise": -1.0}, "of at least 0, got 0.0, -1.0 and 0.0"),
        ({"latent_noise": -1.0}, "of at least 0, got 0.0, 0.0 and -1.0"),
        ({"share": 2.0}, r"share and vae_share in \[0, 1\], got 2.0, 0.3"),
        ({"vae_share": -0.1}, r"share and vae_share in \[0, 1\], got 0.5, -0.1"),
        ({"jpeg_quality": 0}, "jpeg_quality from 1 to 95, got 0"),
        ({"jpeg_quality": 96}, "jpeg_quality from 1 to 95, got 96"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Degrade(**settings)


def test_a_missing_autoencoder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        Degrade(vae_folder=str(tmp_path))

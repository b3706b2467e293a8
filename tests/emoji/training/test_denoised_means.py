"""Denoised predictions of pictures, on a tiny random pipeline."""

import pytest
import torch
from tiny import tiny_stable_diffusion

from fklit.emoji.training.denoised_means import DenoisedMeans

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a cat", "a dog"] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline")
    tiny_stable_diffusion().save_pretrained(path)
    return str(path)


def test_a_share_is_replaced(folder):
    means = DenoisedMeans(folder, 0.5)
    before = IMAGES.clone()
    torch.manual_seed(0)
    result = means(IMAGES, PROMPTS)
    assert torch.equal(IMAGES, before)
    changed = (result != IMAGES).flatten(1).any(1)
    assert changed.sum() == 2
    assert result.min() >= 0 and result.max() <= 1
    assert not list(means.parameters())


def test_without_noise_it_is_the_autoencoder(folder):
    means = DenoisedMeans(folder, 1.0, lowest=0.0, highest=0.001)
    torch.manual_seed(0)
    result = means(IMAGES, PROMPTS)
    vae = means._pipeline[0].vae
    with torch.no_grad():
        expected = (vae.decode(vae.encode(IMAGES * 2 - 1).latent_dist.mode()).sample / 2 + 0.5).clamp(0, 1)
    # one step of the noise schedule leaves a little noise
    assert (result - expected).abs().mean() < 0.1


@pytest.mark.parametrize("settings", [{"share": 0.0}, {"lowest": 0.5, "highest": 0.5}, {"highest": 1.5}])
def test_wrong_settings_are_refused(folder, settings):
    with pytest.raises(ValueError, match=r"expected share in \(0, 1\] and 0 <= lowest < highest <= 1, got"):
        DenoisedMeans(folder, **settings)


def test_a_missing_pipeline_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model_index\.json"):
        DenoisedMeans(str(tmp_path))

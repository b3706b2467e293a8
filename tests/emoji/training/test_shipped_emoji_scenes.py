"""The model that ships: small, licensed, loadable in one line, and it draws what it is asked for."""

from pathlib import Path

import pytest
import torch

from fklit import assets

FOLDER = assets.path("emoji_scenes")


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(FOLDER)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_it_is_small_safe_and_has_a_card():
    files = [path for path in Path(FOLDER).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10 * 2**20
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]
    settings = [path.read_text() for path in files if path.suffix == ".json"]
    assert not any("_name_or_path" in text for text in settings), "a folder of whoever wrote it"
    card = (FOLDER / "README.md").read_text()
    for word in ("Apache", "CC BY 4.0", "Twitter", "fklit fit --config configs/assets/text_to_image.yaml"):
        assert word in card


def test_defaults_are_those_of_the_scenes(pipeline):
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 64
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler" and pipeline.tokenizer.model_max_length == 24
    assert 2.5e6 < sum(weight.numel() for weight in pipeline.unet.parameters()) < 3.5e6


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_colors_follow_the_prompt(pipeline, eta):
    """Of four pictures for each color, most have that color in the middle of what is not white."""
    colors = {"red": (0, (1, 2)), "green": (1, (0, 2)), "blue": (2, (0, 1))}
    prompts = [f"a {color} circle" for color in colors for _ in range(4)]
    images = pipeline(
        prompts,
        num_inference_steps=20,
        guidance_scale=4.0,
        eta=eta,
        generator=[torch.Generator().manual_seed(number) for number in range(len(prompts))],
        output_type="pt",
    ).images
    assert images.shape == (12, 3, 64, 64)
    for number, (color, (strong, weak)) in enumerate(colors.items()):
        right = 0
        for image in images[4 * number : 4 * number + 4]:
            drawn = image[:, image.amin(0) < 0.6]
            mean = drawn.mean(1) if drawn.numel() else torch.zeros(3)
            right += all(mean[strong] > mean[other] + 0.1 for other in weak)
        assert right >= 3, color

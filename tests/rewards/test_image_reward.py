"""ImageReward: the shipped model, and the published checkpoint's layout against a second reading of it."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from plain_blip import MEAN_OF_REWARDS, STD_OF_REWARDS, published_shapes, raw_reward
from plain_clip import random_weights
from real_scenes import real_scenes

from fklit.rewards import ImageReward
from fklit.rewards.image_reward_layout import read_sizes, rename_weights
from fklit.rewards.testing import RewardTests

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "heart", "cat", "left", "of", "##s", "dog", "two"]
SIZES = {"vision": 128, "layers": 2, "patch": 8, "size": 32, "text": 64, "text_layers": 2, "inner": 96, "words": 16}
PROMPTS = ["a red heart", "two cats left of a dog", "a", " ".join(["cat"] * 50)]
MEAN, STD = torch.tensor((0.48145466, 0.4578275, 0.40821073)), torch.tensor((0.26862954, 0.26130258, 0.27577711))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small random checkpoint in the published layout, its weights, and a folder with a tokenizer."""
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("image_reward")
    weights = random_weights(published_shapes(**SIZES))
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save(weights, folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder, weights


def small(published, **settings):
    folder, _ = published
    return ImageReward(str(folder), str(folder / "tokenizer"), **settings)


def read_ids(prompts):
    """BERT's tokens of these words, read by hand, cut and filled up to 35."""
    rows = []
    for prompt in prompts:
        words = [["cat", "##s"] if word == "cats" else [word] for word in prompt.split()]
        ids = [WORDS.index(piece) for pieces in words for piece in pieces][:33]
        rows.append([2, *ids, 3] + [0] * (33 - len(ids)))
    return torch.tensor(rows)


def pictures(number, height=32, width=32):
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(3))


def test_scores_and_gradients_equal_a_second_reading(published):
    reward, (_, weights) = small(published), published
    ours, theirs = pictures(4).requires_grad_(), pictures(4).requires_grad_()
    ids = read_ids(PROMPTS)
    pixels = (theirs - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    expected = (raw_reward(ids, ids != 0, pixels, weights, 2, 1) - MEAN_OF_REWARDS) / STD_OF_REWARDS
    scores = reward(ours, PROMPTS)
    assert expected.std() > 0.1
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-5)
    (mine,), (other,) = (torch.autograd.grad(s.sum(), x) for s, x in ((scores, ours), (expected, theirs)))
    assert (mine - other).abs().max() < 1e-4 * other.abs().max()


@pytest.mark.parametrize(("height", "width"), [(47, 61), (101, 33)])
def test_preprocessing_is_that_of_pil(published, height, width):
    """Bicubic to the shorter side, center crop, as torchvision's transform does on bytes.

    PIL rounds to bytes after each of the two passes, so that up to 1.2 / 255 are its own.
    """
    from torchvision.transforms import functional as vision

    given = torch.nn.functional.interpolate(pictures(1, 9, 9), size=(height, width), mode="bilinear")
    given = (given * 255).round() / 255
    picture = Image.fromarray((given[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    resized = vision.center_crop(vision.resize(picture, 32, vision.InterpolationMode.BICUBIC), [32, 32])
    expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
    found = small(published).load().preprocess(given)[0] * STD.view(3, 1, 1) + MEAN.view(3, 1, 1)
    gap = (found - expected).abs() * 255
    assert gap.max() <= 1.2 and gap.mean() < 0.4


def test_sizes_are_read_from_the_published_file():
    shapes = {name: torch.empty(shape, device="meta") for name, shape in published_shapes().items()}
    sizes = read_sizes(rename_weights(shapes))
    vision, text = sizes["vision"], sizes["text"]
    assert (vision["hidden_size"], vision["num_hidden_layers"], vision["num_attention_heads"]) == (1024, 24, 16)
    assert (vision["image_size"], vision["patch_size"], vision["intermediate_size"]) == (224, 16, 4096)
    assert (text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]) == (768, 12, 12)
    assert (text["vocab_size"], text["intermediate_size"], sizes["head"]) == (30524, 3072, [1024, 128, 64, 16])


def test_another_checkpoint_is_refused_by_name(published, tmp_path):
    folder, weights = published
    key = "blip.text_encoder.encoder.layer.1.crossattention.self.key.bias"
    cut = {name: tensor for name, tensor in weights.items() if name != key}
    torch.save(cut, tmp_path / "ImageReward.pt")
    reward = ImageReward(str(tmp_path), str(folder / "tokenizer"))
    with pytest.raises(ValueError, match=re.escape("text.encoder.layer.1.crossattention.self.key.bias")):
        reward.load()
    torch.save({"visual.proj": torch.zeros(2, 2)}, tmp_path / "ImageReward.pt")
    with pytest.raises(ValueError, match="expected the published ImageReward"):
        ImageReward(str(tmp_path), str(folder / "tokenizer")).load()
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json as ImageRewardTask"):
        ImageReward(str(tmp_path))


def test_a_tokenizer_of_more_words_is_refused(published, tmp_path):
    from transformers import BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "sun", "moon", "star"]), encoding="utf-8")
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="at most 16 tokens, got 17"):
        ImageReward(str(published[0]), str(tmp_path)).load()


def test_half_precision(published):
    plain, half = small(published), small(published).bfloat16()
    ours, theirs = half(pictures(4), PROMPTS), plain(pictures(4), PROMPTS)
    assert ours.dtype == torch.float32
    assert (ours - theirs).abs().max() < 0.1 * theirs.abs().max().clamp(min=1)


class TestPublishedLayout(RewardTests):
    differentiable = True

    @pytest.fixture(autouse=True)
    def _weights(self, published):
        self.published = published

    def make_reward(self, max_batch=None):
        return small(self.published, max_batch=max_batch)


class TestShipped(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return ImageReward("fklit:emoji_reward", max_batch=max_batch)


def test_the_shipped_model_tells_right_from_wrong_prompts():
    """On 36 scenes, each with a prompt that is wrong in one thing: a relation, a count, a color or an object."""
    images, right, wrong = real_scenes()
    reward = ImageReward("fklit:emoji_reward")
    own, other = (reward(images, [line["prompt"] for line in lines]) for lines in (right, wrong))
    assert int((own > other).sum()) == 36
    assert int((own.exp() > 0.5).sum()) >= 35 and int((other.exp() < 0.5).sum()) >= 33
    assert own.max() <= 0

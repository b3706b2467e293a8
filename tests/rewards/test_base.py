"""What the base class promises: checks in, checks out, micro-batches, lazy weights."""

import pytest
import torch
from torch import nn

from fklit.rewards import Reward, RewardError


class Returns(Reward):
    """Returns what a function of the sample makes; counts its calls."""

    def __init__(self, make, **settings):
        super().__init__(**settings)
        self.make = make
        self.sizes = []

    def score(self, samples, prompts):
        self.sizes.append(len(prompts))
        return self.make(samples)


class Lazy(Reward):
    """Builds a layer at first use."""

    built = 0

    def build(self):
        self.built += 1
        self.layer = nn.Linear(3, 1)

    def score(self, samples, prompts):
        return self.layer(samples.mean((2, 3)).to(self.layer.weight.dtype))[:, 0]


def brightness(images):
    return images.mean((1, 2, 3))


IMAGES = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 3, 4, 4)
PROMPTS = ["a"] * 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_narrow_types_become_float32(dtype):
    assert Returns(lambda x: brightness(x).to(dtype))(IMAGES, PROMPTS).dtype == torch.float32


def test_float64_stays():
    assert Returns(lambda x: brightness(x).double())(IMAGES, PROMPTS).dtype == torch.float64


def test_nan_and_infinity_pass_through():
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e4, 0.0])
    assert torch.equal(Returns(lambda x: values)(IMAGES, PROMPTS).nan_to_num(7.0), values.nan_to_num(7.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: brightness(x)[:-1], r"expected scores \(5,\) from Returns, got \(4,\); return one"),
        (lambda x: brightness(x)[:, None], r"expected scores \(5,\) from Returns, got \(5, 1\)"),
        (lambda x: 1.0, "a tensor of 5 scores from Returns, got a float; return one"),
        (lambda x: brightness(x).to(torch.complex64), "real scores from Returns, got torch.complex64"),
        (lambda x: 1 / 0, r"5 score\(s\) from Returns, got ZeroDivisionError: .*; fix the reward"),
    ],
)
def test_a_wrong_result_is_an_error_of_one_line(make, words):
    with pytest.raises(RewardError, match=words) as caught:
        Returns(make)(IMAGES, PROMPTS)
    assert "\n" not in str(caught.value)


def test_an_exception_is_chained():
    with pytest.raises(RewardError) as caught:
        Returns(lambda x: [][0])(IMAGES, PROMPTS)
    assert isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize(
    ("samples", "prompts", "words"),
    [
        (IMAGES, PROMPTS[:4], r"Returns expected a prompt for each of 5 sample\(s\), got 4"),
        (IMAGES, "aaaaa", "a list of prompts, got a str"),
        (IMAGES, None, r"Returns expected 5 prompt\(s\), got None"),
        (IMAGES, [1] * 5, "prompts that are strings, got other"),
        (IMAGES * 2 - 1, PROMPTS, r"images in \[0, 1\], got values from -1 to 1"),
        ((IMAGES * 255).byte(), PROMPTS, r"float images .*, got torch\.uint8 \(5, 3, 4, 4\)"),
        (IMAGES[0], PROMPTS, r"float images .*, got torch\.float32 \(3, 4, 4\)"),
        (["text"] * 5, PROMPTS, "a float tensor of images .*, got a list"),
    ],
)
def test_wrong_input_is_refused(samples, prompts, words):
    with pytest.raises(ValueError, match=words):
        Returns(brightness)(samples, prompts)


def test_text_rewards_refuse_tensors_and_single_strings():
    class Length(Returns):
        accepts = "text"

    reward = Length(lambda texts: torch.tensor([float(len(text)) for text in texts]))
    assert reward(["ab", "c"], ["", ""]).tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"Length expected a list of texts, got a tensor \(5, 3, 4, 4\)"):
        reward(IMAGES, PROMPTS)
    with pytest.raises(ValueError, match="Length expected a list of texts, got a str"):
        reward("ab", ["", ""])


def test_micro_batches_and_padding():
    plain = Returns(brightness, max_batch=2)
    assert torch.equal(plain(IMAGES, PROMPTS), brightness(IMAGES))
    assert plain.sizes == [2, 2, 1]
    padded = Returns(brightness, max_batch=2, pad=True)
    assert torch.equal(padded(IMAGES, PROMPTS), brightness(IMAGES))
    assert padded.sizes == [2, 2, 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_batch": 0}, "expected max_batch of at least 1, got 0"),
        ({"pad": True}, "expected max_batch with pad=True, got None"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Returns(brightness, **settings)


def test_weights_are_built_once_frozen_and_follow_the_module():
    reward = Lazy().double()
    assert reward.built == 0
    assert reward(IMAGES, PROMPTS).dtype == torch.float64
    reward(IMAGES, PROMPTS)
    assert reward.built == 1
    assert reward.layer.weight.dtype == torch.float64
    assert not reward.layer.weight.requires_grad


def test_weights_keep_their_own_precision_unless_asked():
    class Half(Lazy):
        def build(self):
            super().build()
            self.layer.half()

    assert Half().load().layer.weight.dtype == torch.float16


def test_first_use_in_inference_mode_leaves_gradients_possible():
    reward = Lazy()
    with torch.inference_mode():
        reward(IMAGES, PROMPTS)
    images = IMAGES.clone().requires_grad_()
    reward(images, PROMPTS).sum().backward()
    assert images.grad.abs().sum() > 0


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="score"):
        Reward()

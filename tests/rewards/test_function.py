"""Any callable as a reward."""

import numpy as np
import pytest
import torch
from torch import nn

from fklit.rewards import Function, RewardError
from fklit.rewards.testing import RewardTests


def redness(images):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def prompt_length(images, prompts):
    return [float(len(prompt)) for prompt in prompts]


class Target:
    def __init__(self, value=0.5):
        self.value = value

    def __call__(self, images):
        return -(images.mean((1, 2, 3)) - self.value).abs()


class TestRedness(RewardTests):
    differentiable = True

    def make_reward(self, max_batch=None):
        return Function(redness, max_batch=max_batch)


class TestByName(RewardTests):
    def make_reward(self, max_batch=None):
        return Function(f"{__name__}:Target", {"value": 0.25}, max_batch=max_batch, typical_range=(-1, 0))


class TestTexts(RewardTests):
    def make_reward(self, max_batch=None):
        return Function(lambda texts: [len(text) for text in texts], max_batch=max_batch)

    def make_samples(self, count):
        return ["word " * (index + 1) for index in range(count)]

    def test_shape_and_dtype(self):
        assert self.make_reward()(["ab"], ["x"]).dtype == torch.float32


IMAGES = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_lists_arrays_and_prompts():
    assert Function(prompt_length)(IMAGES, ["a", "bb", "ccc"]).tolist() == [1, 2, 3]
    assert Function(lambda x: np.arange(3, dtype=np.int64))(IMAGES).tolist() == [0, 1, 2]
    assert Function(lambda *both: len(both) * torch.ones(3))(IMAGES).tolist() == [2, 2, 2]
    assert Function(lambda x, power=2.0: power * torch.ones(3))(IMAGES).tolist() == [2, 2, 2]
    assert Function(lambda x, p=None: torch.ones(3) * len(p), pass_prompts=True)(IMAGES).tolist() == [3, 3, 3]


def test_names():
    assert torch.equal(Function(f"{__name__}:redness")(IMAGES), redness(IMAGES))
    assert torch.equal(Function(f"{__name__}.redness")(IMAGES), redness(IMAGES))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("redness",), "module:attribute"),
        ((3,), "type int"),
        ((redness, {"value": 1}), "init_args with the name of a class only, got them with a callable"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        Function(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no_such_module:redness",), "an importable function, got fn='no_such_module:redness'"),
        ((f"{__name__}:nothing",), "an importable function, got fn=.*nothing"),
        ((f"{__name__}:IMAGES",), "name of a function or class, got .*IMAGES', a Tensor"),
        ((f"{__name__}:Target", {"valu": 1}), "init_args of the class .*, got .*valu"),
        ((f"{__name__}:redness", {"value": 1}), "name of a class with init_args, got .*redness'; omit"),
    ],
)
def test_wrong_names(arguments, words):
    with pytest.raises(ValueError, match=words):
        Function(*arguments).load()


def test_a_module_becomes_a_part():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)
            self.drop = nn.Dropout()

        def forward(self, images):
            return self.drop(self.layer(images.mean((2, 3))))[:, 0]

    reward = Function(Net().train())
    assert torch.equal(reward(IMAGES), reward(IMAGES))
    assert not reward(IMAGES).requires_grad


def test_an_exception_names_the_class_and_the_count():
    with pytest.raises(RewardError, match=r"3 score\(s\) from .*<lambda>, got ValueError: no idea; fix"):
        Function(lambda x: (_ for _ in ()).throw(ValueError("no idea")))(IMAGES)

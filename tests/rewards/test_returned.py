"""Rewards as people write them: what functions take and return, and what is said of the rest."""

import asyncio
import functools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fklit.rewards import Function, Reward, RewardError, Standardized, WeightedSum

IMAGES = torch.linspace(0, 1, 3).view(3, 1, 1, 1).expand(3, 3, 4, 4).contiguous()
PROMPTS = ["a", "bb", "ccc"]
METADATA = [{"prompt": prompt, "count": 10 * place} for place, prompt in enumerate(PROMPTS)]


def _takes(text):
    """A function with these parameters that returns which of them got prompts and metadata."""
    scope = {"lengths": lambda values: [float(len(value)) for value in values]}
    exec(f"def function({text}):\n    return dict(locals())", scope)  # noqa: S102
    return scope["function"]


@pytest.mark.parametrize(
    ("parameters", "prompts", "metadata"),
    [
        ("images", None, None),
        ("images, prompts", "prompts", None),
        ("images, p", "p", None),
        ("images, prompts=None", "prompts", None),
        ("images, captions=()", "captions", None),
        ("images, prompts, metadata", "prompts", "metadata"),
        ("images, p, m", "p", "m"),
        ("images, prompts=None, metadata=None", "prompts", "metadata"),
        ("images, metadata", None, "metadata"),
        ("images, metadata=None", None, "metadata"),
        ("images, metadata, prompts", "prompts", "metadata"),
        ("images, power=2.0", None, None),
        ("images, power=2.0, prompts=None", "prompts", None),
        ("images, *, prompts", "prompts", None),
        ("images, *, prompts=None, metadata=None", "prompts", "metadata"),
        ("images, /, prompts", "prompts", None),
        ("images, prompts, scale=1.0, **options", "prompts", None),
    ],
)
def test_a_function_gets_what_its_signature_asks_for(parameters, prompts, metadata):
    seen = {}
    function = _takes(parameters)

    @functools.wraps(function)
    def spy(*args, **kwargs):
        seen.update(function(*args, **kwargs))
        return torch.zeros(3)

    Function(spy)(IMAGES, PROMPTS, METADATA)
    assert seen["images"] is not None
    for name, expected in ((prompts, PROMPTS), (metadata, METADATA)):
        assert name is None or seen[name] == expected
    others = set(seen) - {"images", prompts, metadata}
    assert all(seen[name] in (2.0, 1.0, {}) for name in others)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("", "which takes no samples"),
        (
            "images, prompts, metadata, model",
            r"got .*function, which also requires 'model'; give it a default, or bind",
        ),
        ("images, *, model", "which also requires 'model'"),
    ],
)
def test_a_function_that_requires_more_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message) as caught:
        Function(_takes(parameters)).load()
    assert "\n" not in str(caught.value)


def test_without_metadata_a_function_gets_the_prompts_in_its_place():
    seen = []
    Function(lambda images, prompts, metadata: seen.extend(metadata) or [0.0] * 3)(IMAGES, PROMPTS)
    assert seen == [{"prompt": prompt} for prompt in PROMPTS]


def test_metadata_reaches_the_parts_of_a_composite_in_chunks():
    def count(images, prompts, metadata):
        return [float(item["count"]) for item in metadata]

    reward = WeightedSum([Function(count, max_batch=2, pad=True), Standardized(Function(count), mean=0, std=2)], [1, 2])
    assert reward(IMAGES, PROMPTS, METADATA).tolist() == [0, 20, 40]


def test_a_reward_may_take_metadata():
    class Counts(Reward):
        uses_metadata = True

        def score(self, samples, prompts, metadata=None):
            return torch.tensor([item["count"] for item in metadata])

    assert Counts()(IMAGES, PROMPTS, METADATA).tolist() == [0, 10, 20]
    for wrong, message in ((METADATA[:2], r"each of 3 sample\(s\), got 2"), ("abc", "list of mappings, got 'abc'")):
        with pytest.raises(ValueError, match=message):
            Counts()(IMAGES, PROMPTS, wrong)


async def _soon(images):
    await asyncio.sleep(0)
    return images.mean((1, 2, 3))


class _Scorer:
    async def __call__(self, images, prompts):
        return await _soon(images)


class _Array:
    def __array__(self, dtype=None, copy=None):
        return np.array([0.0, 0.5, 1.0])


VALUES = [0.0, 0.5, 1.0]
ACCEPTED = {
    "tensor": lambda x: torch.tensor(VALUES),
    "float16": lambda x: torch.tensor(VALUES).half(),
    "float64": lambda x: torch.tensor(VALUES, dtype=torch.float64),
    "tensor with a graph": lambda x: torch.tensor(VALUES, requires_grad=True).detach(),
    "column": lambda x: torch.tensor(VALUES)[:, None],
    "array": lambda x: np.array(VALUES),
    "float32 array": lambda x: np.array(VALUES, dtype=np.float32),
    "array column": lambda x: np.array(VALUES)[:, None],
    "reversed array": lambda x: np.array(VALUES[::-1])[::-1],
    "object array": lambda x: np.array(VALUES, dtype=object),
    "__array__": lambda x: _Array(),
    "list": lambda x: VALUES,
    "tuple": lambda x: tuple(VALUES),
    "list of NumPy": lambda x: [np.float32(value) for value in VALUES],
    "list of float64": lambda x: [np.float64(value) for value in VALUES],
    "list of tensors": lambda x: [torch.tensor([value]) for value in VALUES],
    "list of lists": lambda x: [[value] for value in VALUES],
    "mixed list": lambda x: [False, np.float32(0.5), torch.tensor(1)],
    "scores and info": lambda x: (torch.tensor(VALUES), {"model": "x"}),
    "list and info": lambda x: (VALUES, None),
    "array and array": lambda x: (np.array(VALUES), np.array(VALUES) + 1),
    "coroutine": _soon,
    "coroutine of an object": _Scorer(),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_one_number_a_sample_in_any_form(name):
    assert Function(ACCEPTED[name])(IMAGES, PROMPTS).tolist() == VALUES


@pytest.mark.parametrize(
    "one", [0.5, np.float32(0.5), torch.tensor(0.5), (0.5, {"a": 1}), (0.5, None), [0.5], (0.5,), np.array([[0.5]])]
)
def test_a_bare_number_is_the_score_of_one_sample(one):
    assert Function(lambda x: one)(IMAGES[:1], ["a"]).tolist() == [0.5]
    assert Function(lambda x: one, max_batch=1)(IMAGES, PROMPTS).tolist() == [0.5] * 3


def test_two_scores_are_no_pair_of_scores_and_info():
    assert Function(lambda x: (0.25, 0.5))(IMAGES[:2]).tolist() == [0.25, 0.5]
    assert Function(lambda x: (torch.tensor(0.25), torch.tensor(0.5)))(IMAGES[:2]).tolist() == [0.25, 0.5]
    assert Function(lambda x: ([0.25, 0.5], [1, 2]))(IMAGES[:2]).tolist() == [0.25, 0.5]


@pytest.mark.parametrize("make", [list, lambda values: np.array(values, dtype=object), tuple])
def test_none_is_a_sample_that_could_not_be_scored(make):
    scores = Function(lambda x: make([0.5, None, 1.0]))(IMAGES).tolist()
    assert scores[0] == 0.5 and math.isnan(scores[1]) and scores[2] == 1.0


def _named(images):
    return None


REFUSED = [
    (
        _named,
        r"expected 3 score\(s\) from [\w.]*test_returned\._named, got None; return them \(is a `return` missing\?\)",
    ),
    (lambda x: {"score": 1.0, "label": "x"}, r"got a dict with keys \['score', 'label'\]; return the entry"),
    (lambda x: [{"score": 1.0}] * 3, r"got a dict with keys \['score'\] as entry 0; return numbers"),
    (lambda x: "high", "got a str; return a tensor, an array or a list of numbers"),
    (lambda x: ["0.5"] * 3, "got a str as entry 0; return numbers, or None"),
    (lambda x: 0.5, "expected 3 scores from .*, got one number; return one a sample, or set max_batch=1"),
    (lambda x: torch.tensor(0.5), "got one number"),
    (lambda x: [], "got an empty list"),
    (lambda x: VALUES[:2], r"expected scores \(3,\) from .*<lambda>, got \(2,\)"),
    (lambda x: torch.zeros(1, 3), r"expected scores \(3,\) from .*, got \(1, 3\)"),
    (lambda x: np.array(["a", "b", "c"]), "expected numbers from .*, got an array of <U1"),
    (lambda x: torch.zeros(3, dtype=torch.complex64), "expected real scores"),
    (lambda x: (value for value in VALUES), "got a generator; return"),
    (lambda x: object(), "got a object; return"),
    (lambda x: 1 / 0, "got ZeroDivisionError: division by zero; fix the reward"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED)
def test_anything_else_gets_one_line_with_the_functions_name(function, message):
    with pytest.raises(RewardError, match=message) as caught:
        Function(function)(IMAGES, PROMPTS)
    assert "\n" not in str(caught.value) and "test_returned." in str(caught.value)


class _Model(nn.Module):
    def forward(self, images):
        raise ValueError("first line\n  second line")


def test_errors_of_parts_and_of_several_lines_are_one_line_of_the_part():
    with pytest.raises(
        RewardError, match=r"from [\w.]*test_returned\._Model, got ValueError: first line second line; fix"
    ):
        WeightedSum([Function(_Model())], [1.0])(IMAGES, PROMPTS)


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        (Function(_named), f"{__name__}._named"),
        (Function(functools.partial(_named)), f"{__name__}._named"),
        (Function(_Scorer()), f"{__name__}._Scorer"),
        (Function(_Scorer().__call__), f"{__name__}._Scorer.__call__"),
        (Function("some.module:scorer"), "some.module.scorer"),
        (WeightedSum([Function(_named)], [1.0]), "WeightedSum"),
    ],
)
def test_names(reward, name):
    assert reward.display_name == name


def test_a_coroutine_is_awaited_within_a_running_loop_and_keeps_the_mode_of_gradients():
    async def inside():
        images = IMAGES.clone().requires_grad_()
        scores = Function(_soon)(images, PROMPTS)
        with torch.no_grad():
            assert not Function(_soon)(images, PROMPTS).requires_grad
        return torch.autograd.grad(scores.sum(), images)[0]

    assert float(asyncio.run(inside()).abs().sum()) > 0


def test_an_error_in_a_coroutine_is_that_of_the_function():
    async def fails(images):
        raise ConnectionError("503")

    with pytest.raises(RewardError, match=r"fails, got ConnectionError: 503; fix"):
        Function(fails)(IMAGES)


def test_images_as_bytes_and_as_pil():
    seen = []
    keep = lambda images: seen.append(images) or torch.zeros(len(images))  # noqa: E731
    Function(keep, images="uint8")(IMAGES)
    assert seen[-1].dtype == torch.uint8 and seen[-1][:, 0, 0, 0].tolist() == [0, 128, 255]
    Function(keep, images="pil")(IMAGES)
    assert [type(image) for image in seen[-1]] == [Image.Image] * 3
    assert seen[-1][1].getpixel((0, 0)) == (128, 128, 128) and seen[-1][1].mode == "RGB"
    Function(keep, images="pil")(IMAGES[:, :1])
    assert seen[-1][2].mode == "L"
    Function(keep)(IMAGES)
    assert torch.equal(seen[-1], IMAGES)
    with pytest.raises(ValueError, match="images='PIL' is not known; use one of 'float', 'uint8', 'pil'"):
        Function(keep, images="PIL")
    with pytest.raises(
        RewardError, match=r"images='pil' expected float images \(n, C, H, W\) or videos .*, got a list"
    ):
        Function(keep, images="pil")(["a", "b"])

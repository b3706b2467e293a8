"""Descriptions of settings, spelled out; and the documentation that functions take over from settings."""

import enum
import hashlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fklit.fingerprint import fingerprint
from fklit.rewards.base import Reward
from fklit.sampling.arguments import described_fields, takes_settings
from fklit.sampling.describe import describe, settings_hash


def _sha(content):
    return hashlib.sha256(content).hexdigest()


class Color(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Pair:
    left: int
    right: float


class Tells:
    def settings(self):
        return {"told": 1}


class Keeps:
    def __init__(self, width, *rest, height=2, **more):
        self.width, self.height, self.other = width, height, 5


class Many(Reward):
    def __init__(self, rewards_given):
        super().__init__()
        self.rewards = nn.ModuleList(rewards_given)

    def score(self, samples, prompts):
        return samples


def test_plain_values_stand_for_themselves():
    plain = {"a": [1, True, None, 0.5, "red"], "b": {"c": -1}}
    assert describe(plain) == plain and describe((1, 2)) == [1, 2] and describe({3: 1}) == {"3": 1}
    assert describe({2, 10, 1}) == [1, 10, 2], "sets are sorted as texts"
    assert (describe(float("inf")), describe(float("-inf"))) == ("inf", "-inf")
    assert describe(torch.float16) == "torch.float16" and describe(torch.device("cpu")) == "cpu"
    assert describe(Color.RED) == "Color.RED"


def test_objects_are_their_class_and_arguments():
    name = f"{__name__}."
    assert describe(Pair(1, 2.0)) == {"class": f"{name}Pair", "left": 1, "right": 2.0}
    assert describe(Tells()) == {"told": 1}
    assert describe(Keeps(3, "ignored", more=1)) == {"class": f"{name}Keeps", "width": 3, "height": 2}
    assert describe(Many([])) == {"class": f"{name}Many", "rewards": []}
    source = inspect.getsource(_sha).encode()
    assert describe(_sha) == {"function": f"{name}_sha", "source": _sha(source)}
    assert describe(len) == {"function": "builtins.len", "source": _sha(b"")}
    assert describe(Pair)["function"] == f"{name}Pair"


def test_arrays_and_pictures_are_their_bytes():
    values = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert describe(values.T.contiguous().T) == {
        **{"tensor": _sha(values.numpy().tobytes()), "shape": [2, 3], "dtype": "torch.float32"},
    }
    assert describe(torch.tensor(3)) == {"tensor": _sha(b"tensor(3)"), "shape": [], "dtype": "torch.int64"}
    array = np.arange(4).reshape(2, 2)
    assert describe(array) == {"class": "numpy.ndarray", "bytes": _sha(array.tobytes()), "shape": "(2, 2)"}
    picture = Image.new("L", (3, 1), 7)
    assert describe(picture) == {"class": "PIL.Image.Image", "bytes": _sha(b"\x07\x07\x07"), "shape": "('L', (3, 1))"}


def test_a_path_is_its_content_and_a_word_or_a_long_text_is_not_looked_up(tmp_path, monkeypatch):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    content = {"content": fingerprint(str(file))}
    assert describe(file) == describe(str(file)) == describe("./weights") == describe("local-dir:weights") == content
    assert describe("weights") == "weights" and describe("./missing") == "./missing"
    longest, longer = ("." + "/" * slashes + "weights" for slashes in (1015, 1016))
    assert len(longest) == 1023 and describe(longest) == content
    assert describe(longer) == longer, "a text, too long for a path"
    assert describe("a" * 5000 + "/") == "a" * 5000 + "/"


def test_a_hidden_argument_is_refused_unless_rewards_hold_it():
    class Hides:
        def __init__(self, first, second):
            self.first = first

    with pytest.raises(TypeError, match=r"Hides does not keep its argument 'second' as an attribute"):
        describe(Hides(1, 2))
    with pytest.raises(TypeError, match="does not keep its argument 'first'"):
        describe(type("Empty", (), {"__init__": lambda self, first: None})(1))


def test_the_hash_is_that_of_sorted_json():
    assert settings_hash({"b": 1, "a": [2]}) == _sha(json.dumps({"a": [2], "b": 1}).encode())
    with pytest.raises(ValueError, match="JSON"):
        settings_hash({"a": float("nan")})


@dataclass(frozen=True, kw_only=True)
class Base:
    """Settings.

    Attributes:
        size: how large,
            in meters.
    """

    size: int = 3


@dataclass(frozen=True, kw_only=True)
class More(Base):
    """More settings.

    Attributes:
        name: what it is called.
        tags: some words.
    """

    name: str
    tags: tuple[str, ...] = field(default=())


def test_settings_become_parameters():
    @takes_settings(More)
    def plain(first, *, own=1, **settings):
        """Does it."""

    found = inspect.signature(plain).parameters
    assert list(found) == ["first", "own", "size", "name", "tags"]
    assert [found[name].kind for name in ("size", "name", "tags")] == [inspect.Parameter.KEYWORD_ONLY] * 3
    assert (found["size"].default, found["name"].default, found["tags"].default) == (3, inspect.Parameter.empty, ())
    assert (found["size"].annotation, found["name"].annotation) == (int, str)
    described = described_fields(More)
    assert list(described) == ["size", "name", "tags"] and described["name"] == "what it is called."
    assert plain.__doc__ == (
        "Does it.\n\nArgs:\n    size: how large,\n        in meters.\n    name: what it is called."
        "\n    tags: some words."
    )


def test_descriptions_are_added_to_the_arguments_of_a_docstring():
    @takes_settings(More)
    def full(first, **settings):
        """Does it.

        Args:
            first: the first.

        Returns:
            Nothing.

        Raises:
            ValueError: never.
        """

    assert full.__doc__ == (
        "Does it.\n\nArgs:\n    first: the first.\n    size: how large,\n        in meters."
        "\n    name: what it is called.\n    tags: some words.\n\nReturns:\n    Nothing."
        "\n\nRaises:\n    ValueError: never."
    )


def test_functions_without_a_docstring_get_the_arguments_alone():
    @takes_settings(Base)
    def silent(**settings): ...

    assert silent.__doc__ == "\n\nArgs:\n    size: how large,\n        in meters."
    assert Path(inspect.getfile(silent)).name == "test_descriptions.py"

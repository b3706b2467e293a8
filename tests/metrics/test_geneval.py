"""The rule of the judge, on objects written by hand."""

import pytest

from fklit.metrics import FoundObject, judge_objects, relations


def thing(noun, color=None, x=32.0, y=32.0, size=20.0, score=1.0):
    return FoundObject(noun, color, (x - size / 2, y - size / 2, x + size / 2, y + size / 2), score)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (10, 32, {"left of"}),
        (54, 32, {"right of"}),
        (32, 10, {"above"}),
        (32, 54, {"below"}),
        (12, 12, {"left of", "above"}),
        (30, 31, set()),  # within the margin of a tenth of the sides
        (32, 32, set()),
        (10, 24, {"left of"}),
    ],
)
def test_relations(x, y, expected):
    assert relations(thing("cat", x=x, y=y), thing("dog")) == expected


def include(*entries, exclude=()):
    return {"tag": "any", "include": list(entries), "exclude": list(exclude)}


def test_single_object_and_extras():
    metadata = include({"class": "cat", "count": 1})
    assert judge_objects([thing("cat")], metadata).exact
    extra = judge_objects([thing("cat"), thing("dog", x=60)], metadata)
    assert extra.correct and not extra.exact
    missing = judge_objects([thing("dog")], metadata)
    assert not missing.correct and missing.score == 0 and missing.problems == ("1 cat wanted, 0 found.",)


@pytest.mark.parametrize(("number", "correct"), [(1, False), (2, True), (3, False)])
def test_counting_is_exact(number, correct):
    metadata = include({"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}])
    assert judge_objects([thing("cat", x=20 * i) for i in range(number)], metadata).correct == correct


def test_colors_bind_to_their_nouns():
    metadata = include({"class": "heart", "count": 1, "color": "red"}, {"class": "square", "count": 1, "color": "blue"})
    assert judge_objects([thing("heart", "red"), thing("square", "blue", x=60)], metadata).exact
    swapped = judge_objects([thing("heart", "blue"), thing("square", "red", x=60)], metadata)
    assert not swapped.correct and swapped.score == 0.5  # both nouns are there, both colors are not


def test_the_right_color_is_preferred_to_the_confident_one():
    metadata = include({"class": "heart", "count": 1, "color": "red"})
    found = [thing("heart", "blue", score=0.99), thing("heart", "red", x=60, score=0.6)]
    verdict = judge_objects(found, metadata)
    assert verdict.correct and not verdict.exact


def test_position_refers_to_an_earlier_entry():
    metadata = include({"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]})
    assert judge_objects([thing("cat", x=10), thing("dog", x=54)], metadata).correct
    wrong = judge_objects([thing("cat", x=54), thing("dog", x=10)], metadata)
    assert not wrong.correct and wrong.problems == ("cat is not left of dog.",)
    assert wrong.score == pytest.approx(2 / 3)
    assert not judge_objects([thing("cat", x=10)], metadata).correct


def test_metadata_without_include_is_refused():
    with pytest.raises(ValueError, match="include"):
        judge_objects([], {"tag": "counting"})

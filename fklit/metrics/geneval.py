"""GenEval's tasks and its rule: given the objects found in an image, does it show what the prompt asks for?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Tag = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
"""The six tasks of GenEval (Ghosh et al. 2023, arXiv:2310.11513), as its metadata call them."""

TAGS: tuple[Tag, ...] = get_args(Tag)
"""The values of `Tag`."""

_MARGIN = 0.1  # GenEval's: of the summed box sides, an offset below it counts as none


@dataclass(frozen=True)
class FoundObject:
    """One object in an image.

    Attributes:
        noun: Its class.
        color: Its color, or None if the class has one look only.
        box: (left, top, right, bottom) in pixels.
        score: Confidence in [0, 1].
    """

    noun: str
    color: str | None
    box: tuple[float, float, float, float]
    score: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What the judge says about one image.

    Attributes:
        correct: Everything the prompt includes is there, and nothing that it excludes.
        exact: As `correct`, and nothing else is in the image.
        score: Share of the requirements that are met, in [0, 1]; 1 if and only if `correct`.
        problems: What is wrong, for each requirement that is not met.
        found: The objects.
    """

    correct: bool
    exact: bool
    score: float
    problems: tuple[str, ...]
    found: tuple[FoundObject, ...]


def relations(first: FoundObject, second: FoundObject) -> frozenset[str]:
    """How `first` lies relative to `second`: "left of", "right of", "above", "below"; none, one or two of them.

    The offset of the centers is shortened by a tenth of the summed box sides; a direction counts if it makes up
    more than half of the whole offset (Ghosh et al. 2023, arXiv:2310.11513, section 3.2).
    """
    offset = []
    for axis in (0, 1):
        low_a, high_a = first.box[axis], first.box[axis + 2]
        low_b, high_b = second.box[axis], second.box[axis + 2]
        offset.append(((low_a + high_a - low_b - high_b) / 2, _MARGIN * (high_a - low_a + high_b - low_b)))
    length = math.hypot(offset[0][0], offset[1][0])
    if length == 0:
        return frozenset()
    across, down = (math.copysign(max(abs(value) - margin, 0.0), value) / length for value, margin in offset)
    named = {"left of": across < -0.5, "right of": across > 0.5, "above": down < -0.5, "below": down > 0.5}
    return frozenset(name for name, holds in named.items() if holds)


def judge_objects(found: Sequence[FoundObject], metadata: Mapping[str, Any]) -> Verdict:
    """Checks objects against one line of GenEval's prompt metadata.

    Every entry of `include` needs at least `count` objects of its `class`, of its `color` if given, and each of
    these in its `position` (`[relation, index of an earlier entry]`) to each of the earlier ones. An entry
    of `exclude` allows fewer than `count` objects. Objects of the right color are preferred, then confident
    ones (GenEval takes the most confident ones whatever their color).

    Args:
        found: The objects in the image.
        metadata: `{"include": [...], "exclude": [...]}`.

    Returns:
        The verdict.

    Raises:
        ValueError: `metadata` has no `include` list.
    """
    include = metadata.get("include")
    if not include:
        raise ValueError(
            f"expected 'include' in the metadata, got {dict(metadata)!r}; give GenEval's metadata of the prompt."
        )
    met: list[bool] = []
    problems: list[str] = []
    groups: list[list[FoundObject]] = []

    def require(holds: bool, problem: str) -> None:
        met.append(holds)
        if not holds:
            problems.append(problem)

    for entry in include:
        noun, color, count = entry["class"], entry.get("color"), entry.get("count", 1)
        same = [item for item in found if item.noun == noun]
        require(len(same) >= count, f"{count} {noun} wanted, {len(same)} found.")
        chosen = sorted(same, key=lambda item: (color is not None and item.color != color, -item.score))[:count]
        if color is not None:
            right = sum(item.color == color for item in chosen)
            require(right >= count, f"{count} {color} {noun} wanted, {right} found.")
        if "position" in entry:
            relation, index = entry["position"]
            targets = groups[index]
            placed = bool(chosen and targets) and all(relation in relations(a, b) for a in chosen for b in targets)
            require(placed, f"{noun} is not {relation} {include[index]['class']}.")
        groups.append(chosen)
    for entry in metadata.get("exclude", ()):
        number = sum(item.noun == entry["class"] for item in found)
        require(number < entry["count"], f"fewer than {entry['count']} {entry['class']} wanted, {number} found.")
    correct = all(met)
    wanted = sum(len(group) for group in groups)
    return Verdict(correct, correct and len(found) == wanted, sum(met) / len(met), tuple(problems), tuple(found))

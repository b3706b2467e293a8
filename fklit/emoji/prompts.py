"""The prompts of the emoji scenes and the pairs of objects that are held out from training.

A prompt carries what it asks for (objects, colors, counts, relation), so that a judge can check an image against it.
The six tags are those of GenEval (Ghosh et al. 2023, arXiv:2310.11513): single_object, two_object, counting, colors,
position, color_attr.
"""

import itertools
import zlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from fklit.emoji.objects import NOUNS, OBJECTS
from fklit.metrics.geneval import TAGS, Tag

Relation = Literal["left of", "right of", "above", "below"]
Split = Literal["tune", "test"]

RELATIONS: tuple[Relation, ...] = get_args(Relation)
COUNT_WORDS = {2: "two", 3: "three", 4: "four"}
PLURALS = {
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "fish": "fish",
    "fox": "foxes",
    "octopus": "octopuses",
}
COMPOSITIONAL_TAGS: tuple[Tag, ...] = ("counting", "position", "two_object", "color_attr")
"""The tasks that generators fail at."""
_HELD_OUT_ONE_IN = 6


def is_held_out(first: str, second: str) -> bool:
    """Whether two different nouns never meet in a training scene (one pair in six, by a checksum)."""
    if first == second:
        return False
    return zlib.crc32("+".join(sorted((first, second))).encode()) % _HELD_OUT_ONE_IN == 0


@dataclass(frozen=True)
class Wanted:
    """One thing a prompt asks for: `count` objects of `noun`, in `color` (None: any color)."""

    noun: str
    color: str | None = None
    count: int = 1

    @property
    def phrase(self) -> str:
        """The words of the caption, for example `"a red heart"` or `"three cats"`."""
        color = "" if self.color is None else f"{self.color} "
        if self.count > 1:
            return f"{COUNT_WORDS[self.count]} {color}{PLURALS.get(self.noun, self.noun + 's')}"
        words = f"{color}{self.noun}"
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class ScenePrompt:
    """A prompt with what it asks for.

    Attributes:
        tag: The GenEval task.
        wanted: One or two wanted things; nothing else should be in the image.
        relation: With two things, `wanted[0] <relation> wanted[1]`; None when any arrangement will do.
    """

    tag: Tag
    wanted: tuple[Wanted, ...]
    relation: Relation | None = None

    @property
    def text(self) -> str:
        """The caption."""
        joint = " and " if self.relation is None else f" {self.relation} "
        return joint.join(item.phrase for item in self.wanted)

    @property
    def held_out(self) -> bool:
        """Whether the two nouns are a pair that training never saw together."""
        return len(self.wanted) == 2 and is_held_out(self.wanted[0].noun, self.wanted[1].noun)

    @property
    def split(self) -> Split:
        """`"tune"` (settings may be chosen on it) or `"test"`; held-out pairs are always `"test"`."""
        return "tune" if not self.held_out and zlib.crc32(self.text.encode()) % 2 else "test"

    def metadata(self) -> dict[str, Any]:
        """The prompt as a line of GenEval's `evaluation_metadata.jsonl`; a relation is on the thing it places."""
        include: list[dict[str, Any]] = []
        # GenEval places a later item relative to an earlier one: "a cat left of a dog" lists the dog first.
        order = self.wanted if self.relation is None else self.wanted[::-1]
        for item in order:
            entry: dict[str, Any] = {"class": item.noun, "count": item.count}
            if item.color is not None:
                entry["color"] = item.color
            include.append(entry)
        if self.relation is not None:
            include[1]["position"] = [self.relation, 0]
        line: dict[str, Any] = {"tag": self.tag, "include": include, "prompt": self.text}
        if self.tag == "counting":
            line["exclude"] = [{"class": item.noun, "count": item.count + 1} for item in self.wanted]
        return line


def all_prompts(tag: Tag) -> list[ScenePrompt]:
    """Every prompt of one task, in a fixed order, held-out pairs included.

    Raises:
        ValueError: The tag is unknown.
    """
    looks = [Wanted(thing.noun, thing.color) for thing in OBJECTS]
    colored = [look for look in looks if look.color is not None]
    match tag:
        case "single_object":
            return [ScenePrompt(tag, (Wanted(noun),)) for noun in NOUNS]
        case "two_object":
            return [ScenePrompt(tag, (Wanted(a), Wanted(b))) for a, b in itertools.permutations(NOUNS, 2)]
        case "counting":
            return [ScenePrompt(tag, (Wanted(look.noun, look.color, n),)) for n in COUNT_WORDS for look in looks]
        case "colors":
            return [ScenePrompt(tag, (look,)) for look in colored]
        case "position":
            pairs = [pair for pair in itertools.permutations(looks, 2) if pair[0].noun != pair[1].noun]
            return [ScenePrompt(tag, pair, relation) for relation in RELATIONS for pair in pairs]
        case "color_attr":
            return [
                ScenePrompt(tag, (a, b))
                for a, b in itertools.permutations(colored, 2)
                if a.noun != b.noun and a.color != b.color
            ]
    raise ValueError(f"expected a tag of {TAGS}, got {tag!r}; choose one.")


def test_prompts(
    number: int,
    *,
    split: Split = "test",
    tags: tuple[Tag, ...] = TAGS,
    held_out: bool | None = None,
    seed: int = 0,
) -> list[ScenePrompt]:
    """A balanced list of different prompts for a benchmark: the tags in turn, drawn without repetition.

    Args:
        number: How many prompts.
        split: `"tune"` for choosing settings, `"test"` for reporting; no prompt is in both.
        tags: Tasks to draw from, in turn; a task that has run out is skipped.
        held_out: True for held-out pairs only, False for none of them, None for both as they come.
        seed: Of the draw.

    Raises:
        ValueError: Fewer than `number` prompts qualify.
    """
    rng = np.random.default_rng(seed)
    queues: list[list[ScenePrompt]] = []
    for tag in tags:
        fitting = [p for p in all_prompts(tag) if p.split == split and (held_out is None or p.held_out == held_out)]
        queues.append([fitting[i] for i in rng.permutation(len(fitting))])
    chosen = [p for row in itertools.zip_longest(*queues) for p in row if p is not None][:number]
    if len(chosen) < number:
        raise ValueError(
            f"expected at most {len(chosen)} prompts with split={split!r}, tags={tags}, held_out={held_out}, got "
            f"{number}; use fewer."
        )
    return chosen


def compositional_prompts(number: int, split: Split = "test") -> list[ScenePrompt]:
    """Prompts of the four tasks that generators fail at: a quarter counting, the rest two objects in equal parts.

    Of those for tests, half of all (two thirds of the pairs) are pairs of nouns that training never showed together.

    Args:
        number: How many prompts.
        split: `"tune"` for choosing settings, `"test"` for reporting.
    """
    pairs = COMPOSITIONAL_TAGS[1:]
    if split == "tune":  # which has no held-out pairs
        return test_prompts(number, split="tune", tags=COMPOSITIONAL_TAGS)
    counting = test_prompts(number // 4, tags=("counting",))
    rest = number - len(counting)
    held_out = test_prompts(rest * 2 // 3, held_out=True, tags=pairs)
    return [*counting, *held_out, *test_prompts(rest - len(held_out), held_out=False, tags=pairs)]


# pytest would otherwise collect this function wherever a test module imports it.
test_prompts.__test__ = False  # type: ignore[attr-defined]

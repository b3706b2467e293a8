"""Emoji scenes: 64x64 images of one to four emoji on white, each with a prompt that says exactly what is in it.

Everything is a pure function of `(seed, index)`: `sample_scene` draws what is where, `compose` paints it,
`caption` names it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fklit.emoji.art import STYLES, EmojiArt, Style
from fklit.emoji.objects import OBJECTS, EmojiObject, colors_of, find_object
from fklit.emoji.prompts import COUNT_WORDS, RELATIONS, Relation, ScenePrompt, Wanted, is_held_out
from fklit.metrics.geneval import Tag

IMAGE_SIZE = 64
MIN_SIZE, MAX_SIZE = 26, 30
_CELL = IMAGE_SIZE // 2
# How often training shows each kind of prompt.
_TAG_SHARES: dict[Tag, float] = {
    "single_object": 0.08,
    "colors": 0.16,
    "counting": 0.16,
    "two_object": 0.15,
    "color_attr": 0.10,
    "position": 0.35,
}


@dataclass(frozen=True)
class PlacedObject:
    """One object of a scene: what, in which art style, and its box `(left, top, right, bottom)` in pixels."""

    name: str
    noun: str
    color: str | None
    style: Style
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """A prompt and one arrangement of objects that fulfills it."""

    prompt: ScenePrompt
    objects: tuple[PlacedObject, ...]


def caption(scene: Scene) -> str:
    """The text of the scene's prompt, for example `"a red apple left of a dog"`."""
    return scene.prompt.text


def compose(scene: Scene, art: EmojiArt) -> npt.NDArray[np.uint8]:
    """Paint a scene on white.

    Args:
        scene: What is where; later objects are painted over earlier ones.
        art: The sprites.

    Returns:
        RGB image, `(64, 64, 3)`.
    """
    canvas = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 255.0)
    for thing in scene.objects:
        left, top, right, bottom = thing.box
        sprite = art.sprite(thing.name, thing.style, right - left).astype(np.float64)
        alpha = sprite[..., 3:] / 255.0
        patch = canvas[top:bottom, left:right]
        canvas[top:bottom, left:right] = alpha * sprite[..., :3] + (1.0 - alpha) * patch
    picture: npt.NDArray[np.uint8] = np.rint(canvas).astype(np.uint8)
    return picture


def _pick(rng: np.random.Generator, items: tuple[EmojiObject, ...]) -> EmojiObject:
    return items[int(rng.integers(len(items)))]


def sample_prompt(rng: np.random.Generator) -> ScenePrompt:
    """Draw a training prompt; held-out pairs never come."""
    tags = tuple(_TAG_SHARES)
    tag = tags[int(rng.choice(len(tags), p=list(_TAG_SHARES.values())))]
    colored = tuple(thing for thing in OBJECTS if thing.color is not None)
    if tag == "colors":
        thing = _pick(rng, colored)
        return ScenePrompt(tag, (Wanted(thing.noun, thing.color),))
    if tag == "single_object":
        return ScenePrompt(tag, (Wanted(_pick(rng, OBJECTS).noun),))
    if tag == "counting":
        thing = _pick(rng, OBJECTS)
        counts = tuple(COUNT_WORDS)
        return ScenePrompt(tag, (Wanted(thing.noun, thing.color, counts[int(rng.integers(len(counts)))]),))
    pool = colored if tag == "color_attr" else OBJECTS
    while True:
        first, second = _pick(rng, pool), _pick(rng, pool)
        if first.noun != second.noun and not is_held_out(first.noun, second.noun):
            break
    keep_color = tag != "two_object"
    wanted = tuple(Wanted(thing.noun, thing.color if keep_color else None) for thing in (first, second))
    relation = RELATIONS[int(rng.integers(len(RELATIONS)))] if tag == "position" else None
    return ScenePrompt(tag, wanted, relation)


def _cell_corner(rng: np.random.Generator, column: float, row: float, size: int) -> tuple[int, int]:
    """Top-left corner of an object of `size` in the cell at `(column, row)`, 0 to 1 each; 0.5 is the middle.

    The corner is drawn uniformly among those that keep the object inside the cell when the cell is an outer one, and
    within six pixels of the middle otherwise.
    """
    corner = []
    for place in (column, row):
        if place == 0.5:
            middle = (IMAGE_SIZE - size) // 2
            corner.append(middle + int(rng.integers(-6, 7)))
        else:
            corner.append(int(place * _CELL) + int(rng.integers(_CELL - size + 1)))
    return corner[0], corner[1]


_CELLS_OF_RELATION: dict[Relation, tuple[tuple[float, float], tuple[float, float]]] = {
    "left of": ((0, 0.5), (1, 0.5)),
    "right of": ((1, 0.5), (0, 0.5)),
    "above": ((0.5, 0), (0.5, 1)),
    "below": ((0.5, 1), (0.5, 0)),
}


def place(prompt: ScenePrompt, rng: np.random.Generator) -> Scene:
    """Arrange the objects of a prompt: colors left open, style, sizes and positions are drawn.

    One style is used in a scene. One object sits near the middle; two sit in a row or a column; three and
    four take the quarters of the canvas. Objects never overlap.
    """
    style = STYLES[int(rng.integers(len(STYLES)))]
    looks: list[EmojiObject] = []
    for item in prompt.wanted:
        colors = colors_of(item.noun)
        color = item.color
        if color is None and colors:
            color = colors[int(rng.integers(len(colors)))]
        looks.extend([find_object(item.noun, color)] * item.count)
    if len(looks) == 1:
        cells: tuple[tuple[float, float], ...] = ((0.5, 0.5),)
    elif len(looks) == 2:
        relation = prompt.relation or RELATIONS[int(rng.integers(len(RELATIONS)))]
        cells = _CELLS_OF_RELATION[relation]
    else:
        quarters = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
        order = rng.permutation(4)[: len(looks)]
        cells = tuple(quarters[int(i)] for i in order)
    placed = []
    for thing, (column, row) in zip(looks, cells, strict=True):
        size = int(rng.integers(MIN_SIZE, MAX_SIZE + 1))
        left, top = _cell_corner(rng, column, row, size)
        placed.append(PlacedObject(thing.name, thing.noun, thing.color, style, (left, top, left + size, top + size)))
    return Scene(prompt, tuple(placed))


def scene_rng(seed: int, index: int) -> np.random.Generator:
    """The generator of scene `index` of stream `seed`; independent of every other index."""
    return np.random.default_rng((seed, index))


def sample_scene(seed: int, index: int) -> Scene:
    """Training scene number `index` of stream `seed`: a drawn prompt, arranged."""
    rng = scene_rng(seed, index)
    return place(sample_prompt(rng), rng)


def sample_crowd(seed: int, index: int) -> Scene:
    """Four unrelated objects, one in each quarter, in mixed styles: a dense image for training an autoencoder.

    Held-out pairs do not meet here either. The prompt is that of the first object only: not for training captions.
    """
    rng = scene_rng(seed, index)
    looks = [_pick(rng, OBJECTS)]
    while len(looks) < 4:
        candidate = _pick(rng, OBJECTS)
        if not any(is_held_out(candidate.noun, other.noun) for other in looks):
            looks.append(candidate)
    placed = []
    for thing, (column, row) in zip(looks, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), strict=True):
        size = int(rng.integers(MIN_SIZE, MAX_SIZE + 1))
        left, top = _cell_corner(rng, column, row, size)
        style = STYLES[int(rng.integers(len(STYLES)))]
        placed.append(PlacedObject(thing.name, thing.noun, thing.color, style, (left, top, left + size, top + size)))
    return Scene(ScenePrompt("single_object", (Wanted(looks[0].noun),)), tuple(placed))

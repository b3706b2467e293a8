"""Groups of pictures and captions that differ in one thing, for training a reward that sees relations and counts.

A group is four pictures and two captions. The captions share most of their words; the pictures share most of their
objects. So neither a picture nor a caption alone says whether they match.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from fklit.emoji.art import STYLES, EmojiArt
from fklit.emoji.boxes import free_box
from fklit.emoji.distractors import Pixels, distractor, sprite_pixels, warp
from fklit.emoji.hard_negatives import fulfills, hard_negative
from fklit.emoji.objects import OBJECTS, colors_of
from fklit.emoji.prompts import ScenePrompt
from fklit.emoji.scenes import IMAGE_SIZE, MAX_SIZE, MIN_SIZE, PlacedObject, Scene, place, sample_prompt, scene_rng

PICTURES, CAPTIONS = 4, 2
PATCHES = 8
"""Patches along a side, for the labels of what is where."""
NOTHING, SPOILED = len(OBJECTS), len(OBJECTS) + 1
"""Patch labels beside the index of an object: the background, and what is no object any more."""
_CLASS_OF = {thing.name: index for index, thing in enumerate(OBJECTS)}
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


class CaptionGroup(NamedTuple):
    """Four pictures, two captions and what is known about them.

    `pictures` is uint8 (4, 3, 64, 64); `truth` bool (4, 2): the picture shows what the caption says and nothing else;
    `patches` int64 (4, 8, 8): the object whose box holds the middle of each patch, `NOTHING` or `SPOILED`; `centers`
    float32 (4, 2, 2, 2): for each picture, caption and of it the first two things it asks for, the center (x, y) in
    [0, 1] of the only object that fits, NaN where there is none or more than one.
    """

    pictures: torch.Tensor
    captions: tuple[ScenePrompt, ScenePrompt]
    truth: torch.Tensor
    patches: torch.Tensor
    centers: torch.Tensor


@dataclass(frozen=True)
class _Picture:
    """Objects, and the boxes of patches painted instead of or beside them."""

    scene: Scene
    spoiled: tuple[tuple[int, int, int, int], ...] = ()


class CaptionGroupDataset(Dataset[CaptionGroup]):
    """`length` groups of stream `seed`; group `i` is the same whatever the order, batch size or process.

    The first picture shows the first caption, the second one the other caption, the third one is the first or
    second with one change (swapped places, an object missing, doubled, added, replaced or recolored), and in the
    fourth an object is spoiled. A third of the objects are warped a little, by up to 6 % of their size, as generators
    do.

    Args:
        art: The sprites.
        length: Number of groups.
        seed: Of the stream.
    """

    def __init__(self, art: EmojiArt, length: int, *, seed: int) -> None:
        self.art = art
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> CaptionGroup:
        rng = scene_rng(self.seed, index)
        first = sample_prompt(rng)
        if rng.random() < 0.3:  # the stream of training prompts leaves pairs of nouns out; a reward should know them
            first = hard_negative(first, rng)
        second = other_caption(first, rng)
        scenes = [place(first, rng), place(second, rng)]
        changed = change(scenes[int(rng.random() < 0.5)], rng)
        pictures = [*map(_Picture, scenes), _Picture(changed), self._spoil(scenes[int(rng.random() < 0.5)], rng)]
        captions = (first, second)
        painted = np.stack([self._paint(picture, rng) for picture in pictures])
        return CaptionGroup(
            pictures=torch.from_numpy(np.rint(painted.clip(0, 1) * 255).astype(np.uint8)).permute(0, 3, 1, 2),
            captions=captions,
            truth=torch.tensor(
                [[not item.spoiled and fulfills(item.scene, text) for text in captions] for item in pictures]
            ),
            patches=torch.from_numpy(np.stack([_label_patches(item) for item in pictures])),
            centers=torch.tensor([[_find_centers(item.scene, text) for text in captions] for item in pictures]),
        )

    def _spoil(self, scene: Scene, rng: np.random.Generator) -> _Picture:
        """One object becomes a distractor; now and then the distractor stands beside whole objects instead."""
        if rng.random() < 0.15:
            free = free_box(rng, [thing.box for thing in scene.objects], int(rng.integers(18, MAX_SIZE + 1)))
            if free is not None:
                return _Picture(scene, (free,))
        spot = int(rng.integers(len(scene.objects)))
        rest = tuple(thing for index, thing in enumerate(scene.objects) if index != spot)
        return _Picture(Scene(scene.prompt, rest), (scene.objects[spot].box,))

    def _paint(self, picture: _Picture, rng: np.random.Generator) -> Pixels:
        canvas = np.ones((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
        for thing in picture.scene.objects:
            patch = sprite_pixels(self.art, thing.name, thing.style, thing.box[2] - thing.box[0])
            if rng.random() < 1 / 3:
                patch = warp(patch, rng, float(rng.uniform(0.01, 0.06)))
            _put(canvas, patch, thing.box)
        for box in picture.spoiled:
            _put(canvas, distractor(rng, self.art, box[2] - box[0]), box)
        return canvas


def other_caption(prompt: ScenePrompt, rng: np.random.Generator) -> ScenePrompt:
    """A caption that differs in one thing; with a relation mostly the opposite one, or the places swapped."""
    if prompt.relation is not None and rng.random() < 0.7:
        if rng.random() < 0.5:
            return replace(prompt, wanted=prompt.wanted[::-1])
        return replace(prompt, relation=_OPPOSITE[prompt.relation])  # type: ignore[arg-type]
    return hard_negative(prompt, rng)


def change(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one change to its objects; its prompt stays."""
    while True:
        objects = _change_objects(list(scene.objects), rng)
        if objects is not None:
            return Scene(scene.prompt, tuple(objects))


def _change_objects(objects: list[PlacedObject], rng: np.random.Generator) -> list[PlacedObject] | None:
    spot = int(rng.integers(len(objects)))
    thing = objects[spot]
    kind = int(rng.integers(7))
    if kind <= 1:  # twice as often: places swapped
        if len(objects) != 2 or objects[0].name == objects[1].name:
            return None
        return [replace(objects[0], box=objects[1].box), replace(objects[1], box=objects[0].box)]
    if kind == 2:  # missing
        return [item for index, item in enumerate(objects) if index != spot] if len(objects) > 1 else None
    if kind in (3, 4):  # the same again, or another one beside
        free = free_box(rng, [item.box for item in objects], int(rng.integers(MIN_SIZE - 4, MAX_SIZE + 1)))
        if free is None:
            return None
        look = OBJECTS[int(rng.integers(len(OBJECTS)))]
        style = thing.style if rng.random() < 0.8 else STYLES[int(rng.integers(len(STYLES)))]
        extra = PlacedObject(look.name, look.noun, look.color, style, free) if kind == 4 else replace(thing, box=free)
        return [*objects, extra]
    if kind == 5:  # recolored
        colors = [color for color in colors_of(thing.noun) if color != thing.color]
        if not colors:
            return None
        color = colors[int(rng.integers(len(colors)))]
        objects[spot] = replace(thing, color=color, name=f"{color} {thing.noun}")
        return objects
    look = OBJECTS[int(rng.integers(len(OBJECTS)))]  # replaced
    if look.name == thing.name:
        return None
    objects[spot] = replace(thing, name=look.name, noun=look.noun, color=look.color)
    return objects


def _put(canvas: Pixels, patch: Pixels, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    alpha = patch[..., 3:]
    canvas[top:bottom, left:right] = alpha * patch[..., :3] + (1 - alpha) * canvas[top:bottom, left:right]


def _label_patches(picture: _Picture) -> np.ndarray:
    """In whose box the middle of each patch is; what is painted later is on top."""
    labels = np.full((PATCHES, PATCHES), NOTHING, dtype=np.int64)
    side = IMAGE_SIZE / PATCHES
    middle = (np.arange(PATCHES) + 0.5) * side
    marks = [(thing.box, _CLASS_OF[thing.name]) for thing in picture.scene.objects]
    for (left, top, right, bottom), label in [*marks, *((box, SPOILED) for box in picture.spoiled)]:
        rows, columns = (middle >= top) & (middle < bottom), (middle >= left) & (middle < right)
        labels[np.ix_(rows, columns)] = label
    return labels


def _find_centers(scene: Scene, prompt: ScenePrompt) -> list[tuple[float, float]]:
    """Where the first two things of a caption are in a scene."""
    centers = [(float("nan"), float("nan"))] * 2
    for index, wanted in enumerate(prompt.wanted[:2]):
        fitting = [
            thing
            for thing in scene.objects
            if thing.noun == wanted.noun and (wanted.color is None or thing.color == wanted.color)
        ]
        if len(fitting) == 1:
            left, top, right, bottom = fitting[0].box
            centers[index] = ((left + right) / 2 / IMAGE_SIZE, (top + bottom) / 2 / IMAGE_SIZE)
    return centers

"""Prompts that are nearly right, and whether a scene shows what a prompt says."""

import numpy as np

from fklit.emoji.objects import COLORS, NOUNS, colors_of
from fklit.emoji.prompts import COUNT_WORDS, RELATIONS, ScenePrompt, Wanted
from fklit.emoji.scenes import Scene
from fklit.metrics.geneval import FoundObject, judge_objects


def hard_negative(prompt: ScenePrompt, rng: np.random.Generator) -> ScenePrompt:
    """A prompt one small change away: another relation, other colors, another count, another object or one less."""
    while True:
        changed = _change(prompt, rng)
        if changed is not None and changed.text != prompt.text:
            return changed


def _change(prompt: ScenePrompt, rng: np.random.Generator) -> ScenePrompt | None:
    wanted = list(prompt.wanted)
    spot = int(rng.integers(len(wanted)))
    thing = wanted[spot]
    kind = int(rng.integers(6))
    if kind == 0 and prompt.relation is not None:
        if rng.random() < 0.5:  # the same words in another order
            return ScenePrompt(prompt.tag, (wanted[1], wanted[0]), prompt.relation)
        return ScenePrompt(prompt.tag, prompt.wanted, RELATIONS[int(rng.integers(len(RELATIONS)))])
    if kind == 1 and len(wanted) == 2:
        first, second = wanted
        if second.color not in colors_of(first.noun) or first.color not in colors_of(second.noun):
            return None
        swapped = (Wanted(first.noun, second.color, first.count), Wanted(second.noun, first.color, second.count))
        return ScenePrompt(prompt.tag, swapped, prompt.relation)
    if kind == 2 and thing.color is not None:
        wanted[spot] = Wanted(thing.noun, COLORS[int(rng.integers(len(COLORS)))], thing.count)
        if wanted[spot].color not in colors_of(thing.noun):
            return None
        return ScenePrompt(prompt.tag, tuple(wanted), prompt.relation)
    if kind == 3 and len(wanted) == 1:
        count = thing.count + (1 if rng.random() < 0.5 else -1)
        return (
            ScenePrompt(prompt.tag, (Wanted(thing.noun, thing.color, count),))
            if 1 <= count <= max(COUNT_WORDS)
            else None
        )
    if kind == 4:
        noun = NOUNS[int(rng.integers(len(NOUNS)))]
        colors = colors_of(noun)
        if any(item.noun == noun for item in wanted) or (
            thing.color is not None and colors and thing.color not in colors
        ):
            return None
        wanted[spot] = Wanted(noun, thing.color if colors else None, thing.count)
        return ScenePrompt(prompt.tag, tuple(wanted), prompt.relation)
    if kind == 5 and len(wanted) == 2 and rng.random() < 0.5:
        return ScenePrompt("single_object", (thing,))
    return None


def fulfills(scene: Scene, prompt: ScenePrompt) -> bool:
    """Whether the scene shows what the prompt says and nothing else, by GenEval's rule."""
    found = [FoundObject(thing.noun, thing.color, thing.box) for thing in scene.objects]
    return judge_objects(found, prompt.metadata()).exact

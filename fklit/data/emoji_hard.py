"""Prompts that are nearly right, and whether a scene shows what a prompt says."""

import numpy as np

from fklit.data.emoji_prompts import COLOURS, COUNT_WORDS, NOUNS, RELATIONS, ScenePrompt, Wanted, colours_of
from fklit.data.emoji_scenes import Scene
from fklit.metrics.geneval import FoundObject, judge_objects


def hard_negative(prompt: ScenePrompt, rng: np.random.Generator) -> ScenePrompt:
    """A prompt one small change away: another relation, other colours, another count, another object or one less."""
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
        if second.colour not in colours_of(first.noun) or first.colour not in colours_of(second.noun):
            return None
        swapped = (Wanted(first.noun, second.colour, first.count), Wanted(second.noun, first.colour, second.count))
        return ScenePrompt(prompt.tag, swapped, prompt.relation)
    if kind == 2 and thing.colour is not None:
        wanted[spot] = Wanted(thing.noun, COLOURS[int(rng.integers(len(COLOURS)))], thing.count)
        if wanted[spot].colour not in colours_of(thing.noun):
            return None
        return ScenePrompt(prompt.tag, tuple(wanted), prompt.relation)
    if kind == 3 and len(wanted) == 1:
        count = thing.count + (1 if rng.random() < 0.5 else -1)
        return (
            ScenePrompt(prompt.tag, (Wanted(thing.noun, thing.colour, count),))
            if 1 <= count <= max(COUNT_WORDS)
            else None
        )
    if kind == 4:
        noun = NOUNS[int(rng.integers(len(NOUNS)))]
        colours = colours_of(noun)
        if any(item.noun == noun for item in wanted) or (
            thing.colour is not None and colours and thing.colour not in colours
        ):
            return None
        wanted[spot] = Wanted(noun, thing.colour if colours else None, thing.count)
        return ScenePrompt(prompt.tag, tuple(wanted), prompt.relation)
    if kind == 5 and len(wanted) == 2 and rng.random() < 0.5:
        return ScenePrompt("single_object", (thing,))
    return None


def fulfils(scene: Scene, prompt: ScenePrompt) -> bool:
    """Whether the scene shows what the prompt says and nothing else, by GenEval's rule."""
    found = [FoundObject(thing.noun, thing.colour, thing.box) for thing in scene.objects]
    return judge_objects(found, prompt.metadata()).exact

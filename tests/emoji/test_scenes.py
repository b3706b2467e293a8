"""Scenes show what their prompt says, prompts say what a judge needs, and held-out pairs stay out."""

import numpy as np
import pytest
from fake_art import write_fake_art

from fklit.emoji.art import load_art
from fklit.emoji.objects import COLORS, NOUNS, OBJECTS, colors_of, find_object
from fklit.emoji.prompts import (
    COUNT_WORDS,
    ScenePrompt,
    Wanted,
    all_prompts,
    compositional_prompts,
    is_held_out,
    test_prompts,
)
from fklit.emoji.scene_data import EmojiScenesDataModule
from fklit.emoji.scenes import IMAGE_SIZE, caption, compose, place, sample_crowd, sample_scene
from fklit.metrics.geneval import TAGS

SCENES = [sample_scene(0, index) for index in range(2000)]


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    return load_art(write_fake_art(tmp_path_factory.mktemp("art")))


def center(thing):
    left, top, right, bottom = thing.box
    return (left + right) / 2, (top + bottom) / 2


def overlap(one, other):
    return (
        one.box[0] < other.box[2]
        and other.box[0] < one.box[2]
        and one.box[1] < other.box[3]
        and other.box[1] < one.box[3]
    )


def test_scenes_depend_on_seed_and_index_only():
    assert sample_scene(0, 7) == SCENES[7] != sample_scene(1, 7)
    assert len({caption(scene) for scene in SCENES}) > 1000


def test_scenes_hold_exactly_what_the_prompt_wants():
    for scene in SCENES:
        wanted = {(item.noun, item.color): item.count for item in scene.prompt.wanted}
        for (noun, color), count in wanted.items():
            assert sum(thing.noun == noun and color in (None, thing.color) for thing in scene.objects) == count
        assert len(scene.objects) == sum(wanted.values())


def test_objects_stay_on_the_canvas_and_apart():
    for scene in SCENES:
        for number, thing in enumerate(scene.objects):
            assert min(thing.box) >= 0 and max(thing.box) <= IMAGE_SIZE
            assert not any(overlap(thing, other) for other in scene.objects[:number])


def test_relations_hold():
    seen = set()
    for scene in SCENES:
        if scene.prompt.relation is None:
            continue
        seen.add(scene.prompt.relation)
        (x0, y0), (x1, y1) = (center(thing) for thing in scene.objects)
        gap = {"left of": x1 - x0, "right of": x0 - x1, "above": y1 - y0, "below": y0 - y1}[scene.prompt.relation]
        assert gap >= 26 > 12 >= min(abs(x1 - x0), abs(y1 - y0)), (scene, gap)
    assert len(seen) == 4


def test_held_out_pairs_never_meet_in_training():
    for scene in SCENES + [sample_crowd(0, index) for index in range(300)]:
        nouns = [thing.noun for thing in scene.objects]
        assert not any(is_held_out(a, b) for a in nouns for b in nouns)
    pairs = [(a, b) for number, a in enumerate(NOUNS) for b in NOUNS[:number]]
    assert 0.1 < np.mean([is_held_out(*pair) for pair in pairs]) < 0.25
    assert all(is_held_out(a, b) == is_held_out(b, a) for a, b in pairs)
    assert not any(is_held_out(noun, noun) for noun in NOUNS)


@pytest.mark.parametrize("tag", TAGS)
def test_every_prompt_can_be_arranged(tag):
    prompts = all_prompts(tag)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    for prompt in prompts[:: max(len(prompts) // 50, 1)]:
        assert len(place(prompt, np.random.default_rng(0)).objects) == sum(item.count for item in prompt.wanted)


def test_every_tag_is_trained_as_often_as_the_shipped_models_were():
    shares = {
        "single_object": 0.08,
        "colors": 0.16,
        "counting": 0.16,
        "two_object": 0.15,
        "color_attr": 0.10,
        "position": 0.35,
    }
    assert set(shares) == set(TAGS)
    for tag, share in shares.items():
        number = sum(scene.prompt.tag == tag for scene in SCENES)
        assert abs(number - 2000 * share) < 4 * np.sqrt(2000 * share * (1 - share))


def test_the_draws_are_those_of_the_shipped_models():
    """Their cards name the streams they were trained on: another draw would silently be another data set."""
    drawn = [
        (caption(scene), [(thing.name, thing.style, thing.box) for thing in scene.objects]) for scene in SCENES[:3]
    ]
    assert drawn == [
        (
            "a red square and a red circle",
            [("red square", "google", (0, 15, 26, 41)), ("red circle", "google", (33, 22, 63, 52))],
        ),
        (
            "a blue square left of a rocket",
            [("blue square", "twitter", (0, 11, 30, 41)), ("rocket", "twitter", (33, 22, 60, 49))],
        ),
        ("a red circle", [("red circle", "google", (19, 23, 46, 50))]),
    ]
    assert [(thing.name, thing.style, thing.box) for thing in sample_crowd(0, 0).objects] == [
        ("sun", "twitter", (1, 5, 27, 31)),
        ("cat", "twitter", (33, 1, 63, 31)),
        ("green heart", "twitter", (2, 34, 31, 63)),
        ("yellow heart", "twitter", (32, 34, 62, 64)),
    ]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (ScenePrompt("single_object", (Wanted("octopus"),)), "an octopus"),
        (ScenePrompt("colors", (Wanted("apple", "green"),)), "a green apple"),
        (ScenePrompt("counting", (Wanted("butterfly", None, 3),)), "three butterflies"),
        (ScenePrompt("counting", (Wanted("fox", None, 2),)), "two foxes"),
        (ScenePrompt("two_object", (Wanted("cat"), Wanted("apple"))), "a cat and an apple"),
        (ScenePrompt("position", (Wanted("apple", "red"), Wanted("dog")), "left of"), "a red apple left of a dog"),
    ],
)
def test_captions(prompt, text):
    assert prompt.text == text


def test_metadata_is_genevals():
    prompt = ScenePrompt("position", (Wanted("heart", "red"), Wanted("dog")), "above")
    assert prompt.metadata() == {
        "tag": "position",
        "include": [
            {"class": "dog", "count": 1},
            {"class": "heart", "count": 1, "color": "red", "position": ["above", 0]},
        ],
        "prompt": "a red heart above a dog",
    }
    two = ScenePrompt("counting", (Wanted("star", None, 2),)).metadata()
    assert two["include"] == [{"class": "star", "count": 2}] and two["exclude"] == [{"class": "star", "count": 3}]


def test_benchmark_prompts_are_balanced_and_apart_from_the_tuning_ones():
    test, tune = test_prompts(42), test_prompts(42, split="tune")
    assert not {prompt.text for prompt in test} & {prompt.text for prompt in tune}
    assert [sum(prompt.tag == tag for prompt in test) for tag in TAGS] == [7] * 6
    assert test_prompts(42) == test != test_prompts(42, seed=1)
    assert not any(prompt.held_out for prompt in tune)
    held = test_prompts(30, held_out=True, tags=("two_object", "position", "color_attr"))
    assert all(prompt.held_out and prompt.split == "test" for prompt in held)
    with pytest.raises(ValueError, match=r"expected at most 0 prompts .*held_out=True, got 1; use fewer"):
        test_prompts(1, held_out=True, tags=("counting",))


def test_objects():
    assert len(OBJECTS) == 40 and len({thing.name for thing in OBJECTS}) == 40
    assert {thing.color for thing in OBJECTS} == {None, *COLORS}
    assert colors_of("book") == ("red", "green", "blue") and colors_of("cat") == ()
    assert find_object("cat", None).name == "cat" and set(COUNT_WORDS) == {2, 3, 4}
    with pytest.raises(KeyError, match="got noun 'cat' in color 'red'"):
        find_object("cat", "red")
    with pytest.raises(ValueError, match=r"expected a tag of .*, got 'shapes'"):
        all_prompts("shapes")


def test_pictures_are_white_outside_the_boxes(art):
    for scene in SCENES[:50]:
        picture = compose(scene, art)
        assert picture.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) and picture.dtype == np.uint8
        outside = np.ones((IMAGE_SIZE, IMAGE_SIZE), bool)
        for left, top, right, bottom in (thing.box for thing in scene.objects):
            outside[top:bottom, left:right] = False
            middle = picture[(top + bottom) // 2, (left + right) // 2]
            assert (middle < 255).any()
        assert (picture[outside] == 255).all()


def test_the_data_module_gives_pictures_and_captions(tmp_path):
    data = EmojiScenesDataModule(write_fake_art(tmp_path), 4, num_scenes=12, num_val_scenes=6, crowd_share=0.5)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 3 and batches[0]["image"].shape == (4, 3, 64, 64)
    assert 0 <= batches[0]["image"].min() and batches[0]["image"].max() == 1
    texts = [text for batch in batches for text in batch["prompt"]]
    assert "" in texts and any(texts)
    val = [text for batch in data.val_dataloader() for text in batch["prompt"]]
    assert val == [caption(sample_scene(1, index)) for index in range(6)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "expected batch_size of at least 1, got 0; give an integer"),
        ({"num_scenes": 0}, "expected num_scenes of at least 1, got 0"),
        ({"crowd_share": 1.5}, r"expected crowd_share in \[0, 1\], got 1.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EmojiScenesDataModule(**settings)


def test_half_of_the_compositional_prompts_are_held_out_pairs():
    prompts = compositional_prompts(96)
    assert len({prompt.text for prompt in prompts}) == 96
    assert sum(prompt.held_out for prompt in prompts) == 48
    assert all(prompt.split == "test" for prompt in prompts)
    tags = ("counting", "position", "two_object", "color_attr")
    assert [sum(prompt.tag == tag for prompt in prompts) for tag in tags] == [24, 24, 24, 24]
    tune = compositional_prompts(96, "tune")
    assert {prompt.split for prompt in tune} == {"tune"} and not any(prompt.held_out for prompt in tune)

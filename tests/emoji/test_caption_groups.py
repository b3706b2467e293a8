"""Groups of pictures and captions: what is known of them follows from what is painted, by a second way of counting."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fake_art import write_fake_art

import fklit.emoji.caption_groups as module
from fklit.emoji.art import STYLES, EmojiArt, load_art
from fklit.emoji.boxes import EmojiBoxesDataModule
from fklit.emoji.caption_group_data import CaptionGroupsDataModule
from fklit.emoji.caption_groups import NOTHING, SPOILED, CaptionGroupDataset
from fklit.emoji.hard_negatives import fulfills
from fklit.emoji.objects import OBJECTS, colors_of
from fklit.emoji.pairs import EmojiPairsDataModule
from fklit.emoji.prompts import Wanted
from fklit.emoji.scene_data import EmojiScenesDataModule

COUNT = 80
TONES = [(6 * number + 5, 250 - 6 * number, 3 * number) for number in range(len(OBJECTS))]
BLACK = (0, 0, 0)


class Watched(CaptionGroupDataset):
    """Keeps what it has painted: the four pictures of each group."""

    def __getitem__(self, index):
        self.painted = []
        return super().__getitem__(index)

    def _paint(self, picture, rng):
        self.painted.append(picture)
        return super()._paint(picture, rng)


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    return load_art(write_fake_art(tmp_path_factory.mktemp("art")))


@pytest.fixture(scope="module")
def groups():
    """Groups with the pictures behind them; each object is one flat tone, distractors are black, nothing is warped."""
    flat = {
        (thing.name, style): np.full((4, 4, 4), (*TONES[number], 255), np.uint8)
        for number, thing in enumerate(OBJECTS)
        for style in STYLES
    }
    black = np.zeros((64, 64, 4), np.float32)
    black[..., 3] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "warp", lambda pixels, rng, amount: pixels)
        patch.setattr(module, "distractor", lambda rng, art, size: black[:size, :size])
        data = Watched(EmojiArt(flat), COUNT, seed=11)
        return [(data[index], data.painted) for index in range(COUNT)]


def looks(objects):
    return Counter((thing.noun, thing.color) for thing in objects)


def middle(thing):
    left, top, right, bottom = thing.box
    return (left + right) / 2, (top + bottom) / 2


def test_items_depend_on_seed_and_index_only(art):
    data = CaptionGroupDataset(art, 6, seed=3)
    forth = [data[index] for index in range(6)]
    back = [CaptionGroupDataset(art, 100, seed=3)[index] for index in reversed(range(6))][::-1]
    for one, other in zip(forth, back, strict=True):
        assert one.captions == other.captions
        for name in ("pictures", "truth", "patches"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(one.centers.nan_to_num(-1), other.centers.nan_to_num(-1))
    assert len(data) == 6
    assert len({group.pictures.sum().item() for group in forth}) == 6
    first = forth[0]
    assert first.pictures.shape == (4, 3, 64, 64) and first.pictures.dtype == torch.uint8
    assert first.truth.shape == (4, 2) and first.truth.dtype == torch.bool
    assert first.patches.shape == (4, 8, 8) and first.patches.dtype == torch.int64
    assert first.centers.shape == (4, 2, 2, 2) and first.centers.dtype == torch.float32


def shows(picture, caption):
    """By counting and comparing centers, where no object is spoiled and pictures hold what captions ask for alone."""
    left = list(picture.scene.objects)
    chosen = []
    for wanted in caption.wanted:
        fitting = [item for item in left if item.noun == wanted.noun and wanted.color in (None, item.color)]
        if len(fitting) < wanted.count:
            return False
        chosen.append(fitting[0])
        for item in fitting[: wanted.count]:
            left.remove(item)
    if left or picture.spoiled:
        return False
    if caption.relation is None:
        return True
    (x, y), (other_x, other_y) = map(middle, chosen)
    across, down = x - other_x, y - other_y
    name = ("left of" if across < 0 else "right of") if abs(across) > abs(down) else ("above" if down < 0 else "below")
    return name == caption.relation


def test_truth_is_what_the_judge_says_of_whole_pictures(groups):
    disagreements = 0
    for group, pictures in groups:
        for picture, row in zip(pictures, group.truth.tolist(), strict=True):
            for caption, value in zip(group.captions, row, strict=True):
                assert value == (not picture.spoiled and fulfills(picture.scene, caption))
                disagreements += value != shows(picture, caption)
        assert group.truth[0, 0] and group.truth[1, 1] and not group.truth[3].any()
    assert disagreements == 0


def test_the_third_picture_has_one_change(groups):
    kinds = Counter()
    for _, (first, second, third, _) in groups:
        old = [scene for scene in (first.scene, second.scene) if scene.prompt is third.scene.prompt]
        assert old and not third.spoiled
        objects, before = list(third.scene.objects), list(old[0].objects)
        gone, new = list((looks(before) - looks(objects)).elements()), list((looks(objects) - looks(before)).elements())
        if len(objects) == len(before) + 1:
            assert objects[:-1] == before and not gone and len(new) == 1
            kinds["doubled" if objects[-1].name in [thing.name for thing in before] else "added"] += 1
        elif len(objects) == len(before) - 1:
            assert len(gone) == 1 and not new
            kinds["missing"] += 1
        elif not gone:
            assert len(objects) == 2 and [thing.box for thing in objects] == [thing.box for thing in before[::-1]]
            assert [thing.name for thing in objects] == [thing.name for thing in before]
            kinds["swapped"] += 1
        else:
            assert len(gone) == len(new) == 1
            assert [thing.box for thing in objects] == [thing.box for thing in before]
            kinds["recolored" if gone[0][0] == new[0][0] else "replaced"] += 1
    assert set(kinds) == {"swapped", "missing", "doubled", "added", "recolored", "replaced"}, kinds


def test_in_the_fourth_picture_one_object_is_spoiled_or_a_distractor_stands_beside_them(groups):
    beside = 0
    for _, (first, second, _, fourth) in groups:
        (box,) = fourth.spoiled
        whole = next(item.scene for item in (first, second) if item.scene.prompt is fourth.scene.prompt)
        if fourth.scene.objects == whole.objects:
            beside += 1
            assert all(
                max(box[0] - b[2], b[0] - box[2], box[1] - b[3], b[1] - box[3]) >= -2
                for b in (thing.box for thing in whole.objects)
            )
        else:
            assert sorted((thing.name, thing.box) for thing in whole.objects if thing.box != box) == sorted(
                (thing.name, thing.box) for thing in fourth.scene.objects
            )
            assert len(whole.objects) == len(fourth.scene.objects) + 1
    assert 0 < beside < COUNT / 3


def test_patch_labels_are_what_is_painted_at_the_middles(groups):
    tones = {(255, 255, 255): NOTHING, BLACK: SPOILED} | {tone: number for number, tone in enumerate(TONES)}
    seen = Counter()
    for group, _ in groups:
        at_middles = group.pictures[:, :, 4::8, 4::8].permute(0, 2, 3, 1).reshape(-1, 3).tolist()
        labels = [tones[tuple(pixel)] for pixel in at_middles]
        assert group.patches.flatten().tolist() == labels
        seen.update(labels)
    assert len(seen) == len(OBJECTS) + 2


def test_centers_are_those_of_the_only_object_that_fits(groups):
    kinds = Counter()
    for group, pictures in groups:
        for picture, of_picture in zip(pictures, group.centers.tolist(), strict=True):
            for caption, of_caption in zip(group.captions, of_picture, strict=True):
                for wanted, found in zip([*caption.wanted, None][:2], of_caption, strict=True):
                    names = [] if wanted is None else [f"{wanted.color} {wanted.noun}"]
                    if wanted is not None and wanted.color is None:
                        names = [wanted.noun, *(f"{color} {wanted.noun}" for color in colors_of(wanted.noun))]
                    fitting = [thing for thing in picture.scene.objects if thing.name in names]
                    kinds[min(len(fitting), 2)] += 1
                    if len(fitting) == 1:
                        assert found == pytest.approx([value / 64 for value in middle(fitting[0])])
                    else:
                        assert all(map(math.isnan, found))
    assert set(kinds) == {0, 1, 2}


def differences(first, second):
    """Every way in which the second caption is one change away from the first."""
    old, new = list(first.wanted), list(second.wanted)
    same = first.relation == second.relation
    if len(old) == 2 and len(new) == 1:
        return ["one less"] * (new[0] in old)
    found = []
    if old == new and not same:
        found.append("relation")
    if same and old == new[::-1]:
        found.append("order")
    if same and [(item.noun, item.count) for item in old] == [(item.noun, item.count) for item in new]:
        if len(old) == 2 and [item.color for item in old] == [item.color for item in new[::-1]]:
            found.append("colors swapped")
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    if same and len(changed) == 1:
        ((a, b),) = changed
        color = a.color if colors_of(b.noun) else None  # which goes with a noun that has one look only
        if b in (Wanted(a.noun, b.color, a.count), Wanted(a.noun, a.color, b.count), Wanted(b.noun, color, a.count)):
            found.append("one word")
    return found


def test_captions_differ_in_one_thing(groups):
    kinds = Counter()
    for group, _ in groups:
        first, second = group.captions
        found = differences(first, second)
        assert first.text != second.text and len(found) == 1, (first.text, second.text, found)
        kinds[found[0]] += 1
    assert {"relation", "order", "one word", "one less"} <= set(kinds), kinds


def test_streams_are_held_out(art):
    configs = Path(__file__).parents[2] / "configs" / "assets"
    used = Counter()
    for name, kind, streams in (
        ("image_reward", CaptionGroupsDataModule, 2), ("clip", EmojiPairsDataModule, 2),
        ("detector", EmojiBoxesDataModule, 3), ("text_to_image", EmojiScenesDataModule, 2),
    ):  # fmt: skip
        given = yaml.safe_load((configs / f"{name}.yaml").read_text())["data"]["init_args"]
        start = given.get("seed", kind().seed)
        assert start == kind().seed
        used.update(range(start, start + streams))
    assert set(used.values()) == {1}, used
    # of the same index in both streams
    data = CaptionGroupsDataModule()
    train, val = (CaptionGroupDataset(art, 8, seed=seed) for seed in (data.seed, data.seed + 1))
    texts = [{train[index].captions for index in range(8)}, {val[index].captions for index in range(8)}]
    assert not texts[0] & texts[1]


def test_batches(tmp_path):
    data = CaptionGroupsDataModule(write_fake_art(tmp_path), 4, num_groups=10, num_val_groups=6, max_length=12)
    data.setup("fit")
    assert (data.train_set.seed, data.val_set.seed) == (800_000, 800_001)
    assert len(data.train_dataloader()) == 2 and len(data.val_dataloader()) == 2
    batch = next(iter(data.val_dataloader()))
    group = data.val_set[1]
    assert batch["captions"][1] == tuple(caption.text for caption in group.captions)
    assert torch.equal(batch["pictures"][1], group.pictures) and torch.equal(batch["truth"][1], group.truth)
    assert batch["tokens"].shape == (4, 2, 12) and batch["places"].shape == (4, 2, 2)
    decoded = data._tokenizer.decode(batch["tokens"][1, 0], skip_special_tokens=False).split()
    assert [word for word in decoded if word[0] != "<"] == group.captions[0].text.split()
    for index in range(4):
        first, second = data.val_set[index].captions
        both = first.relation is not None and second.relation is not None
        things = [Counter(item.phrase for item in caption.wanted) for caption in (first, second)]
        assert batch["only_relation"][index] == (both and things[0] == things[1])


@pytest.mark.parametrize("name", ["batch_size", "num_groups", "num_val_groups"])
def test_wrong_numbers_are_refused(name):
    with pytest.raises(ValueError, match=f"expected {name} of at least 1, got 0; give"):
        CaptionGroupsDataModule(**{name: 0})

"""What a run leaves for the scorers of benchmarks, read as their published scripts read it."""

import json
from pathlib import Path

import numpy as np
import published_scorers as scorers
import pytest
from lightning.pytorch import Trainer
from PIL import Image
from tiny_runs import TinyTask

from fklit.callbacks import SampleWriter
from fklit.data import PromptDataModule
from fklit.evaluation import Benchmark, write_evaluation

GENEVAL = [
    {"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "two clocks"},
    {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], "prompt": 'a "red" cup, ü'},
]
GENEVAL2 = [
    {"prompt": "two toys", "atom_count": 2, "vqa_list": [["How many?", "two"]], "skills": ["count"]},
    {"prompt": "a pig, 猪", "atom_count": 1, "vqa_list": [["Any pigs?", "Yes"]], "skills": ["object"]},
]
LINES = [
    {"id": "a_0", "prompt": "a cat", "tags": {"category": "Photo"}, "image_path": ""},
    {"id": "a_1", "prompt": "a cat", "tags": ["cat (animal)"], "image_path": ""},
]
IMAGE_REWARD = [{"id": "005695-0057", "prompt": "a cat"}, {"id": "005784-0093", "prompt": "a dog"}]


def predict(out, path, **writer):
    """A run of a task without networks on a file of prompts; K = 2."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=out.parent,
        callbacks=[SampleWriter(str(out), **writer)],
    )
    task = TinyTask()
    trainer.predict(task, PromptDataModule(str(path)), return_predictions=False)
    return task


def write(folder, name, rows):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows))
    return path


def chosen(out, index):
    """The file of the chosen sample."""
    record = json.loads((out / f"{index:05d}" / "record.json").read_text())
    return out / f"{index:05d}" / "samples" / f"{record['best']:04d}.png"


def same_pixels(one, other):
    with Image.open(one) as first, Image.open(other) as second:
        return np.array_equal(np.array(first), np.array(second))


def close_pixels(jpeg, png):
    """JPEG of quality 75 of random noise is not exact, but it is of no other sample."""
    with Image.open(jpeg) as first, Image.open(png) as second:
        assert first.format == "JPEG" and first.size == second.size
        return np.abs(np.array(first, float) - np.array(second, float)).mean()


def test_geneval(tmp_path):
    out = tmp_path / "run"
    predict(out, write(tmp_path, "p.jsonl", GENEVAL), evaluation="auto")
    found = scorers.geneval(out / "evaluation" / "geneval")
    assert [row[1:] for row in found] == [(row["tag"], row["prompt"]) for row in GENEVAL]
    assert all(same_pixels(row[0], chosen(out, index)) for index, row in enumerate(found))
    # The folder of the run itself is of the same layout, with all samples.
    assert len(scorers.geneval(out)) == 4
    write_evaluation(out, "geneval", samples="all")
    assert len(scorers.geneval(out / "evaluation" / "geneval")) == 4


def test_geneval2(tmp_path):
    out = tmp_path / "run"
    predict(out, write(tmp_path, "p.jsonl", GENEVAL2), evaluation="geneval2")
    folder = out / "evaluation" / "geneval2"
    found = scorers.geneval2(folder / "geneval2_data.jsonl", folder / "images.json")
    assert scorers.geneval2(tmp_path / "p.jsonl", folder / "images.json") == found  # the whole benchmark was sampled
    assert [Path(row[0]) for row in found] == [chosen(out, 0), chosen(out, 1)]
    assert all(Path(row[0]).is_absolute() for row in found)
    assert [row[1:] for row in found] == [(r["vqa_list"], r["atom_count"], r["skills"]) for r in GENEVAL2]


@pytest.mark.parametrize("samples", ["chosen", "all"])
def test_evalscope(tmp_path, samples):
    out = tmp_path / "run"
    predict(out, write(tmp_path, "p.jsonl", LINES), evaluation="auto", evaluation_samples=samples)
    subset, found = scorers.evalscope(out / "evaluation" / "evalscope" / "run.jsonl")
    assert subset == "run" and all(row[1] == "a cat" and Path(row[3]).is_file() for row in found)
    if samples == "chosen":
        assert [row[0] for row in found] == ["a_0", "a_1"]
        assert [Path(row[3]) for row in found] == [chosen(out, 0), chosen(out, 1)]
    else:
        assert [row[0] for row in found] == ["a_0_0", "a_0_1", "a_1_0", "a_1_1"]
    assert [row[2] for row in found] == (["Photo", ""] if samples == "chosen" else ["Photo", "Photo", "", ""])
    first = json.loads((out / "evaluation" / "evalscope" / "run.jsonl").read_text().splitlines()[0])
    assert first["tags"] == {"category": "Photo"}  # where its own hpdv2 looks for the category


def test_hps(tmp_path):
    out, prompts = tmp_path / "sd15", {"anime": ["a cat", "a dog"], "photo": ["a bus"]}
    for style, rows in prompts.items():
        write(tmp_path, f"benchmark/{style}.json", rows)
    predict(out, tmp_path / "benchmark", evaluation="hps")
    model, found = scorers.hps(f"{out}/evaluation/hps/sd15", tmp_path / "benchmark")
    assert model == "sd15" and {style: [row[1] for row in rows] for style, rows in found.items()} == prompts
    for index, (name, _) in enumerate([*found["anime"], *found["photo"]]):
        distances = [close_pixels(name, chosen(out, other)) for other in range(3)]
        assert int(np.argmin(distances)) == index


def test_drawbench(tmp_path):
    out, path = tmp_path / "run", tmp_path / "db.csv"
    path.write_text('Prompts,Category\n"A red, red car.",Colors\nTwo cars.,Counting\nTwo cars.,Conflicting\n')
    predict(out, path, evaluation=["auto", "evalscope"])
    folder = out / "evaluation" / "drawbench"
    ((model, found),) = scorers.hps_drawbench(folder, folder / "images").items()
    assert model == "run" and [row[1] for row in found] == ["A red, red car.", "Two cars.", "Two cars."]
    _, lines = scorers.evalscope(out / "evaluation" / "evalscope" / "run.jsonl")
    assert [row[0] for row in lines] == [0, 1, 2] and [row[2] for row in lines] == ["Colors", "Counting", "Conflicting"]


def test_parti(tmp_path):
    out, path = tmp_path / "run", tmp_path / "p.tsv"
    path.write_text('Prompt\tCategory\tChallenge\tNote\n"Fall" in leaves\tWorld\tBasic\t\na cat\tAnimals\tComplex\tn\n')
    predict(out, path, evaluation="auto")
    subset, found = scorers.evalscope(out / "evaluation" / "parti" / "run.jsonl")
    assert subset == "run" and [row[1:3] for row in found] == [('"Fall" in leaves', "World"), ("a cat", "Animals")]


@pytest.mark.parametrize(("samples", "each"), [("chosen", 1), ("all", 2)])
def test_image_reward(tmp_path, samples, each):
    out = tmp_path / "run"
    predict(out, write(tmp_path, "p.json", IMAGE_REWARD), evaluation="auto", evaluation_samples=samples)
    folder = out / "evaluation" / "image_reward"
    found = scorers.image_reward(folder / "prompts.json", folder / "generations", "run")
    assert found == scorers.image_reward(tmp_path / "p.json", folder / "generations", "run")
    assert [row[0] for row in found] == ["a cat", "a dog"] and all(len(row[1]) == each for row in found)
    for index, (_, names) in enumerate(found):
        wanted = [chosen(out, index)] if each == 1 else sorted((out / f"{index:05d}" / "samples").iterdir())
        assert all(same_pixels(name, png) for name, png in zip(names, wanted, strict=True))


def test_a_benchmark_of_the_users_own(tmp_path):
    class Mine(Benchmark):
        name = "mine"

        def recognizes(self, path, row):
            return False

        def parse(self, row, where, *, path, place):
            return row

        def write(self, samples, folder, *, run):
            (folder / f"{run}.txt").write_text("\n".join(f"{s.index} {s.prompt} {s.images[0].name}" for s in samples))

    out = tmp_path / "run"
    predict(out, write(tmp_path, "p.jsonl", IMAGE_REWARD), evaluation=Mine())
    lines = (out / "evaluation" / "mine" / "run.txt").read_text().splitlines()
    assert lines == [f"{index} {row['prompt']} {chosen(out, index).name}" for index, row in enumerate(IMAGE_REWARD)]


def test_a_run_that_goes_on_replaces_what_was_left(tmp_path):
    """A stale or half-written folder of before is gone: ImageReward's scorer counts files."""
    out, path = tmp_path / "run", write(tmp_path, "p.json", IMAGE_REWARD)
    predict(out, path)
    assert not (out / "evaluation").exists()
    stale = out / "evaluation" / "image_reward" / "generations" / "run"
    for folder in (stale, out / "evaluation" / ".image_reward.part"):
        folder.mkdir(parents=True)
        (folder / "old_0.png").write_bytes(b"x")
    task = predict(out, path, evaluation="auto")
    assert task.done == {0, 1}  # nothing was sampled again
    assert sorted(file.name for file in stale.iterdir()) == ["005695-0057_0.png", "005784-0093_0.png"]
    assert [folder.name for folder in (out / "evaluation").iterdir()] == ["image_reward"]


def test_metadata_is_that_of_the_file_now(tmp_path):
    """A run begun before the format was named has no tags on disk; the scorer gets them all the same."""
    out, path = tmp_path / "run", tmp_path / "photo.json"
    write(tmp_path, "photo.json", ["a cat"])
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path, callbacks=[SampleWriter(str(out))],
    )  # fmt: skip
    trainer.predict(TinyTask(), PromptDataModule(str(path), format="plain"), return_predictions=False)
    with pytest.raises(ValueError, match=r"evaluation 'hps' expected 'tag' in the metadata of prompt 0, got 'prompt'"):
        write_evaluation(out, "hps")
    predict(out, path, evaluation="auto")
    assert (out / "evaluation" / "hps" / "run" / "photo" / "00000.jpg").is_file()


@pytest.mark.parametrize(
    ("writer", "name", "rows", "message"),
    [
        ({"evaluation": "hps"}, "p.jsonl", [{"prompt": "a"}], r"'hps' expected 'tag' in the metadata of prompt 0"),
        ({"evaluation": "geneval"}, "p.jsonl", [{"prompt": "a"}], r"read the prompts with PromptDataModule\(path, for"),
        (
            {"evaluation": "image_reward"},
            "p.jsonl",
            [{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}],
            r"expected another 'id' for each prompt, got 'x' for prompts 0 and 1; its scorer",
        ),
        ({"evaluation": "auto", "evaluation_samples": "all"}, "photo.json", ["a"], "'chosen' with hps, whose scorer"),
    ],
)
def test_prompts_without_what_a_scorer_needs_are_refused_before_sampling(tmp_path, writer, name, rows, message):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=message) as caught:
        predict(out, write(tmp_path, name, rows), **writer)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("run/0*"))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="benchmark='hpsv2' is not known; use one of 'geneval', "):
        SampleWriter(evaluation="hpsv2")
    with pytest.raises(ValueError, match="'chosen' with geneval2, whose scorer takes one image a prompt, got 'all'"):
        SampleWriter(evaluation=["evalscope", "geneval2"], evaluation_samples="all")


def test_plain_prompts_leave_nothing_for_auto(tmp_path):
    out = tmp_path / "run"
    predict(out, write(tmp_path, "p.jsonl", [{"prompt": "a"}]), evaluation="auto")
    assert not (out / "evaluation").exists()

"""Prompts in the published formats: recognized, checked line by line, with one key for what each calls a kind."""

import json

import pytest

from fklit.data import PromptDataModule
from fklit.data.prompts import read_prompts
from fklit.evaluation import Benchmark, get_benchmark
from fklit.evaluation.names import BENCHMARKS
from fklit.rewards import SoftTIFA, VQAScore
from fklit.rewards.base import RewardError

GENEVAL = {"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "two clocks"}
GENEVAL |= {"exclude": [{"class": "clock", "count": 3}]}
POSITION = {"tag": "position", "include": [{"class": "fork"}, {"class": "cup", "position": ["above", 0]}]}
POSITION |= {"prompt": "a cup above a fork"}
GENEVAL2 = {
    "prompt": "two metal toys",
    "atom_count": 3,
    "vqa_list": [["How many toys are in the image?", "two"], ["Are the toys metal?", "Yes"]],
    "skills": ["count", "attribute"],
}
LINES = {"id": "x_1", "prompt": "a cat", "tags": {"category": "Animation"}, "image_path": ""}
PARTI = 'Prompt\tCategory\tChallenge\tNote\n"Fall" in leaves\tWorld\tBasic\t\na cat\tAnimals\tComplex\tn\n'


def write(folder, name, content):
    path = folder / name
    if isinstance(content, list):
        lines = name.endswith("l")
        content = "\n".join(map(json.dumps, content)) + "\n" if lines else json.dumps(content, indent=4)
    path.write_text(content, encoding="utf-8")
    return path


FILES = [
    ("geneval", "evaluation_metadata.jsonl", [GENEVAL, POSITION], ["counting", "position"]),
    ("geneval2", "geneval2_data.jsonl", [GENEVAL2, {**GENEVAL2, "prompt": "b", "atom_count": 10}],
     ["atoms_3", "atoms_10"]),
    ("evalscope", "eval.jsonl", [LINES, {**LINES, "id": 2, "category": "Photo"}], ["Animation", "Photo"]),
    ("hps", "concept-art.json", ["a cat", "a dog"], ["concept-art", "concept-art"]),
    ("image_reward", "benchmark-prompts.json", [{"id": "005695-0057", "prompt": "a cat"}], [None]),
    ("drawbench", "db.csv", 'Prompts,Category\n"A red, red car.",Colors\nTwo cars.,Gary \n', ["Colors", "Gary"]),
    ("parti", "PartiPrompts.tsv", PARTI, ["World", "Animals"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "tags"), FILES, ids=[row[0] for row in FILES])
def test_the_published_formats_are_recognized_and_get_tags(tmp_path, name, file, content, tags):
    path = write(tmp_path, file, content)
    found = PromptDataModule(str(path))
    assert found.benchmark is not None and found.benchmark.name == name
    rows = [item["metadata"] for item in found.items]
    assert [row.get("tag") for row in rows] == tags
    assert rows == read_prompts(path, format=name) == read_prompts(path, format=get_benchmark(name))
    assert all(isinstance(row["prompt"], str) for row in rows)
    if isinstance(content, list) and isinstance(content[0], dict):  # nothing of the entry is lost
        assert all(given.items() <= row.items() for given, row in zip(content, rows, strict=True))


def test_what_stands_in_the_file_comes_through(tmp_path):
    (row, _) = read_prompts(write(tmp_path, "p.tsv", PARTI))
    assert row == {"Prompt": '"Fall" in leaves', "Category": "World", "Challenge": "Basic", "Note": "",
                   "prompt": '"Fall" in leaves', "tag": "World"}  # fmt: skip
    assert read_prompts(write(tmp_path, "photo.json", ["x", "y"]))[1] == {
        "prompt": "y",
        "tag": "photo",
        "style_index": 1,
    }


def test_a_folder_of_hps_is_read_in_order_of_styles(tmp_path):
    for name in ("photo", "anime", "other"):
        write(tmp_path, f"{name}.json", [f"{name} 0", f"{name} 1"])
    rows = [item["metadata"] for item in PromptDataModule(str(tmp_path)).items]
    assert [(row["prompt"], row["tag"], row["style_index"]) for row in rows] == [
        ("anime 0", "anime", 0), ("anime 1", "anime", 1), ("photo 0", "photo", 0), ("photo 1", "photo", 1),
    ]  # fmt: skip


def test_plain_files_are_as_before(tmp_path):
    """What is of no benchmark is read as it stands, and so is everything with `plain` or a column."""
    for file, content in [
        ("p.jsonl", [{"prompt": "a", "id": 1, "category": "x"}, {"prompt": "a", "id": 1}]),
        ("p.json", [{"id": 1, "prompt": "a"}, {"prompt": "b"}]),
        ("other.json", ["a", "b"]),
        ("p.csv", "prompt,Category\na,x\nb,y\n"),
    ]:
        path = write(tmp_path, file, content)
        assert PromptDataModule(str(path)).benchmark is None
        assert read_prompts(path) == read_prompts(path, format="plain")
        assert not any("tag" in row for row in read_prompts(path))
    path = write(tmp_path, "p.tsv", PARTI)
    assert PromptDataModule(str(path), column="Prompt").benchmark is None
    assert "tag" not in read_prompts(path, column="Prompt")[0]
    path = write(tmp_path, "p.jsonl", [{**GENEVAL, "include": "nonsense"}])
    assert read_prompts(path, format="plain")[0]["include"] == "nonsense"


BROKEN = [
    ("geneval", "p.jsonl", [GENEVAL, {**GENEVAL, "tag": ""}], r"line 2: expected a text under 'tag', as GenEval"),
    ("geneval", "p.jsonl", [GENEVAL, {"prompt": "x", "tag": "a"}], r"line 2: expected a list of objects under 'inc"),
    ("geneval", "p.jsonl", [{**GENEVAL, "exclude": {}}], r"line 1: expected a list of objects under 'exclude'"),
    ("geneval", "p.jsonl", [{**GENEVAL, "include": [{"class": "x", "count": 0}]}], r"line 1: expected objects with"),
    ("geneval", "p.jsonl", [{**GENEVAL, "include": [{"class": "x", "count": True}]}], r"line 1: expected objects with"),
    ("geneval", "p.jsonl", [{**POSITION, "include": [{"class": "x", "position": ["above", 0]}]}],
     r"line 1: expected 'position' as \[relation, number of an earlier object\], as GenEval has it, got \['above'"),
    ("geneval2", "p.jsonl", [{**GENEVAL2, "vqa_list": [["q"]]}], r"line 1: expected \[\[question, answer\], ...\] un"),
    ("geneval2", "p.jsonl", [{**GENEVAL2, "skills": ["count"]}], r"line 1: expected 2 texts under 'skills', one a"),
    ("geneval2", "p.jsonl", [{**GENEVAL2, "atom_count": "3"}], r"line 1: expected a number of at least 1 under 'atom"),
    ("geneval2", "p.jsonl", [GENEVAL2, GENEVAL2],
     r"line 2: expected another 'prompt' for each prompt, as geneval2 finds images by it, got .* as in .*, line 1; "),
    ("evalscope", "p.jsonl", [LINES, {**LINES, "id": 1.5}], r"line 2: expected a text or whole number under 'id'"),
    ("evalscope", "p.jsonl", [LINES, LINES], r"line 2: expected another 'id' .* got 'x_1'"),
    ("evalscope", "p.jsonl", [{**LINES, "category": 3}], r"line 1: expected a text under 'category'"),
    ("evalscope", "p.jsonl", [{**LINES, "image_path": None}], r"line 1: expected a path under 'image_path'"),
    ("image_reward", "p.json", [{"id": "000001-0001", "prompt": "a"}, {"id": "../x", "prompt": "b"}],
     r"entry 1 \(from 0\): expected letters, digits, .* which names files, as ImageReward's benchmark has it"),
    ("image_reward", "p.json", [{"id": "000001-0001", "prompt": "a"}, {"prompt": "b"}],
     r"entry 1 \(from 0\): expected a text under 'id', as ImageReward's benchmark has it, got None"),
    ("image_reward", "p.json", [{"id": "000001-0001", "prompt": "a"}] * 2, r"entry 1 .*: expected another 'id'"),
    ("drawbench", "p.csv", "Prompts,Category\na,Colors\n\nb, \n", r"line 4: expected a text under 'Category', as Draw"),
    ("drawbench", "p.csv", "Prompts,Category\n,Colors\n", r"line 2: expected a text under 'Prompts', got ''"),
    ("parti", "p.tsv", PARTI + "b\tArts\t\t\n", r"line 4: expected a text under 'Challenge', as PartiPrompts"),
    ("hps", "photo.json", ["a", 3], r"entry 1 \(from 0\): expected a JSON object, got a int"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "message"), BROKEN)
def test_a_malformed_entry_is_refused_with_file_and_line(tmp_path, name, file, content, message):
    path = write(tmp_path, file, content)
    for format in ("auto", name):
        with pytest.raises(ValueError, match=rf"{file}, {message}") as caught:
            PromptDataModule(str(path), format=format).setup("predict")
        assert "\n" not in str(caught.value)


def test_an_ambiguous_file_is_refused_and_can_be_named(tmp_path):
    path = write(tmp_path, "p.jsonl", [{**GENEVAL, **GENEVAL2}])
    with pytest.raises(ValueError, match=r"got a first entry that may be of geneval and of geneval2; set `format` to"):
        read_prompts(path)
    assert read_prompts(path, format="geneval")[0]["tag"] == "counting"
    assert read_prompts(path, format="geneval2")[0]["tag"] == "atoms_3"


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("p.csv", {"format": "parti"}, r"expected a file of parti in \.tsv, got .*p\.csv; give such a file"),
        ("p.csv", {"format": "drawbench", "column": "x"}, r"expected column with format: plain, got column='x'"),
        ("p.csv", {"format": "genevel"}, r"benchmark='genevel' is not known; use one of 'geneval', 'geneval2'"),
        ("", {"format": "hps"}, r"expected files of hps in the folder .*, got none; give the path of one"),
        ("", {}, r"expected a file of prompts in \.txt"),
        ("p.csv", {"format": "drawbench"}, r"line 1: expected a column 'Prompts', got \['a', 'b'\]"),
    ],
)
def test_wrong_calls(tmp_path, file, arguments, message):
    write(tmp_path, "p.csv", "a,b\n1,2\n")
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / file, **arguments)


def test_a_benchmark_needs_its_file():
    with pytest.raises(ValueError, match="expected path with format='hps', got prompts; give the benchmark's file"):
        PromptDataModule(prompts=["a"], format="hps")


def test_the_names_are_those_of_the_type():
    from typing import get_args

    from fklit.evaluation import BenchmarkName

    assert tuple(benchmark.name for benchmark in BENCHMARKS) == get_args(BenchmarkName)


class MyBenchmark(Benchmark):
    """One of the user's own."""

    name = "mine"
    suffixes = (".txt",)

    def recognizes(self, path, row):
        return False

    def parse(self, row, where, *, path, place):
        return {**row, "tag": row["prompt"].split()[0]}

    def write(self, samples, folder, *, run):
        (folder / "list.txt").write_text("\n".join(f"{s.prompt} {len(s.images)}" for s in samples))


def test_a_benchmark_of_the_users_own(tmp_path):
    path = write(tmp_path, "p.txt", "red apple\nblue book\n")
    assert [row["tag"] for row in read_prompts(path, format=MyBenchmark())] == ["red", "blue"]


def test_the_questions_are_those_that_soft_tifa_asks(tmp_path):
    """The reward of GenEval 2 finds its questions in what the prompts' file gives."""
    (row,) = read_prompts(write(tmp_path, "p.jsonl", [GENEVAL2]))
    reward = SoftTIFA(VQAScore("nowhere"))
    assert reward._questions(row["prompt"], row) == [tuple(pair) for pair in GENEVAL2["vqa_list"]]
    with pytest.raises(RewardError, match="questions under 'vqa_list'"):
        reward._questions("a", {"prompt": "a"})

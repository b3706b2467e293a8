"""The prompt DataModule: formats, indices, metadata, and an actionable error for each kind of bad input."""

import json

import pytest
from lightning.pytorch import Trainer

from fklit.data.prompts import PromptDataModule, read_prompts

GENEVAL = [
    {
        "tag": "two_object",
        "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1}],
        "prompt": "cat and dog",
    },
    {
        "tag": "counting",
        "include": [{"class": "cat", "count": 2}],
        "exclude": [{"class": "cat", "count": 3}],
        "prompt": "2 cats",
    },
]


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


def test_text_skips_empty_lines_and_keeps_order(tmp_path):
    path = write(tmp_path, "p.txt", "\ufeffa green heart\r\n\r\n  two cats \nü, 日本\n")
    assert [row["prompt"] for row in read_prompts(path)] == ["a green heart", "two cats", "ü, 日本"]


def test_csv_keeps_other_columns_and_quoted_commas_and_newlines(tmp_path):
    path = write(tmp_path, "p.csv", 'id,prompt\n7,"a cat, a dog"\n8,"two\nlines"\n')
    assert read_prompts(path) == [{"id": "7", "prompt": "a cat, a dog"}, {"id": "8", "prompt": "two\nlines"}]


def test_tsv_and_another_column(tmp_path):
    path = write(tmp_path, "p.tsv", "caption\tn\na, b\t1\n")
    assert read_prompts(path, column="caption") == [{"caption": "a, b", "n": "1", "prompt": "a, b"}]


def test_a_tsv_has_no_quoting(tmp_path):
    """Cells of PartiPrompts start with a quotation mark, which belongs to the prompt and need not be closed."""
    text = 'Prompt\tCategory\tNote\n"Fall" spelled in leaves\tWorld\t\n"a cat\tAnimals\tn\nthe word "so"\tArts\t"\n'
    rows = read_prompts(write(tmp_path, "p.tsv", text), column="Prompt")
    assert [row["prompt"] for row in rows] == ['"Fall" spelled in leaves', '"a cat', 'the word "so"']
    assert rows[2] == {"Prompt": 'the word "so"', "Category": "Arts", "Note": '"', "prompt": 'the word "so"'}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '["a cat", "a dog"]'),
        ("p.json", '[\n{"id": 1, "prompt": "a cat"},\n{"prompt": "a dog", "tags": ["x"]}\n]'),
        ("p.ndjson", '{"prompt": "a cat"}\n\n{"prompt": "a dog"}\n'),
        ("p.jsonl", '"a cat"\n{"prompt": "a dog"}\n'),
        ("P.JSON", '\ufeff["a cat", "a dog"]'),
    ],
)
def test_json_arrays_and_lines(tmp_path, name, text):
    assert [row["prompt"] for row in read_prompts(write(tmp_path, name, text))] == ["a cat", "a dog"]


def test_keys_of_a_json_array_are_kept(tmp_path):
    path = write(tmp_path, "p.json", '[{"id": 1, "caption": "a cat", "tags": ["x"]}]')
    assert read_prompts(path, column="caption") == [{"id": 1, "caption": "a cat", "tags": ["x"], "prompt": "a cat"}]


def test_geneval_metadata_is_preserved(tmp_path):
    path = write(tmp_path, "evaluation_metadata.jsonl", "\n".join(map(json.dumps, GENEVAL)) + "\n")
    data = PromptDataModule(str(path), batch_size=2)
    (batch,) = data.predict_dataloader()
    assert batch == {"prompts": ["cat and dog", "2 cats"], "indices": [0, 1], "metadata": GENEVAL}


def test_list_of_texts_and_of_dictionaries():
    assert PromptDataModule(prompts=["a"]).batch_size == 1
    assert [item["prompt"] for item in PromptDataModule(prompts=["a", "b"]).items] == ["a", "b"]
    (item,) = PromptDataModule(prompts=[{"prompt": "a", "id": 3}]).items
    assert item == {"prompt": "a", "index": 0, "metadata": {"prompt": "a", "id": 3}}


def test_indices_do_not_depend_on_batch_size_or_limit():
    prompts = [f"prompt {n}" for n in range(7)]
    for size in (1, 3, 7):
        batches = list(PromptDataModule(prompts=prompts, batch_size=size).test_dataloader())
        assert [i for batch in batches for i in batch["indices"]] == list(range(7))
        assert [p for batch in batches for p in batch["prompts"]] == prompts
    assert [item["index"] for item in PromptDataModule(prompts=prompts, limit=2).items] == [0, 1]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_every_prompt_is_on_exactly_one_rank(world):
    seen = []
    for rank in range(world):
        data = PromptDataModule(prompts=[str(n) for n in range(7)], batch_size=2)
        data.trainer = type("TwoRanks", (), {"world_size": world, "global_rank": rank})()
        loader = data.predict_dataloader()
        indices = [i for batch in loader for i in batch["indices"]]
        assert len(loader.sampler) == len(indices)
        seen += indices
    assert sorted(seen) == list(range(7))


def test_more_processes_than_prompts_leave_some_idle():
    batches = {}
    for rank in range(3):
        data = PromptDataModule(prompts=["a", "b"])
        data.trainer = type("ThreeRanks", (), {"world_size": 3, "global_rank": rank})()
        batches[rank] = [batch["prompts"] for batch in data.test_dataloader()]
    assert batches == {0: [["a"]], 1: [["b"]], 2: [[]]}


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("p.txt", "\n \n", ValueError, r"expected at least one prompt, got none in .*p\.txt; add one\."),
        ("p.csv", "", ValueError, r"got none in .*p\.csv"),
        ("p.csv", "prompt\n", ValueError, r"got none in .*p\.csv"),
        ("p.jsonl", "", ValueError, r"got none in .*p\.jsonl"),
        (
            "p.csv",
            "text,id\na,1\n",
            ValueError,
            r"p\.csv, line 1: expected a column 'prompt', got \['text', 'id'\]; name",
        ),
        ("p.csv", "prompt,id\na cat, a dog,1\n", ValueError, r"p\.csv, line 2: expected 2 cells as in the header"),
        ("p.csv", "id,prompt\n1,a\n2\n", ValueError, r"p\.csv, line 3: expected 2 cells"),
        (
            "p.csv",
            "id,prompt\n1,a\n2,\n",
            ValueError,
            r"p\.csv, line 3: expected a text under 'prompt', got ''; write one",
        ),
        ("p.csv", 'prompt\n"a\n', ValueError, r"p\.csv, line \d: expected a table, got .* check the quotes"),
        (
            "p.jsonl",
            '{"prompt": "a"}\n{"prompt": \n',
            ValueError,
            r"p\.jsonl, line 2: expected JSON, got .*; write one object a line",
        ),
        (
            "p.jsonl",
            '{"prompt": "a"}\n\n["b"]\n',
            ValueError,
            r"p\.jsonl, line 3: expected a JSON object, got a list; write",
        ),
        ("p.jsonl", '{"text": "a"}\n', ValueError, r"p\.jsonl, line 1: expected a key 'prompt', got \['text'\]; write"),
        ("p.jsonl", '{"prompt": 3}\n', ValueError, r"p\.jsonl, line 1: expected a text under 'prompt', got 3; write"),
        ("p.txt", b"a\n\xff\xfe\n", ValueError, r"expected text in UTF-8, got .*p\.txt .*; save it as UTF-8"),
        (
            "p.yaml",
            "a",
            ValueError,
            r"expected a file of prompts in \.txt, \.csv, \.tsv, \.json, \.jsonl, \.ndjson, got .*p\.yaml; give one",
        ),
        ("p.csv", 'id,prompt\n1,"a\nb"\n2\n', ValueError, r"p\.csv, line 4: expected 2 cells as in the header, got 1"),
        ("p.csv", 'id,prompt\n1,a\n\n2,"b\nc" d\n', ValueError, r"p\.csv, line 4: expected a table, got .* quotes"),
        (
            "p.csv",
            'prompt\n"two\nlines"\n"  "\n',
            ValueError,
            r"p\.csv, line 4: expected a text under 'prompt', got '  '",
        ),
        ("p.tsv", "prompt\tn\na\tb\tc\n", ValueError, r"p\.tsv, line 2: expected 2 cells .*, got 3; remove tabs"),
        ("p.csv", "Prompt,id\na,1\n", ValueError, r"expected a column 'prompt', .* or set `column` to 'Prompt'\."),
        ("p.tsv", "id\tcaption\n1\ta\n", ValueError, r"expected a column 'prompt', .* or set `column` to 'caption'\."),
        ("p.csv", "a,b\n1,2\n", ValueError, r"or set `column` to the one that holds the prompts\."),
        ("p.jsonl", '{"TEXT": "a"}\n', ValueError, r"line 1: expected a key 'prompt', .* or set `column` to 'TEXT'\."),
        ("p.jsonl", '{"text": 3}\n', ValueError, r"or set `column` to the one that holds the prompts\."),
        ("p.ndjson", '{"prompt": ""}\n', ValueError, r"line 1: expected a text under 'prompt', got ''; write one"),
        ("p.ndjson", '"a"\n" "\n', ValueError, r"line 2: expected a text under 'prompt', got ' '; write one"),
        ("p.jsonl", '[\n  {"prompt": "a"}\n]\n', ValueError, r"line 1: expected JSON, .* is a \.json file"),
        (
            "p.json",
            '["a", ""]',
            ValueError,
            r"p\.json, entry 1 \(from 0\): expected a text under 'prompt', got ''; write",
        ),
        ("p.json", "[]", ValueError, r"expected at least one prompt, got none in .*p\.json"),
        (
            "p.json",
            '{"prompts": ["a"]}',
            ValueError,
            r"expected a JSON array of prompts, got a dict with keys \['prompts'\]",
        ),
        ("p.json", '["a",\n 3]', ValueError, r"p\.json, entry 1 \(from 0\): expected a JSON object, got a int"),
        (
            "p.json",
            '{"prompt": "a"}\n{"prompt": "b"}\n',
            ValueError,
            r"p\.json, line 2: expected JSON, .* named \.jsonl",
        ),
    ],
)
def test_bad_files_are_refused_with_file_and_line(tmp_path, name, text, error, message):
    path = write(tmp_path, name, text)
    with pytest.raises(error, match=message) as caught:
        PromptDataModule(str(path)).setup("predict")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got .*nowhere\.txt, which does not exist .*; give the path of a"):
        PromptDataModule(str(tmp_path / "nowhere.txt")).setup("predict")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected either path or prompts, got .*; give the path of a file or a list"),
        (
            {"path": "p.txt", "prompts": ["a"]},
            "expected either path or prompts, got .*; give the path of a file or a list",
        ),
        ({"prompts": []}, r"expected a list of at least one prompt, got \[\]"),
        ({"prompts": "a cat"}, "expected a list of at least one prompt, got 'a cat'"),
        ({"prompts": ["a", 3]}, r"expected prompts\[1\] as a text, .* got 3; change it"),
        ({"prompts": [{"text": "a"}]}, r"expected prompts\[0\] as .* under 'prompt', got \{'text': 'a'\}"),
        ({"prompts": ["a", ""]}, r"expected prompts\[1\] as a text, got ''; write one that is not empty"),
        ({"prompts": [{"prompt": " "}]}, r"expected prompts\[0\] as a text, got \{'prompt': ' '\}; write one"),
        ({"prompts": ["a"], "batch_size": 0}, "expected batch_size of at least 1, got 0; give an integer"),
        ({"prompts": ["a"], "limit": 0}, "expected limit of at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PromptDataModule(**arguments)


def test_training_is_refused(tmp_path):
    from lightning.pytorch.demos import BoringModel

    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1, default_root_dir=tmp_path
    )
    with pytest.raises(ValueError, match="`predict`, `validate` or `test` with PromptDataModule, got `fit`; use"):
        trainer.fit(BoringModel(), datamodule=PromptDataModule(prompts=["a"]))

"""Windows of tokens: where they start, that none crosses documents, and what their characters are."""

import pytest
import torch

from fklit.text import TextDataModule, Windows
from fklit.text.words import build_tokenizer, build_vocabulary

LINES = ["a b c.", "d e;", "f g h i."]
OTHER = ["b b b b b.", "c c."]


@pytest.fixture
def folder(tmp_path):
    vocabulary = build_vocabulary([" ".join(LINES + OTHER)], 4 + 11)
    build_tokenizer(vocabulary).save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n\n" + "\n".join(OTHER) + "\n")
    (tmp_path / "held_out.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path


def texts(folder, windows):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return [tokenizer.decode(windows[i]["tokens"][0]) for i in range(len(windows))]


def test_training_windows_start_at_every_line(folder):
    windows = Windows(folder / "train.txt", folder / "tokenizer", length=5, overlapping=True)
    assert texts(folder, windows) == ["a b c. d", "d e; f g", "f g h i.", "b b b b b"]
    # The space before the next word counts.
    assert windows.characters.tolist() == [len("a b c. d "), len("d e; f g "), len("f g h i. "), len("b b b b b")]


def test_validation_windows_do_not_overlap(folder):
    windows = Windows(folder / "held_out.txt", folder / "tokenizer", length=5, overlapping=False)
    assert texts(folder, windows) == ["a b c. d", "f g h i."]


def test_batches(folder):
    module = TextDataModule(str(folder), 2, length=5, seed=3)
    module.setup("fit")
    batches = list(module.train_dataloader())
    assert [tuple(batch["tokens"].shape) for batch in batches] == [(2, 5), (2, 5)]
    again = TextDataModule(str(folder), 2, length=5, seed=3)
    again.setup("fit")
    assert all(torch.equal(a["tokens"], b["tokens"]) for a, b in zip(batches, again.train_dataloader(), strict=True))
    assert len(list(module.val_dataloader())) == 1


def test_odd_files_are_refused(folder):
    with pytest.raises(FileNotFoundError, match=r"train\.txt.*fetch text"):
        TextDataModule(str(folder / "none")).setup("fit")
    with pytest.raises(ValueError, match="expected a document of at least 50 tokens"):
        TextDataModule(str(folder), 1, length=50).setup("fit")
    with pytest.raises(ValueError, match="expected at least 9 windows, got 4"):
        TextDataModule(str(folder), 9, length=5).setup("fit")
    with pytest.raises(ValueError, match="expected batch_size of at least 1"):
        TextDataModule(str(folder), 0)


def test_byte_level_tokenizers_have_the_same_lines(folder):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=270, show_progress=False))
    (folder / "bytes").mkdir()
    plain.save(str(folder / "bytes" / "tokenizer.json"))
    windows = Windows(folder / "held_out.txt", folder / "bytes", length=4, overlapping=True)
    text = " ".join(LINES)
    starts = [plain.encode(text).char_to_token(text.index(line)) for line in LINES]
    assert windows.starts.tolist() == starts
    assert windows.characters.sum() <= len(text) + 1 + 2 * 4


def test_lines_of_tokens_that_span_nothing_are_no_starts(folder):
    (folder / "odd.txt").write_text("a b c d e\n   \nf g h i\n")
    windows = Windows(folder / "odd.txt", folder / "tokenizer", length=4, overlapping=True)
    assert texts(folder, windows) == ["a b c d", "f g h i"]

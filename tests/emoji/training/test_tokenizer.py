"""The small BPE: one token a known word, any text can be encoded, CLIP's format."""

from transformers import CLIPTokenizer

from fklit.emoji.training.tokenizer import train_clip_tokenizer

TEXTS = ["a red apple left of a cat", "two cats", "an apple and a cat"]


def test_known_words_are_one_token_and_unknown_ones_are_spelt(tmp_path):
    tokenizer = train_clip_tokenizer(TEXTS, max_length=8)
    words = {word for text in TEXTS for word in text.split()}
    assert all(len(tokenizer(word).input_ids) == 3 for word in words)
    assert tokenizer.decode(tokenizer("Zürich, a cat!").input_ids, skip_special_tokens=True).split() == [
        *("zürich", ",", "a", "cat", "!")
    ]
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    padded = again(["a cat", ""], padding="max_length", max_length=again.model_max_length)
    assert again.model_max_length == 8 and [len(row) for row in padded.input_ids] == [8, 8]
    assert padded.input_ids == tokenizer(["a cat", ""], padding="max_length", max_length=8).input_ids
    assert padded.input_ids[1] == [again.bos_token_id] + [again.eos_token_id] * 7


def test_learning_is_reproducible():
    one, other = (train_clip_tokenizer(TEXTS, max_length=8).get_vocab() for _ in range(2))
    assert one == other

"""Tokens of captions: the places are those of the nouns, and every word is known."""

import numpy as np
import pytest

from fklit.emoji.hard_negatives import hard_negative
from fklit.emoji.objects import NOUNS
from fklit.emoji.prompts import PLURALS, ScenePrompt, Wanted
from fklit.emoji.scenes import sample_prompt
from fklit.emoji.training.caption_tokens import caption_tokens
from fklit.emoji.training.word_tokenizer import scene_vocabulary, word_tokenizer

VOCABULARY = scene_vocabulary(start=True)
WORDS = {number: word for word, number in VOCABULARY.items()}
TOKENIZER = word_tokenizer(VOCABULARY)


@pytest.mark.parametrize(
    ("wanted", "relation", "nouns"),
    [
        ([Wanted("cat")], None, ["cat"]),
        ([Wanted("heart", "red")], None, ["heart"]),
        ([Wanted("butterfly", None, 3)], None, ["butterflies"]),
        ([Wanted("strawberry", None, 2)], None, ["strawberries"]),
        ([Wanted("fish", None, 4)], None, ["fish"]),
        ([Wanted("book", "green", 2)], None, ["books"]),
        ([Wanted("cat"), Wanted("apple", "red")], None, ["cat", "apple"]),
        ([Wanted("heart", "red"), Wanted("heart", "blue")], "left of", ["heart", "heart"]),
        ([Wanted("fox", None, 2), Wanted("fox")], "above", ["foxes", "fox"]),
        ([Wanted("sun"), Wanted("sunflower")], "right of", ["sun", "sunflower"]),
    ],
)
def test_places_are_those_of_the_nouns(wanted, relation, nouns):
    prompt = ScenePrompt("position" if relation else "single_object", tuple(wanted), relation)
    tokens, places = caption_tokens(TOKENIZER, [prompt], 16)
    assert tokens.shape == (1, 16) and places.shape == (1, 2)
    found = [WORDS[int(tokens[0, place])] for place in places[0] if place]
    assert found == nouns
    if len(nouns) == 2:
        assert places[0, 0] < places[0, 1]  # two things of one noun have two places
    else:
        assert places[0, 1] == 0
    words = prompt.text.split()
    end = len(words) + 1
    assert [WORDS[int(token)] for token in tokens[0, : end + 1]] == ["<start>", *words, "<end>"]
    assert (tokens[0, end + 1 :] == VOCABULARY["<pad>"]).all()


def test_no_training_caption_has_an_unknown_word_and_each_place_is_a_noun():
    rng = np.random.default_rng(0)
    prompts = [sample_prompt(rng) for _ in range(300)]
    prompts += [hard_negative(prompt, rng) for prompt in prompts]
    tokens, places = caption_tokens(TOKENIZER, prompts, 10)  # no caption takes more
    assert not (tokens == VOCABULARY["<unknown>"]).any()
    assert (tokens == VOCABULARY["<end>"]).sum() == len(prompts)
    names = {*NOUNS, *(PLURALS.get(noun, f"{noun}s") for noun in NOUNS)}
    for prompt, row, pair in zip(prompts, tokens.tolist(), places.tolist(), strict=True):
        assert [place > 0 for place in pair] == [True, len(prompt.wanted) == 2]
        assert all(WORDS[row[place]] in names for place in pair if place)


def test_a_caption_that_would_be_cut_is_refused():
    prompt = ScenePrompt("position", (Wanted("heart", "red"), Wanted("book", "blue")), "left of")
    with pytest.raises(ValueError, match=r"expected max_length of at least 10, which 'a red heart left of .*, got 9;"):
        caption_tokens(TOKENIZER, [ScenePrompt("single_object", (Wanted("cat"),)), prompt], 9)

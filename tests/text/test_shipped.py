"""The text model that ships: it loads by name, writes on from a prompt, and steers."""

import pytest
import torch

import fklit
from fklit.text import MaskedTextModel, MaskedTextSource, TextSampling, load_folder

NAME = "fklit:text_diffusion"


@pytest.fixture(scope="module")
def model():
    return MaskedTextModel.from_folder(NAME, sampling=TextSampling(length=16, num_steps=8, num_draws=1))


def test_texts_begin_with_their_prompt_and_hold_known_words_only(model):
    result = fklit.steer(
        model, ["the king said", ""], reward=lambda texts: [float(len(text)) for text in texts], reward_scale=0.1,
        num_particles=2,
    )  # fmt: skip
    assert all(text.startswith("the king said") for text in result.items[0])
    special = torch.tensor(model.tokenizer.all_special_ids)
    assert result.samples.shape == (2, 2, 16) and not torch.isin(result.samples, special).any()


def test_better_than_chance_by_far(model):
    tokens = model.encode(["the king said to the people, I will give you"], 14)
    probabilities = model.denoiser(tokens, tokens == model.mask).softmax(-1)
    top = probabilities[0].topk(20).indices.tolist()
    assert {"the", "your"} & set(model.tokenizer.convert_ids_to_tokens(top))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("the <mask> king", "expected a prompt without special tokens, got '<mask>' in 'the <mask> king'"),
        ("the <pad> king", "expected a prompt without special tokens, got '<pad>'"),
        ("Zebra spaceship is", "expected words that the tokenizer knows, got 'Zebra', 'spaceship' in the prompt"),
        ("the " * 16, "expected a prompt of fewer than 16 tokens, got 16 of"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(model, prompt, message):
    with pytest.raises(ValueError, match=message):
        fklit.steer(model, prompt, reward=lambda texts: [0.0] * len(texts), reward_scale=1.0)


def test_its_name_works_wherever_a_folder_does():
    network, tokenizer = load_folder(NAME)
    assert len(tokenizer) == network.settings.vocab_size
    source = MaskedTextSource(NAME)
    assert source.settings()["content"] and source.pipeline.denoiser.settings == network.settings


def test_other_names_are_refused():
    with pytest.raises(ValueError, match=r"expected one of \[.*'text_diffusion'.*\], got the asset 'nothing'"):
        MaskedTextModel.from_folder("fklit:nothing")

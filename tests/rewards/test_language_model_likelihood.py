"""The likelihood of texts against a second computation: one text at a time, from the weights, and left-padded."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny_language_models import TEXTS, byte_tokenizer, word_tokenizer, write_gpt2, write_llama

from fklit.rewards import LanguageModelLikelihood, RewardError
from fklit.rewards.testing import RewardTests


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return write_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


class TestContract(RewardTests):
    @pytest.fixture(autouse=True)
    def _folder(self, llama):
        self.folder = llama

    def make_reward(self, max_batch=None):
        return LanguageModelLikelihood(self.folder, max_batch=max_batch)

    def make_samples(self, count):
        return TEXTS[:count]


def plain_gpt2(ids, weights):
    """Logits (L, V) of GPT-2 (Radford et al. 2019), two layers and two heads, in float64."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x, name):  # weights lie as (in, out)
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    length, place = len(ids), "transformer."
    x = weights[f"{place}wte.weight"][ids] + weights[f"{place}wpe.weight"][:length]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for layer in range(2):
        name = f"{place}h.{layer}"
        parts = linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn").split(16, dim=-1)
        q, k, v = (part.reshape(length, 2, 8).transpose(0, 1) for part in parts)
        scores = (q @ k.transpose(1, 2) / math.sqrt(8)).masked_fill(future, -math.inf)
        x = x + linear((scores.softmax(-1) @ v).transpose(0, 1).reshape(length, 16), f"{name}.attn.c_proj")
        hidden = linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + linear(hidden, f"{name}.mlp.c_proj")
    return norm(x, f"{place}ln_f") @ weights[f"{place}wte.weight"].T


def logs_of(logits, ids, first):
    """log p of the tokens from place `first`, one after the other."""
    return [float(logits[place - 1].log_softmax(-1)[ids[place]]) for place in range(first, len(ids))]


def test_gpt2_equals_a_second_reading_of_its_weights(gpt2):
    weights = {name: value.double() for name, value in load_file(f"{gpt2}/model.safetensors").items()}
    tokenizer = byte_tokenizer()
    expected = []
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        expected.append(logs_of(plain_gpt2(ids, weights), ids, 1))  # nothing precedes the first token
    # "go" may be one token here; then there is nothing to score.
    kept = [row for row, logs in enumerate(expected) if logs]
    scores = LanguageModelLikelihood(gpt2)([TEXTS[row] for row in kept])
    means = torch.tensor([sum(expected[row]) / len(expected[row]) for row in kept], dtype=torch.float64)
    assert means.std() > 0.05
    assert torch.allclose(scores, means, atol=1e-5)
    sums = LanguageModelLikelihood(gpt2, output="sum")([TEXTS[row] for row in kept])
    assert torch.allclose(sums, torch.tensor([sum(expected[row]) for row in kept], dtype=torch.float64), atol=1e-4)
    worse = LanguageModelLikelihood(gpt2, output="negative_perplexity")([TEXTS[row] for row in kept])
    assert torch.allclose(worse, -(-means).exp(), rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_padding_on_either_side_gives_the_same(kind, side, request):
    """transformers' own padding of the whole batch, with position numbers, against ours."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = request.getfixturevalue(kind)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.pad_token or tokenizer.eos_token, side
    texts = [TEXTS[row] for row in (0, 1, 3, 5)]
    given = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    places = (given.attention_mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = network(**given, position_ids=places).logits.log_softmax(-1)
    expected = []
    for row in range(len(texts)):
        real = given.attention_mask[row].bool()
        expected.append(logs_of(logits[row][real], given.input_ids[row][real], 1))
    scores = LanguageModelLikelihood(folder)(texts)
    assert torch.allclose(scores, torch.tensor([sum(e) / len(e) for e in expected]).double(), atol=2e-5)


def test_lengths_in_one_batch_do_not_matter_bit_for_bit_when_filled(llama):
    alone = [LanguageModelLikelihood(llama, max_batch=4, pad=True)([text]) for text in TEXTS]
    assert torch.equal(LanguageModelLikelihood(llama, max_batch=4, pad=True)(TEXTS), torch.cat(alone))


def test_which_tokens_are_scored(llama):
    """A random Llama on whole words: token by token, given all before it."""
    from transformers import LlamaForCausalLM

    network, words = LlamaForCausalLM.from_pretrained(llama), word_tokenizer(bos=False)

    def logs(ids, first):
        with torch.no_grad():
            return logs_of(network(torch.tensor([ids])).logits[0], ids, first)

    text, prompt = "the king said to the people", "the king"
    ids = words(text).input_ids
    cases = [
        ({}, text, [2, *ids], 1),  # <s> is context
        ({"add_bos": False}, text, ids, 1),
        ({"add_bos": True}, text, [2, *ids], 1),
        ({"given_prompt": True}, text, [2, *ids], 3),
        ({"given_prompt": True}, "said to the people", [2, *ids], 3),  # without its prompt
        ({"given_prompt": True}, " The  King said to the people", None, None),
        ({"given_prompt": True, "max_tokens": 2}, text, [2, *ids][:5], 3),
        ({"max_tokens": 3}, text, [2, *ids][:4], 1),
        ({"given_prompt": True, "add_bos": False}, text, ids, 2),
    ]
    for arguments, sample, tokens, first in cases:
        reward = LanguageModelLikelihood(llama, output="sum", **arguments)
        if tokens is None:  # other case: words that this tokenizer does not know, but split at the same place
            assert reward.load().network.network is not None
            from fklit.rewards.continuation import split_prompt

            assert split_prompt(sample, prompt) == (sample, len(" The  King"))
            continue
        assert float(reward([sample], [prompt])) == pytest.approx(sum(logs(tokens, first)), abs=1e-4), arguments


def test_spaces_belong_to_what_follows_the_prompt(gpt2):
    reward, tokenizer = LanguageModelLikelihood(gpt2, given_prompt=True).load(), byte_tokenizer()
    before, after = tokenizer("the king").input_ids, tokenizer(" said to the people").input_ids
    assert reward.network.encode("the king said to the people", "the king") == ([*before, *after], len(before))
    assert reward.network.encode("said to the people", "the king") == ([*before, *after], len(before))
    assert reward.network.encode("said to the people", "")[1] == 1


def test_what_the_tokenizer_puts_behind_a_text_is_not_scored(tmp_path):
    plain = write_llama(tmp_path / "plain", word_tokenizer(bos=True))
    ended = write_llama(tmp_path / "ended", word_tokenizer(bos=True, eos=True))
    assert torch.equal(LanguageModelLikelihood(plain)(TEXTS), LanguageModelLikelihood(ended)(TEXTS))


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_texts_without_a_scored_token(llama, text):
    with pytest.raises(RewardError, match=r"LanguageModelLikelihood expected a text .*, got .*; set empty='nan'"):
        LanguageModelLikelihood(llama)([TEXTS[0], text])
    reward = LanguageModelLikelihood(llama, empty="nan")
    scores = reward([TEXTS[0], text, "go"])
    assert scores.isnan().tolist() == [False, True, False]
    assert torch.equal(scores[[0]], reward([TEXTS[0]]))
    assert reward([text]).isnan().all()


@pytest.mark.parametrize("text", ["", " ", "the king", "the king ", "The King\n"])
def test_nothing_behind_the_prompt_has_no_score(gpt2, text):
    reward = LanguageModelLikelihood(gpt2, given_prompt=True, empty="nan")
    assert reward([text], ["the king"]).isnan().all()
    assert [len(logs) for logs in reward.token_log_probabilities([text, "he went"], ["the king", "he"])] == [
        0, len(byte_tokenizer()(" went").input_ids),
    ]  # fmt: skip


def test_one_token_without_bos_has_no_score(llama):
    reward = LanguageModelLikelihood(llama, add_bos=False, empty="nan")
    assert reward(["go", "go go"]).isnan().tolist() == [True, False]
    with pytest.raises(RewardError, match="expected a text with a token that others precede, got 'go'"):
        LanguageModelLikelihood(llama, add_bos=False)(["go"])
    given = LanguageModelLikelihood(llama, given_prompt=True, empty="nan")
    assert given(["the king", "the king"], ["the king", "the"]).isnan().tolist() == [True, False]


def test_odd_inputs_give_one_line(llama, gpt2, tmp_path):
    with pytest.raises(RewardError, match=r"words that the tokenizer of .* knows, got 'unicorn' in 'the unicorn'; use"):
        LanguageModelLikelihood(llama)(["the unicorn"])
    with pytest.raises(RewardError, match=r"expected texts of at most 64 tokens.*, got \d+; set max_tokens"):
        LanguageModelLikelihood(gpt2)(["\x00" * 100])
    assert LanguageModelLikelihood(gpt2, max_tokens=8)(["\x00" * 100]).isfinite()
    assert LanguageModelLikelihood(gpt2)(["\x00" * 60]).isfinite()  # padded to 64, not beyond
    with pytest.raises(ValueError, match="expected a list of texts, got a tensor"):
        LanguageModelLikelihood(llama)(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"expected 1 prompt\(s\), got None"):
        LanguageModelLikelihood(llama, given_prompt=True)(["go"])
    with pytest.raises(ValueError, match="output='perplexity' is not known"):
        LanguageModelLikelihood(llama, output="perplexity")
    with pytest.raises(OSError, match="LanguageModelLikelihood expected AutoTokenizer to load"):
        LanguageModelLikelihood(str(tmp_path)).load()
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(OSError, match="LanguageModelLikelihood expected AutoModelForCausalLM to load"):
        LanguageModelLikelihood(str(tmp_path)).load()
    write_llama(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a tokenizer of at most \d+ tokens.*; give the folder of one model"):
        LanguageModelLikelihood(str(tmp_path)).load()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(llama, dtype):
    scores = LanguageModelLikelihood(llama, dtype=dtype)(TEXTS)
    assert scores.dtype == torch.float64
    assert torch.allclose(scores, LanguageModelLikelihood(llama)(TEXTS), atol=0.1)


def test_the_shipped_guide_prefers_text_to_shuffled_words():
    reward = LanguageModelLikelihood("fklit:text_guide")
    good, shuffled = reward(
        ["The king went out of the city with all his people.", "king all The city of went people with his the. out"]
    )
    assert -5 < float(good) < -2
    assert float(good) > float(shuffled) + 1

"""Metrics of texts by hand; any split, repetition and pickle give the same; texts without words."""

import math
import pickle
from collections import Counter

import pytest
import torch
from tiny_language_models import TEXTS, word_tokenizer, write_llama

from fklit.metrics import AcceptanceRate, Distinct, RewardMetric, SelfBLEU, TextPerplexity, self_bleu_score, text_batch
from fklit.metrics.distinct import distinct_n
from fklit.metrics.texts import words
from fklit.rewards import Function, LanguageModelLikelihood, RegexScore


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


PROMPTS = ["the king", "he", "the king", "", "the people"]
ROWS = [
    ["the king went", "the king said , go", "the king went out"],
    ["he went", "he said", "he"],
    ["the king went out", "the king , the king", "the king said"],
    ["go go", "a great city", "go"],
    ["the people went", "the people said , go", "the people of the city"],
]
CHOSEN = [0, 1, 1, 0, 2]
SPLITS = ([[*range(5)]], [[0, 1], [2, 3, 4]], [[4, 3], [], [1, 0, 2], [3, 4, 4]])


def fed(metric, *parts):
    for rows in parts:
        samples, batch = text_batch([ROWS[row] for row in rows], [PROMPTS[row] for row in rows])
        object.__setattr__(batch, "chosen", torch.tensor([CHOSEN[row] for row in rows], dtype=torch.int64))
        object.__setattr__(batch, "indices", torch.tensor(rows, dtype=torch.int64))
        metric.update(samples, batch)
    return metric


def numbers(metric):
    found = metric.compute()
    return {name: float(value) for name, value in found.items()} if isinstance(found, dict) else float(found)


def token_logs(llama, text):
    """log p of each word given `<s>` and those before it, one text at a time."""
    from transformers import LlamaForCausalLM

    ids = [2, *word_tokenizer(bos=False)(text).input_ids]
    with torch.no_grad():
        logits = LlamaForCausalLM.from_pretrained(llama)(torch.tensor([ids])).logits[0].double()
    return [float(logits[place - 1].log_softmax(-1)[ids[place]]) for place in range(1, len(ids))]


@pytest.mark.parametrize("split", SPLITS)
def test_perplexity_over_texts_and_over_tokens(llama, split):
    logs = [token_logs(llama, ROWS[row][CHOSEN[row]]) for row in range(5)]
    each = [math.exp(-sum(text) / len(text)) for text in logs]
    tokens = [one for text in logs for one in text]
    assert numbers(fed(TextPerplexity(llama), *split)) == pytest.approx(
        {"mean": sum(each) / 5, "token_level": math.exp(-sum(tokens) / len(tokens))}, rel=1e-4
    )


def test_perplexity_of_what_follows_the_prompt(llama):
    whole = [token_logs(llama, ROWS[row][CHOSEN[row]]) for row in (0, 2)]
    after = [text[2:] for text in whole]  # "the king" has two words
    found = numbers(fed(TextPerplexity(llama, given_prompt=True), [0, 2]))
    assert found["mean"] == pytest.approx(sum(math.exp(-sum(t) / len(t)) for t in after) / 2, rel=1e-4)
    cut = numbers(fed(TextPerplexity(llama, given_prompt=True, max_tokens=1), [0, 2]))
    assert cut["token_level"] == pytest.approx(math.exp(-sum(t[0] for t in after) / 2), rel=1e-4)


def test_no_text_is_dropped_in_silence(llama):
    samples, batch = text_batch(["the king", "", "go"], ["a", "b", "c"])
    with pytest.raises(ValueError, match="TextPerplexity expected a finite value of every prompt, got nan for 'b'"):
        TextPerplexity(llama).update(samples, batch)
    metric = TextPerplexity(llama, on_nan="omit")
    metric.update(samples, batch)
    kept = [token_logs(llama, text) for text in ("the king", "go")]  # one token is enough behind <s>
    assert numbers(metric) == pytest.approx({
        "mean": sum(math.exp(-sum(t) / len(t)) for t in kept) / 2, "omitted": 1 / 3,
        "token_level": math.exp(-sum(map(sum, kept)) / 3),
    }, rel=1e-4)  # fmt: skip
    bare = TextPerplexity(llama, add_bos=False, on_nan="omit")
    bare.update(samples, batch)
    assert numbers(bare)["omitted"] == pytest.approx(2 / 3)  # without <s>, nothing precedes the only token of "go"
    assert all(math.isnan(value) for value in numbers(fed(TextPerplexity(llama), [])).values())


def test_perplexity_by_a_key_of_the_metadata(llama):
    samples, batch = text_batch(["the king", "go"], ["a", "b"])
    for line, tag in zip(batch.metadata, ["x", "y"], strict=True):
        line["tag"] = tag
    metric = TextPerplexity(llama, by="tag")
    metric.update(samples, batch)
    found = numbers(metric)
    assert list(found) == ["mean", "x", "y", "token_level"]
    assert found["y"] == pytest.approx(math.exp(-token_logs(llama, "go")[0]), rel=1e-4)
    assert isinstance(metric.reward, LanguageModelLikelihood)


@pytest.mark.parametrize("split", SPLITS)
def test_rewards_and_acceptance_of_chosen_texts(split):
    assert numbers(fed(RewardMetric(Function(lambda texts: [len(t) for t in texts])), *split)) == pytest.approx(
        sum(len(ROWS[row][CHOSEN[row]]) for row in range(5)) / 5
    )
    assert numbers(fed(AcceptanceRate(RegexScore("king", output="count"), 2.0), *split)) == pytest.approx(1 / 5)
    assert numbers(fed(AcceptanceRate(RegexScore("king", output="count"), 1.0), *split)) == pytest.approx(2 / 5)


def test_acceptance_of_what_has_no_score():
    values = {"a": math.nan, "b": -math.inf, "c": 0.5, "d": 0.4}
    metric = AcceptanceRate(Function(lambda texts: [values[text] for text in texts]), 0.5, on_nan="omit")
    metric.update(*text_batch(["a", "b", "c", "d"]))
    assert numbers(metric) == pytest.approx({"mean": 1 / 3, "omitted": 1 / 4})
    with pytest.raises(ValueError, match="got nan for ''"):
        AcceptanceRate(metric.reward, 0.5).update(*text_batch(["a"]))
    with pytest.raises(ValueError, match="expected a number as threshold, got nan"):
        AcceptanceRate(metric.reward, math.nan)


def test_words():
    assert words("The king's men—all, don't go!  2nd_x ½") == [
        "The", "king's", "men", "—", "all", ",", "don't", "go", "!", "2nd_x", "½",
    ]  # fmt: skip
    assert words(" \n") == []


def test_distinct_by_hand():
    texts = [["a", "b", "a"], ["a", "b"]]
    assert [distinct_n(texts, n) for n in (1, 2, 3)] == [2 / 5, 2 / 5, 1 / 5]  # a, b; ab, ba; aba
    assert math.isnan(distinct_n([], 1))


@pytest.mark.parametrize("split", SPLITS)
def test_distinct_of_the_corpus_and_of_each_prompt(split):
    """By hand: what follows the prompts is went | said | , the king | go go | of the city."""
    found = numbers(fed(Distinct(), *split))
    assert found == pytest.approx({
        # went said , the king go of city: "the" twice and "go" twice among 10 words
        "corpus_1": 8 / 10, "corpus_2": 5 / 10, "corpus_3": 2 / 10,
        # prompts: "the king" (went; , the king), "he" (said), "" (go go), "the people" (of the city)
        "prompt_1": (1 + 1 + 1 / 2 + 1) / 4, "prompt_2": (2 / 4 + 0 + 1 / 2 + 2 / 3) / 4,
        "prompt_3": (1 / 4 + 0 + 0 + 1 / 3) / 4,
    })  # fmt: skip


def test_distinct_of_all_texts_with_their_prompts():
    found = numbers(fed(Distinct(1, samples="all", with_prompt=True), [3], [4]))
    # go go a great city go / the people went, the people said , go, the people of the city
    assert found == pytest.approx({"corpus_1": 10 / 19, "prompt_1": (4 / 6 + 8 / 13) / 2})


def test_texts_without_words():
    with pytest.raises(ValueError, match="Distinct expected words in every text, got 'he' for 'he'; fix what writes"):
        fed(Distinct(samples="all"), [1])
    found = numbers(fed(Distinct(1, samples="all", on_nan="omit"), [1, 3]))
    assert found == pytest.approx({"corpus_1": 6 / 8, "prompt_1": (1 + 4 / 6) / 2, "omitted": 1 / 6})
    assert all(math.isnan(value) for value in numbers(fed(Distinct(), [])).values())


def plain_bleu(text, others, n_gram):
    """BLEU of one text (Papineni et al. 2002), from the counts of n-grams."""
    logs = 0.0
    for n in range(1, n_gram + 1):

        def grams(given):
            return Counter(tuple(given[i : i + n]) for i in range(len(given) - n + 1))  # noqa: B023

        mine, most = grams(text), Counter()
        for other in others:
            most |= grams(other)
        hits, total = sum((mine & most).values()), sum(mine.values())
        if not hits:
            return 0.0
        logs += math.log(hits / total) / n_gram
    closest = min((abs(len(other) - len(text)), len(other)) for other in others)[1]
    return math.exp(logs + min(0.0, 1 - closest / len(text)))


@pytest.mark.parametrize("n_gram", [1, 2, 4])
def test_self_bleu_equals_a_second_computation(n_gram):
    texts = [text.split() for text in TEXTS]
    each = [plain_bleu(text, texts[:row] + texts[row + 1 :], n_gram) for row, text in enumerate(texts)]
    assert self_bleu_score(texts, n_gram=n_gram) == pytest.approx(sum(each) / len(each), abs=1e-6)
    assert n_gram > 2 or sum(each) > 0.5
    assert self_bleu_score([["a", "b", "c", "d"]] * 3) == pytest.approx(1.0)


@pytest.mark.parametrize("split", SPLITS)
def test_self_bleu_over_prompts(split):
    after = {
        "the king": ["went", "said , go", "went out", "went out", ", the king", "said"], "": ROWS[3],
        "the people": ["went", "said , go", "of the city"], "he": ["went", "said"],
    }  # fmt: skip
    expected = [self_bleu_score([text.split() for text in texts], n_gram=1) for texts in after.values()]
    found = numbers(fed(SelfBLEU(1, on_nan="omit"), *split))
    assert found == pytest.approx({"mean": sum(expected) / 4, "omitted": 1 / 15}) and found["mean"] > 0.1


def test_self_bleu_needs_two_texts():
    with pytest.raises(ValueError, match="expected at least 2 texts of every prompt, got 1 of 'he'; raise num_part"):
        fed(SelfBLEU(samples="chosen"), [0, 1, 2]).compute()
    with pytest.raises(ValueError, match=r"variety \(SelfBLEU\) expected at least 2 texts of a prompt, got 1; raise"):
        SelfBLEU().check_run("variety", num_prompts=5, num_particles=1)
    assert math.isnan(numbers(fed(SelfBLEU(), [])))


def test_pickles_go_on(llama):
    for make in (Distinct, lambda: SelfBLEU(1, on_nan="omit"), lambda: TextPerplexity(llama)):
        whole = numbers(fed(make(), [*range(5)]))
        first = pickle.loads(pickle.dumps(fed(make(), [0, 1])))
        assert numbers(fed(first, [1, 2, 3, 4])) == pytest.approx(whole)


def test_samples_that_are_no_texts_are_refused(llama):
    samples, batch = text_batch([["a"], ["b"]])
    object.__setattr__(batch, "result", None)
    for metric in (Distinct(), TextPerplexity(llama)):
        with pytest.raises(ValueError, match=r"expected texts of 2 prompt\(s\), got samples \(2, 1, 1\) without; give"):
            metric.update(samples, batch)
    with pytest.raises(ValueError, match=r"expected as many texts of each prompt, got \[1, 2\]; give K of each"):
        text_batch([["a"], ["b", "c"]])

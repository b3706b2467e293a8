"""ChatReward against a service that answers as vLLM and OpenAI do, and in the ways in which it should not."""

import base64
import io
import math

import numpy as np
import pytest
import torch
from fake_service import Drop, serving
from PIL import Image

from fklit.rewards import ChatReward, Frames, RewardError, RewardServiceWarning, SoftTIFA

IMAGES = torch.randint(0, 256, (2, 3, 4, 6), generator=torch.Generator().manual_seed(0)) / 255
PROMPTS = ["a {red} heart", "a cat"]


def completion(*entries):
    told = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in entries]
    content = [{**told[0], "top_logprobs": told}] if told else []
    message = {"role": "assistant", "content": entries[0][0] if entries else ""}
    return {"choices": [{"index": 0, "message": message, "logprobs": {"content": content}}]}


USUAL = completion(("Yes", math.log(0.5)), ("No", math.log(0.2)), (" yes", math.log(0.1)), ("YES", math.log(0.02)))


def make(service, **options):
    return ChatReward(f"{service.url}/v1", "qwen", **{"retries": 1, "backoff": 0.001, **options})


def test_the_request_is_that_of_the_published_api():
    with serving([USUAL]) as service:
        make(service, concurrency=1, top_logprobs=5, body={"seed": 3})(IMAGES, PROMPTS)
    for image, prompt, body in zip(IMAGES, PROMPTS, service.requests, strict=True):
        ((role, content),) = [(message["role"], message["content"]) for message in body.pop("messages")]
        assert role == "user"
        scheme, _, data = content[0]["image_url"]["url"].partition(";base64,")
        assert (content[0]["type"], scheme) == ("image_url", "data:image/png")
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
        assert np.array_equal(pixels, (image * 255).round().byte().permute(1, 2, 0).numpy())
        question = f"Does this image show {prompt}? Answer Yes or No."
        assert content[1] == {"type": "text", "text": question}
        expected = {"model": "qwen", "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 5, "seed": 3}
        assert body == expected


@pytest.mark.parametrize(
    ("output", "value"),
    [("normalized", 0.62 / 0.82), ("probability", 0.62), ("log_probability", math.log(0.62))],
)
def test_spellings_are_summed(output, value):
    with serving([USUAL]) as service:
        assert make(service, output=output)(IMAGES, PROMPTS).tolist() == pytest.approx([value] * 2, rel=1e-12)


def test_each_sample_gets_its_own_answer():
    def by_red(body):
        data = body["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
        red = np.array(Image.open(io.BytesIO(base64.b64decode(data))))[..., 0].mean() / 255
        return completion(("Yes", math.log(red)), ("No", math.log(1 - red)))

    images = torch.randint(0, 256, (9, 3, 4, 4), generator=torch.Generator().manual_seed(1)) / 255
    with serving(by_red) as service:
        scores = make(service, concurrency=4)(images, ["a"] * 9)
        videos = Frames(make(service))(images.reshape(3, 3, 3, 4, 4), ["a"] * 3)
    assert torch.allclose(scores, images[:, 0].double().mean((1, 2)), atol=1e-6)
    assert torch.allclose(videos, scores.reshape(3, 3).mean(1))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            completion(("No", -0.1), ("Maybe", -3.0)),
            r"no probability of 'Yes' \(among .* words: 'no', 'may",
        ),
        (completion(("Yes", -0.1), ("Maybe", -3.0)), "no probability of 'No'"),
        (completion(("Yes", -9999.0), ("No", -0.1)), "no probability of 'Yes'"),
        (completion(("Yes", None), ("No", -0.1)), "no probability of 'Yes'"),
        (completion(("Yes", "-0.1"), ("No", -0.1)), "no probability of 'Yes'"),
        (completion(("Yes", math.nan), ("No", -0.1)), "no probability of 'Yes'"),
        (completion(("Yes", 2.0), ("No", -0.1)), "no probability of 'Yes'"),
        (completion(("Yes", -0.1), (" Yes", -0.1), ("No", -0.1)), "no probability of 'Yes'"),  # more than 1
        (completion(("<think>", -0.01)), "no probability of 'Yes'"),
        (completion(), "an answer without log probabilities of its first token"),
        ({"choices": [{"message": {"content": "Yes"}, "logprobs": None}]}, "an answer without log probabilities"),
        ({"choices": []}, "an answer without log probabilities"),
        (
            {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": 3, "logprob": 0}]}]}}]},
            "without log prob",
        ),
        ("Yes", "an answer without log probabilities"),
        (None, "an answer without log probabilities"),
        ((500, b"engine died"), r"status 500 \(engine died\) after 2 tries"),
        ((200, b"<html>"), "expected JSON"),
        (Drop(), "after 2 tries"),
    ],
)
def test_nothing_becomes_a_number(answer, said):
    with serving([answer]) as service, pytest.warns(RewardServiceWarning, match=said):
        assert make(service)(IMAGES, PROMPTS).isnan().all()


def test_of_p_yes_alone_no_other_word_is_needed():
    with serving([completion(("Yes", math.log(0.25)), ("Maybe", -1.0))]) as service:
        assert make(service, output="probability")(IMAGES, PROMPTS).tolist() == pytest.approx([0.25] * 2)


def test_it_answers_the_questions_of_soft_tifa():
    told = {
        "How many? Answer in one word.": completion((" Four", math.log(0.25)), ("4", math.log(0.5)), ("Six", -2.0)),
        "Red? Answer in one word.": completion(("yes", math.log(0.3)), ("No", math.log(0.7))),
        "Odd? Answer in one word.": completion(("No", math.log(0.7))),
    }
    known = [{"vqa_list": [["How many?", "four"], ["Red?", "Yes"]]}, {"vqa_list": [["Odd?", "Yes"], ["Red?", "Yes"]]}]
    with serving(lambda body: told[body["messages"][0]["content"][1]["text"]]) as service:
        with pytest.warns(RewardServiceWarning, match=r"no probability of 'Yes' .*, so 1 of 4 sample"):
            found = SoftTIFA(make(service))(IMAGES, PROMPTS, known)
    assert float(found[0]) == pytest.approx(math.sqrt(0.75 * 0.3))
    assert found[1].isnan()
    assert len(service.requests) == 4


def test_a_wrong_model_is_raised_at_once():
    with serving([(404, {"message": "no model qwen"})]) as service, pytest.raises(RewardError, match="no model qwen"):
        make(service, concurrency=1)(IMAGES, PROMPTS)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"question": "Is it red?"}, "expected a question with {prompt} in it, got 'Is it red\\?'"),
        ({"yes": "no"}, "expected two different words, got yes='no' and no='No'"),
        ({"top_logprobs": 21}, "expected top_logprobs of 1 to 20, got 21"),
        ({"output": "logit"}, "output='logit' is not known"),
        ({"body": {"seed": torch.zeros(1)}}, "expected a body of texts and numbers"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ChatReward("http://localhost/v1", "qwen", **options)

"""HTTPReward against a service that answers as it should, and in all the ways in which it should not."""

import base64
import copy
import io
import math
import pickle
import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_service import Drop, Wait, serving
from PIL import Image

from fklit.rewards import HTTPReward, RewardError, RewardServiceWarning, WeightedSum
from fklit.rewards.scoring import Scorer

IMAGES = torch.randint(0, 256, (3, 3, 5, 7), generator=torch.Generator().manual_seed(0)) / 255
PROMPTS = ["a red heart", "a cat", "a dog"]


def decoded(request):
    return np.array(Image.open(io.BytesIO(base64.b64decode(request["history"][-1]["image_b64"]))))


def means(body):
    """A service whose score is the mean byte of the image, found with PIL and NumPy alone."""
    results = [{"mean": {"mean": float(decoded(request).mean())}} for request in body["requests"]]
    return {"results": results, "errors": [{} for _ in results]}


def make(service, **options):
    return HTTPReward(service.url, "mean", **{"retries": 2, "backoff": 0.001, "timeout": 5.0, **options})


def test_images_arrive_losslessly_with_prompt_and_metadata():
    with serving(means) as service:
        scores = make(service)(IMAGES, PROMPTS, [{"prompt": p, "seed": i} for i, p in enumerate(PROMPTS)])
    (body,) = service.requests
    assert torch.allclose(scores, 255 * IMAGES.double().mean((1, 2, 3)), atol=1e-5)
    for i, request in enumerate(body["requests"]):
        assert set(request) == {"history", "required_rewards", "metadata"}
        assert request["required_rewards"] == ["mean"]
        assert request["history"][0]["text"] == PROMPTS[i]
        assert request["metadata"] == {"seed": i}
        assert np.array_equal(decoded(request), (IMAGES[i] * 255).round().byte().permute(1, 2, 0).numpy())


def test_gray_images_arrive_losslessly():
    with serving(means) as service:
        make(service)(IMAGES[:, :1], PROMPTS)
    sent = decoded(service.requests[0]["requests"][1])
    assert np.array_equal(sent, (IMAGES[1, 0] * 255).round().byte().numpy())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_calls_hold_at_most_max_batch_and_keep_the_order(concurrency):
    images = torch.arange(7).reshape(7, 1, 1, 1).expand(-1, 3, 2, 2) / 255
    with serving(means) as service:
        reward = make(service, max_batch=2, concurrency=concurrency)
        assert reward(images, ["a"] * 7).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(len(body["requests"]) for body in service.requests) == [1, 2, 2, 2]
    assert reward.calls == 4


def test_concurrent_calls_overlap():
    together = threading.Barrier(6, timeout=20)

    def answer(body):
        together.wait()  # breaks unless six calls are there at once
        return means(body)

    with serving(answer) as service:
        scores = make(service, max_batch=1, concurrency=6, timeout=30.0)(IMAGES.repeat(2, 1, 1, 1), PROMPTS * 2)
    assert scores.isfinite().all()


@pytest.mark.parametrize(
    "failures",
    [
        [(500, b"out of memory")],
        [(503, {}), (429, {}, {"Retry-After": "0"})],
        [Drop()],
        [Drop(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"results": [')],
        [(408, {}), (502, b"<html>")],
    ],
    ids=["500", "503, 429", "drop", "drop in the middle", "408, 502"],
)
def test_what_passes_is_tried_again(failures):
    answer = {"results": [{"mean": {"mean": float(i)}} for i in range(3)], "errors": [{}, {}, {}]}
    with serving([*failures, answer]) as service:
        reward = make(service)
        assert reward(IMAGES, PROMPTS).tolist() == [0.0, 1.0, 2.0]
    assert reward.calls == len(failures) + 1


@pytest.fixture
def waits(monkeypatch):
    """The seconds that are waited between tries, which are not waited here."""
    found = []
    clock = SimpleNamespace(sleep=found.append, monotonic=time.monotonic)
    monkeypatch.setattr("fklit.rewards.http_client.time", clock)
    return found


def test_back_off_doubles_up_to_a_minute_and_leaves_the_global_random_state(waits):
    before = random.getstate()
    with serving([(500, b"x")]) as service, pytest.warns(RewardServiceWarning):
        make(service, retries=8, backoff=1.0)(IMAGES, PROMPTS)
    for wait, middle in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert 0.5 * middle <= wait <= 1.5 * middle
    assert len({wait / 2**i for i, wait in enumerate(waits)}) == 8, "jitter"
    assert random.getstate() == before


def test_retry_after_is_waited_for_if_it_is_longer(waits):
    answers = [(429, {}, {"Retry-After": after}) for after in ("40", "0", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT")]
    with serving([*answers, (500, b"")]) as service, pytest.warns(RewardServiceWarning):
        make(service, retries=4, backoff=0.1)(IMAGES, PROMPTS)
    assert waits[0] == 40.0
    assert waits[2] == 60.0
    assert 0.1 <= waits[1] <= 0.3
    assert 0.4 <= waits[3] <= 1.2


def ok(value):
    return {"results": [{"mean": {"mean": value}}] * 3, "errors": [{}] * 3}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, b"CUDA out of memory\nmore"), r"status 500 \(CUDA out of memory\) after 3 tries"),
        ((502, b""), "status 502 after 3 tries"),
        (Drop(), "after 3 tries"),
        (Drop(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"results": []}'), "IncompleteRead.* after 3 tries"),
        (Wait(0.5), "timed out after 3 tries"),
        ((200, b"<html>hello</html>"), "expected JSON, got '<html>hello</html>' with status 200"),
        ((200, b""), "expected JSON, got ''"),
        ([1.0, 2.0, 3.0], "an answer without a list of results"),
        ({"results": {"mean": 1.0}}, "an answer without a list of results"),
        ({"results": [{"mean": {"mean": 1.0}}] * 2, "errors": [{}] * 2}, "2 results for 3 requests"),
        ({"results": [{"mean": {"mean": 1.0}}] * 4, "errors": [{}] * 4}, "4 results for 3 requests"),
        ({"results": [{"mean": {"mean": 1.0}}] * 3, "errors": [{}] * 2}, "errors that are not one a request"),
        (ok(None), "null as the score of mean"),
        (ok("0.5"), "'0.5' as the score of mean"),
        (ok(True), "True as the score of mean"),
        (ok([0.5]), r"\[0.5\] as the score of mean"),
        (ok(math.nan), "nan as the score of mean"),
        (ok(math.inf), "nan as the score of mean"),
        (ok(-math.inf), "nan as the score of mean"),
        ((200, b'{"results": [{"mean": 1e999}, {"mean": 1e999}, {"mean": 1e999}]}'), "inf as the score of mean"),
        ({"results": [None] * 3}, "null as the score of mean"),
        ({"results": [{}] * 3}, "null as the score of mean"),
        ({"results": [{"mean": {}}] * 3}, "null as the score of mean"),
        ({"results": [{}] * 3, "errors": [{"mean": "ValueError('bad image')\n..."}] * 3}, r"error .*bad image"),
        ({"results": [{"mean": {"mean": 1.0}}] * 3, "errors": [{"mean": "half"}] * 3}, "the error 'half'"),
    ],
)
def test_nothing_becomes_a_number(answer, said):
    with serving([answer]) as service, pytest.warns(RewardServiceWarning, match=said) as warned:
        scores = make(service, timeout=0.1 if isinstance(answer, Wait) else 5.0)(IMAGES, PROMPTS)
    assert scores.isnan().all()
    assert len(warned) == 1
    assert "3 of 3 sample(s) score NaN" in str(warned[0].message)


def test_no_service_is_nan_after_the_retries_and_refused_at_the_start():
    with serving(means) as service:
        reward = make(service).load()
    with pytest.warns(RewardServiceWarning, match="ConnectionRefusedError.* after 3 tries"):
        assert reward(IMAGES, PROMPTS).isnan().all()
    with pytest.raises(RewardError, match=r"a service at .*, got ConnectionRefused.*; start it, or fix the url"):
        make(service).load()


def test_one_bad_sample_does_not_spoil_the_others():
    answer = {"results": [{"mean": {"mean": 1.5}}, {"mean": {"mean": None}}, {"mean": 2.5}], "errors": [{}, {}, {}]}
    with serving([answer]) as service, pytest.warns(RewardServiceWarning, match=r"1 of 3 sample\(s\) score NaN"):
        scores = make(service)(IMAGES, PROMPTS)
    assert scores[[0, 2]].tolist() == [1.5, 2.5]
    assert scores[1].isnan()


def test_pictures_that_are_not_finite_are_not_sent():
    images = IMAGES.clone()
    images[1, 0, 0, 0] = math.nan
    with serving(means) as service:
        scores = make(service)(images, PROMPTS)
    assert scores.isnan().tolist() == [False, True, False]
    assert len(service.requests[0]["requests"]) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, b"no such reward"), r"got status 400 \(no such reward\); fix the request"),
        ((401, b"wrong key"), r"got status 401 \(wrong key\); check the key that api_key_env names"),
        ((404, {"detail": "Not Found"}), "got status 404 .*; check the url"),
        ((413, b""), "got status 413; lower max_batch"),
        ((422, b"x"), "got status 422"),
        (
            (307, b"", {"Location": "http://elsewhere/score"}),
            r"give the address that it points to \(http://els",
        ),
        ((301, b"", {"Location": "http://elsewhere/score"}), "status 301; give the address"),
    ],
)
def test_what_no_repetition_changes_is_raised_at_once(answer, said):
    with serving([answer]) as service, pytest.raises(RewardError, match=said):
        make(service)(IMAGES, PROMPTS)
    assert len(service.requests) == 1


def test_caps_count_retries_and_are_raised_by_name():
    with serving([(500, b"")]) as service:
        reward = make(service, max_calls=2)
        with pytest.raises(RewardError, match=r"at most max_calls=2 calls of http.*, got one more; raise"):
            reward(IMAGES, PROMPTS)
        assert reward.calls == len(service.requests) == 2
    with serving(means) as service:
        reward = make(service, max_batch=1, price_per_call=0.1, max_cost=0.3)
        reward(IMAGES, PROMPTS)  # three times 0.1 is no more than 0.3, though floats add up to more
        assert reward.cost == pytest.approx(0.3)
        with pytest.raises(RewardError, match=r"a cost of at most max_cost=0.3, got 0.3 spent and a call for 0.1"):
            reward(IMAGES, PROMPTS)
        assert len(service.requests) == 3


def test_a_cap_holds_among_concurrent_calls():
    with serving(means) as service:
        reward = make(service, max_batch=1, concurrency=8, max_calls=5)
        with pytest.raises(RewardError, match="max_calls=5"):
            reward(IMAGES.repeat(4, 1, 1, 1), PROMPTS * 4)
    assert len(service.requests) <= 5


def test_the_key_is_sent_and_shown_nowhere(monkeypatch):
    monkeypatch.setenv("SCORE_KEY", "s3cret")
    with serving([(500, b"bad key s3cret"), means(dict(requests=[]))]) as service:
        reward = make(service, retries=0, api_key_env="SCORE_KEY")
        with pytest.warns(RewardServiceWarning) as warned:
            reward(IMAGES, PROMPTS)
    assert service.headers[0]["Authorization"] == "Bearer s3cret"
    shown = [
        str(warned[0].message),
        repr(reward),
        repr(reward.settings()),
        repr(vars(reward.client)),
        pickle.dumps(reward),
    ]
    assert not any("s3cret" in str(text) for text in shown)
    assert r"bad key ***" in shown[0]
    monkeypatch.delenv("SCORE_KEY")
    with pytest.raises(RewardError, match="an API key in the environment variable SCORE_KEY, got none"):
        make(service, api_key_env="SCORE_KEY").load()
    monkeypatch.setenv("SCORE_KEY", "s3\ncret")
    with pytest.raises(RewardError, match="a key of one line of ASCII") as caught:
        make(service, api_key_env="SCORE_KEY").load()
    assert "cret" not in str(caught.value)


def test_a_wrong_name_is_refused_before_anything_is_scored():
    with serving(means, get={"/rewards": {"rewards": ["clip", "hpsv3"]}}) as service:
        with pytest.raises(RewardError, match=r"serves \(clip, hpsv3\), got 'mean'; name one of them"):
            make(service).load()
        HTTPReward(service.url + "/score", "clip").load()


def test_one_of_several_metrics_must_be_named():
    answer = {"results": [{"mean": {"VQ": 1.0, "MQ": 2.0}}] * 3, "errors": [{}] * 3}
    with serving([answer]) as service:
        with pytest.raises(RewardError, match="expected metric, as the service gives VQ, MQ, got None"):
            make(service)(IMAGES, PROMPTS)
        with pytest.raises(RewardError, match="expected a metric among VQ, MQ, got 'TA'"):
            make(service, metric="TA")(IMAGES, PROMPTS)
        assert make(service, metric="MQ")(IMAGES, PROMPTS).tolist() == [2.0] * 3


def test_metadata_that_json_lacks_are_refused_by_name():
    known = [{"prompt": "a", "seed": 1, "mask": torch.zeros(1)}] * 3
    with serving(means) as service:
        with pytest.raises(RewardError, match=r"got Tensor under 'mask' .*; choose what is sent by metadata_keys"):
            make(service)(IMAGES, PROMPTS, known)
        make(service, metadata_keys=["seed", "other"])(IMAGES, PROMPTS, known)
    assert service.requests[0]["requests"][0]["metadata"] == {"seed": 1}


def test_it_can_be_copied_and_combined():
    with serving(means) as service:
        reward = make(service)
        copied = pickle.loads(pickle.dumps(copy.deepcopy(reward)))
        both = WeightedSum([reward, copied], [1.0, 2.0])(IMAGES, PROMPTS)
        assert torch.allclose(both, 3 * reward(IMAGES, PROMPTS))


@pytest.mark.parametrize("on_nan", ["drop", "error"])
def test_on_nan_decides_about_failures(on_nan):
    answer = {"results": [{"mean": 1.0}, {"mean": None}, {"mean": 3.0}], "errors": [{}, {}, {}]}
    with serving([answer, {"results": [{"mean": 1.0}]}]) as service, pytest.warns(RewardServiceWarning):
        scorer = Scorer(make(service), ["a red heart"], 3, max_batch=None, on_nan=on_nan)
        if on_nan == "error":
            with pytest.raises(RewardError, match=r"got nan for particle 1 of prompt 'a red heart'.*on_nan='drop'"):
                scorer(IMAGES, where="at step 3")
        else:
            assert scorer(IMAGES, where="at step 3")[0, [0, 2]].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "localhost:8080"}, "expected a url such as http://localhost:8080, got 'localhost:8080'"),
        ({"url": "file:///etc/passwd"}, "expected a url such as"),
        ({"url": "http://me:secret@host"}, "expected a url without a password, got one with it"),
        ({"reward": ""}, "expected the name of a reward, got an empty text"),
        ({"timeout": 0}, "expected timeout above 0"),
        ({"retries": -1}, "retries=-1 is too small"),
        ({"backoff": math.inf}, "backoff=inf is not accepted"),
        ({"max_calls": 0}, "max_calls=0 is too small"),
        ({"max_cost": 1.0}, "expected price_per_call with max_cost, got 0"),
        ({"concurrency": 0}, "concurrency=0 is too small"),
        ({"max_batch": 0}, "max_batch of at least 1"),
        ({"api_key_env": "sk-1234"}, "expected the name of an environment variable as api_key_env, got another text"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words) as caught:
        HTTPReward(**{"url": "http://localhost", "reward": "clip", **options})
    assert not any(secret in str(caught.value) for secret in ("secret", "sk-1234"))

"""RewardServer: what HTTPReward gets from it is what the reward says; whatever else is sent is refused."""

import base64
import http.client
import io
import json
import math
import threading
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from fklit.rewards import CLIPScore, Frames, Function, HTTPReward, RewardError, RewardServer, RewardServiceWarning
from fklit.rewards.pixels import from_base64, to_png_base64
from fklit.rewards.testing import RewardTests

IMAGES = torch.randint(0, 256, (5, 3, 24, 20), generator=torch.Generator().manual_seed(0)) / 255
PROMPTS = ["a red heart", "a cat", "a dog", "a heart left of a cat", "a cat"]


@contextmanager
def served(reward, name="it", **options):
    with RewardServer(reward, name, port=0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class TestContract(RewardTests):
    """HTTPReward through a server holds the contract of rewards."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, clip_folder):
        with served(CLIPScore(str(clip_folder))) as url:
            cls.url = url
            yield

    def make_reward(self, max_batch=None):
        return HTTPReward(self.url, "it", max_batch=max_batch, concurrency=2)


@pytest.mark.parametrize("max_batch", [1, 2, None])
def test_a_round_trip_changes_nothing(clip_folder, max_batch):
    reward = CLIPScore(str(clip_folder), max_batch=max_batch)
    with served(reward) as url:
        found = HTTPReward(url, "it", max_batch=max_batch)(IMAGES, PROMPTS)
    assert torch.equal(found, reward(IMAGES, PROMPTS).double())  # multiples of 1/255 travel losslessly


def test_other_pictures_are_rounded_to_bytes():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with served(Function(lambda images: images[:, 0, 0, 0])) as url:
        found = HTTPReward(url, "it")(images, ["a"] * 4)
    assert (found - images[:, 0, 0, 0].double()).abs().max() <= 0.5 / 255 + 1e-6


def test_metadata_and_sizes_arrive():
    def area_times(images, prompts, metadata):
        return [images.shape[2] * images.shape[3] * known["times"] + len(known["prompt"]) for known in metadata]

    with served(Function(area_times)) as url:
        known = [{"prompt": "ab", "times": 3}, {"prompt": "abc", "times": 4}]
        assert HTTPReward(url, "it")(IMAGES[:2], ["ab", "abc"], known).tolist() == [1442.0, 1923.0]
        requests = [request(IMAGES[0], times=1), request(IMAGES[1, :, :2, :3], times=1), request(IMAGES[2], times=2)]
        results = call(url, {"requests": requests})[1]["results"]  # sizes may differ within a call
    assert [result["it"]["it"] for result in results] == [481, 7, 961]


def test_frames_of_videos_are_scored():
    videos = IMAGES[:4].reshape(2, 2, 3, 24, 20)
    red = Function(lambda images: images[:, 0].mean((1, 2)))
    with served(red) as url:
        found = Frames(HTTPReward(url, "it"), reduce="min")(videos, PROMPTS[:2])
    assert torch.equal(found, Frames(red, reduce="min")(videos, PROMPTS[:2]).double())


def request(image=IMAGES[0], name="it", prompt="p", **metadata):
    item = {"text": prompt, "image_b64": to_png_base64(image)}
    return {"history": [item], "required_rewards": [name], "metadata": metadata}


def call(url, body, method="POST", path="/score", headers=None):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, body=content, headers=headers or {})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def picky(images, prompts):
    if "bad" in prompts:
        raise KeyError("no such prompt")
    return [math.nan if prompt == "nan" else -math.inf if prompt == "dies" else 1.5 for prompt in prompts]


def test_errors_are_told_a_request():
    broken = request()
    broken["history"][0]["image_b64"] = "AAAA"
    missing = {"history": [{"text": "p"}], "required_rewards": ["it"]}
    requests = [request(), request(prompt="bad"), request(prompt="nan"), broken, missing, request(prompt="dies")]
    with served(Function(picky)) as url:
        status, answer = call(url, {"requests": requests})
        bad = [error.get("it", "") for error in answer["errors"]]
        with pytest.warns(RewardServiceWarning, match=r"1 of 2 sample\(s\) score NaN"):
            scores = HTTPReward(url, "it")(IMAGES[:2], ["fine", "bad"])
    assert status == 200
    assert [result["it"]["it"] for result in answer["results"]] == [1.5, None, None, None, None, None]
    assert bad[0] == ""
    assert "KeyError: 'no such prompt'" in bad[1]
    assert bad[2] == "the reward gave nan"
    assert "expected a PNG, JPEG or WebP file in base64" in bad[3]
    assert "expected image_b64 in the last item of the history" in bad[4]
    assert bad[5] == "the reward gave -inf"
    assert scores[0] == 1.5
    assert scores[1].isnan()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"\x80\x04K\x01.", 422, "expected JSON with a list of requests"),  # a pickle
        (b"[" * 100_000, 422, "expected JSON with a list of requests"),
        ({"samples": []}, 422, "expected JSON with a list of requests"),
        ({"requests": 3}, 422, "expected a list of requests, got a int"),
        ({"requests": [3]}, 422, "request 0: expected a history"),
        ({"requests": [{"history": "x"}]}, 422, "request 0: expected a history"),
        ({"requests": [request(), request(name="hpsv3")]}, 422, r"request 1: expected required_rewards \['it'\], got"),
        ({"requests": [{**request(), "metadata": 3}]}, 422, "request 0: expected metadata, an object"),
        (b"x" * 300_000, 413, "expected a request of at most 200000 bytes, got 300000"),
    ],
)
def test_calls_of_another_form_are_refused(body, status, said):
    import re

    with served(Function(lambda images: images.mean((1, 2, 3))), max_request_bytes=200_000) as url:
        found, answer = call(url, body)
        assert found == status
        assert re.search(said, answer["detail"])
        assert call(url, {"requests": [request()]})[0] == 200  # and the server goes on


def test_too_large_a_call_says_what_to_do():
    with served(Function(lambda images: images.mean((1, 2, 3))), max_request_bytes=2000) as url:
        with pytest.raises(RewardError, match=r"got status 413 .*; lower max_batch"):
            HTTPReward(url, "it", retries=0)(IMAGES, PROMPTS)


def test_health_and_rewards():
    with served(Function(lambda images: images.mean((1, 2, 3)))) as url:
        assert call(url, None, "GET", "/health") == (200, {"status": "ok", "rewards": {"it": ["ready"]}})
        assert call(url, None, "GET", "/rewards") == (200, {"rewards": ["it"]})
        assert call(url, None, "GET", "/etc/passwd")[0] == 404
        assert call(url, b"{}", "POST", "/other")[0] == 404


def test_a_key_is_asked_for(monkeypatch):
    monkeypatch.setenv("RIGHT", "abc")
    monkeypatch.setenv("WRONG", "abd")
    with served(Function(lambda images: images.mean((1, 2, 3))), api_key="abc") as url:
        assert HTTPReward(url, "it", api_key_env="RIGHT")(IMAGES, PROMPTS).isfinite().all()
        for name in ("WRONG", None):
            with pytest.raises(RewardError, match=r"status 401 \(.*expected the key .*\); check the key"):
                HTTPReward(url, "it", api_key_env=name)(IMAGES, PROMPTS)


def test_calls_are_scored_one_at_a_time():
    inside, most = [], []

    def watched(images):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()
        return images.mean((1, 2, 3))

    with served(Function(watched)) as url:
        HTTPReward(url, "it", max_batch=1, concurrency=5)(IMAGES, PROMPTS)
    assert max(most) == 1
    assert len(most) == 5


def test_rewards_of_something_else_are_refused():
    with pytest.raises(ValueError, match="expected a reward of images, got Frames"):
        RewardServer(_videos_only(), port=0)


def _videos_only():
    class Videos(Frames):
        def refused(self, modality):
            return None if modality == "video" else self

    return Videos(Function(lambda images: images.mean((1, 2, 3))))


def test_pictures_travel_as_bytes():
    assert torch.equal(from_base64(to_png_base64(IMAGES[0])), IMAGES[0])
    gray = from_base64(to_png_base64(IMAGES[0, :1]))
    assert torch.equal(gray, IMAGES[0, :1].expand(3, -1, -1))
    assert torch.equal(from_base64("data:image/png;base64," + to_png_base64(IMAGES[0])), IMAGES[0])
    assert from_base64(to_png_base64(torch.tensor([0.0, 1.2, -0.3]).reshape(3, 1, 1))).flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (3, "expected an image in base64, got a int"),
        ("%%%", "expected a PNG, JPEG or WebP file"),
        (base64.b64encode(b"GIF89a").decode(), "expected a PNG, JPEG or WebP file"),
        (to_png_base64(IMAGES[0])[:200], "expected a PNG, JPEG or WebP file"),
    ],
)
def test_other_content_is_no_picture(content, words):
    with pytest.raises(ValueError, match=words):
        from_base64(content)


def test_a_small_file_of_a_huge_picture_is_refused():
    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, format="PNG")
    with pytest.raises(ValueError, match="at most 16777216 pixels, got 5000 x 5000"):
        from_base64(base64.b64encode(file.getvalue()).decode())


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="expected images of 1 or 3 channels, got 4"):
        to_png_base64(torch.zeros(4, 2, 2))

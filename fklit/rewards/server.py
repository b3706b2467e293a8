"""A reward as a service: `POST /score`, `GET /health` and `GET /rewards`, on the server of the standard library."""

import hmac
import json
import math
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor

from fklit.checks import check_count
from fklit.rewards.base import Reward, RewardError
from fklit.rewards.pixels import from_base64

_READ_TIMEOUT = 60.0  # seconds that a client may be silent in the middle of a request


class RewardServer(ThreadingHTTPServer):
    """Serves one reward of images to `HTTPReward` and to other clients of the same protocol.

    Requests are read in threads of their own and scored one call at a time. All images of a size in a call are scored
    together. What cannot be scored is null with a message in `errors`, and leaves the rest of the call alone. JSON in,
    JSON out: nothing that is sent can run code.

    ```python
    with fklit.rewards.RewardServer(reward, "clip", port=8080) as server:
        server.serve_forever()
    ```

    Args:
        reward: The reward; it must take images. It is loaded here.
        name: What clients call it.
        host: Address to listen at; the default is heard by this machine only.
        port: Port to listen at; 0 takes a free one (`server_address` tells).
        max_request_bytes: Largest request that is read.
        api_key: What clients must send as a bearer token; None for no key.

    Raises:
        ValueError: The reward does not take images, or an argument is out of range.
        OSError: The port is taken.
    """

    daemon_threads = False  # a request in work is answered before the server is gone
    block_on_close = True

    def __init__(
        self,
        reward: Reward,
        name: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        max_request_bytes: int = 2**28,
        api_key: str | None = None,
    ) -> None:
        if reward.refused("image") is not None:
            raise ValueError(
                f"expected a reward of images, got {reward.display_name}, which takes {reward.accepts}; serve another."
            )
        self.reward = reward.load()
        self.name = name or type(reward).__name__
        self.max_request_bytes = check_count("max_request_bytes", max_request_bytes)
        self.api_key = api_key
        self._lock = threading.Lock()  # one model, one GPU
        super().__init__((host, port), _Handler)

    def score(self, requests: list[Any]) -> dict[str, Any]:
        """Answer the requests of one call.

        Args:
            requests: As the protocol has them; the last item of a `history` is scored.

        Returns:
            `{"results": [{name: {name: number or null}}], "errors": [{} or {name: text}]}`, one of each a request.
        """
        scores, errors = [math.nan] * len(requests), [""] * len(requests)
        read: dict[int, tuple[Tensor, str, Mapping[str, Any]]] = {}
        pending: dict[tuple[int, ...], list[int]] = {}  # rows by the size of their images
        for row, request in enumerate(requests):
            try:
                read[row] = _read(request)
                pending.setdefault(tuple(read[row][0].shape), []).append(row)
            except ValueError as problem:
                errors[row] = str(problem)
        groups = list(pending.values())
        while groups:
            rows = groups.pop()
            try:
                values = self._scores([read[row] for row in rows])
            except Exception as problem:  # whatever a reward raises
                if len(rows) > 1 and not isinstance(problem, torch.OutOfMemoryError):
                    groups += [[row] for row in rows]  # alone, only the sample that it is about fails
                    continue
                kind = "" if isinstance(problem, RewardError | ValueError) else f"{type(problem).__name__}: "
                values = [math.nan] * len(rows)
                for row in rows:
                    errors[row] = " ".join(f"{kind}{problem}".split())
            for row, value in zip(rows, values, strict=True):
                scores[row] = value
                if not math.isfinite(value):  # JSON has no such number
                    errors[row] = errors[row] or f"the reward gave {value}"
        return {
            "results": [{self.name: {self.name: value if math.isfinite(value) else None}} for value in scores],
            "errors": [{self.name: error} if error else {} for error in errors],
        }

    def _scores(self, read: list[tuple[Tensor, str, Mapping[str, Any]]]) -> list[float]:
        """Scores of images of one size."""
        images, prompts, known = zip(*read, strict=True)
        metadata = [{**item, "prompt": prompt} for item, prompt in zip(known, prompts, strict=True)]
        with self._lock, torch.inference_mode():
            found: list[float] = self.reward(torch.stack(images), list(prompts), metadata).tolist()
        return found


def _read(request: Any) -> tuple[Tensor, str, Mapping[str, Any]]:
    history = request["history"]
    if not history:
        raise ValueError("expected a history of at least one item, got none; send text and image_b64.")
    item = history[-1]
    if item.get("image_b64") is None:
        raise ValueError("expected image_b64 in the last item of the history, got none; this reward scores images.")
    return from_base64(item["image_b64"]), str(item.get("text") or ""), request.get("metadata") or {}


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer
    server_version = "fklit"
    sys_version = ""
    timeout = _READ_TIMEOUT
    _has_read = False  # whether the body was

    def do_GET(self) -> None:
        if not self._allowed():
            return
        if self.path == "/health":
            self._answer(200, {"status": "ok", "rewards": {self.server.name: ["ready"]}})
        elif self.path == "/rewards":
            self._answer(200, {"rewards": [self.server.name]})
        else:
            self._refuse(404, f"expected /health, /rewards or POST /score, got {self.path}; fix the path.")

    def do_POST(self) -> None:
        if not self._allowed():
            return
        if self.path != "/score":
            self._refuse(404, f"expected POST /score, got {self.path}; fix the path.")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self._refuse(411, "expected a Content-Length, got none; send one.")
            return
        if int(length) > self.server.max_request_bytes:
            limit = self.server.max_request_bytes
            self._refuse(413, f"expected a request of at most {limit} bytes, got {length}; send fewer samples a call.")
            return
        self._has_read = True
        try:
            requests = json.loads(self.rfile.read(int(length)))["requests"]
            problem = self._problem(requests)
        except (ValueError, KeyError, TypeError, RecursionError):
            problem = "expected JSON with a list of requests, got another body; see fklit.rewards.HTTPReward."
        if problem is not None:
            self._refuse(422, problem)
            return
        self._answer(200, self.server.score(requests))

    def _problem(self, requests: Any) -> str | None:
        """What is wrong with the form of a call, or None."""
        if not isinstance(requests, list):
            return f"expected a list of requests, got a {type(requests).__name__}; send one."
        for place, request in enumerate(requests):
            history = request.get("history") if isinstance(request, dict) else None
            if not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
                return f"request {place}: expected a history, a list of objects, got another; send one."
            if not isinstance(request.get("metadata"), dict | None):
                return f"request {place}: expected metadata, an object, got another; send one or none."
            if request.get("required_rewards") != [self.server.name]:
                return (
                    f"request {place}: expected required_rewards {[self.server.name]}, got "
                    f"{request.get('required_rewards')!r}; name what GET /rewards lists."
                )
        return None

    def _allowed(self) -> bool:
        key = self.server.api_key
        given = self.headers.get("Authorization", "")
        if key is None or hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            return True
        self._refuse(401, "expected the key of this service as a bearer token, got none or another; send it.")
        return False

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        left = min(int(length), 8 * self.server.max_request_bytes) if length.isdigit() and not self._has_read else 0
        while left > 0 and (chunk := self.rfile.read(min(left, 65536))):  # many clients only listen once all is sent
            left -= len(chunk)
        self._answer(status, {"detail": message})

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a request a line would fill a disk in a night."""

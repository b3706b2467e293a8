"""JSON over HTTP for rewards: time-outs, retries, and caps on calls and cost. A failure is told from an answer."""

import http.client
import json
import math
import os
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import Any, NoReturn
from urllib.parse import urlsplit

from fklit.checks import check_count, check_non_negative
from fklit.rewards.base import RewardError

_RETRIED = frozenset({408, 425, 429})  # and 5xx: the same request may be answered later
_MAX_ANSWER = 64 * 2**20  # bytes; an answer holds numbers
_MAX_WAIT = 60.0  # seconds between two tries, whatever the service asks for


class RewardServiceWarning(UserWarning):
    """A reward service gave no score for some samples, whose reward is NaN."""


@dataclass(frozen=True)
class NoAnswer:
    """A call that failed for good.

    Attributes:
        reason: Status and first line of the body, or the error of the connection.
    """

    reason: str


class HttpClient:
    """Calls one service with JSON, and counts.

    Args:
        url: Where the service is, `http://` or `https://`, without a password.
        name: What errors call the reward.
        timeout: Seconds that one try may take, above 0.
        retries: Further tries after time-outs, broken connections and the statuses 408, 425, 429 and 5xx.
        backoff: Seconds before the first of them, doubled each time, times a random factor of 0.5 to 1.5; a
            `Retry-After` of the service counts if it is longer. At most 60, before the factor.
        max_calls: Most POST requests, retries included, over the life of this object; None for no limit.
        price_per_call: What a request costs, in any currency.
        max_cost: Most that all requests may cost, in that currency; None for no limit.
        api_key_env: Name of the environment variable that holds the key, sent as a bearer token; None for no key.

    Raises:
        ValueError: An argument is out of range, or the variable's name is no name.

    Attributes:
        calls: POST requests made so far, retries included.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        timeout: float,
        retries: int,
        backoff: float,
        max_calls: int | None,
        price_per_call: float,
        max_cost: float | None,
        api_key_env: str | None,
    ) -> None:
        self.url = _checked_url(url)
        self.calls = 0
        self._name = name
        self._timeout = check_non_negative("timeout", timeout)
        if self._timeout == 0:
            raise ValueError("expected timeout above 0, got 0; give the seconds that one try may take.")
        self._retries = check_count("retries", retries, minimum=0)
        self._backoff = check_non_negative("backoff", backoff)
        self._max_calls = None if max_calls is None else check_count("max_calls", max_calls)
        self._price = check_non_negative("price_per_call", price_per_call)
        self._max_cost = None if max_cost is None else check_non_negative("max_cost", max_cost)
        if self._max_cost is not None and self._price == 0:
            raise ValueError("expected price_per_call with max_cost, got 0; give the price of a request.")
        if api_key_env is not None and not api_key_env.replace("_", "a").isalnum():
            raise ValueError("expected the name of an environment variable as api_key_env, got another text; name one.")
        self._api_key_env = api_key_env
        self._random = random.Random()  # of its own: jitter must not consume the global stream
        self._lock = threading.Lock()
        self._opener = _opener(self.url)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock and the connections, which cannot be copied."""
        return {key: value for key, value in vars(self).items() if key not in ("_lock", "_opener")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a copy, with a lock and connections of its own."""
        vars(self).update(state, _lock=threading.Lock(), _opener=_opener(state["url"]))

    @property
    def cost(self) -> float:
        """What the calls so far have cost, in the currency of `price_per_call`."""
        return self.calls * self._price

    def get(self, path: str) -> Any:
        """Return the JSON that a path answers, or `NoAnswer`; see `post`. It is not counted; a 404 is no answer."""
        return self._ask(path, None)

    def post(self, path: str, payload: Any) -> Any:
        """Return the JSON that a path answers to a payload.

        Args:
            path: Appended to the address, such as "/score".
            payload: Something `json.dumps` takes.

        Returns:
            The answer, in which `NaN` and `Infinity`, which JSON lacks, are NaN; or `NoAnswer` if all tries failed or
            the answer is no JSON.

        Raises:
            RewardError: The service refuses the request (4xx, a redirection) or a cap is reached: trying again would
                change nothing.
        """
        return self._ask(path, json.dumps(payload, allow_nan=False).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        reason = ""
        wait = 0.0
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(wait)
            wait = min(self._backoff * 2.0**attempt, _MAX_WAIT) * self._random.uniform(0.5, 1.5)
            if body is not None:
                self._count()
            try:
                status, headers, content = self._try(path, body)
            except (OSError, http.client.HTTPException) as error:
                reason = _connection(error)
                continue
            if status in _RETRIED or status >= 500:
                reason = self._said(status, content)
                wait = max(wait, min(_retry_after(headers), _MAX_WAIT))
                continue
            if status == 404 and body is None:
                return NoAnswer(self._said(status, content))
            if status >= 300:
                self._refuse(path, status, headers, content)
            try:
                return json.loads(content, parse_constant=lambda constant: math.nan)
            except ValueError:
                return NoAnswer(f"expected JSON, got {self._first_line(content)!r} with status {status}")
        return NoAnswer(f"{reason} after {self._retries + 1} tries")

    def _count(self) -> None:
        with self._lock:
            if self._max_calls is not None and self.calls >= self._max_calls:
                raise RewardError(
                    f"{self._name} expected at most max_calls={self._max_calls} calls of {self.url}, got one more; "
                    "raise max_calls, or score fewer samples."
                )
            if self._max_cost is not None and (self.calls + 1) * self._price > self._max_cost * (1 + 1e-12):
                raise RewardError(
                    f"{self._name} expected a cost of at most max_cost={self._max_cost:g}, got {self.cost:g} spent and "
                    f"a call for {self._price:g}; raise max_cost, or score fewer samples."
                )
            self.calls += 1

    def _try(self, path: str, body: bytes | None) -> tuple[int, Message, bytes]:
        headers = {"Accept": "application/json", "User-Agent": "fklit"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._api_key_env is not None:
            headers["Authorization"] = f"Bearer {self._key()}"
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=headers)
        deadline = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return response.status, response.headers, _read(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, _read(error, deadline)

    def _key(self) -> str:
        assert self._api_key_env is not None
        key = os.environ.get(self._api_key_env, "").strip()
        if not key:
            raise RewardError(
                f"{self._name} expected an API key in the environment variable {self._api_key_env}, got none; set it, "
                "or omit api_key_env."
            )
        if not (key.isascii() and key.isprintable()):  # the error of http.client would show it
            raise RewardError(f"{self._name} expected a key of one line of ASCII in {self._api_key_env}, got another.")
        return key

    def _refuse(self, path: str, status: int, headers: Message, content: bytes) -> NoReturn:
        fix = {
            401: "check the key that api_key_env names",
            403: "check the key that api_key_env names",
            404: "check the url",
            413: "lower max_batch",
        }.get(status, "fix the request or the service")
        if status < 400:
            fix = f"give the address that it points to ({self._redacted(str(headers.get('Location')))})"
        raise RewardError(
            f"{self._name} expected scores from {self.url}{path}, got {self._said(status, content)}; {fix}."
        )

    def _said(self, status: int, content: bytes) -> str:
        line = self._first_line(content)
        return f"status {status}" + (f" ({line})" if line else "")

    def _first_line(self, content: bytes) -> str:
        text = content.decode("utf-8", errors="replace").strip()
        return self._redacted(text.partition("\n")[0].strip())[:200]

    def _redacted(self, text: str) -> str:
        """Without the key, which some services repeat."""
        key = os.environ.get(self._api_key_env or "", "").strip()
        return text.replace(key, "***") if key else text


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET, and would take the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[Any] = [_NoRedirection()]
    host = urlsplit(url).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy of the environment does not know this machine
    return urllib.request.build_opener(*handlers)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected a url such as http://localhost:8080, got {url!r}; give http:// or https:// first.")
    if parts.username or parts.password:
        raise ValueError("expected a url without a password, got one with it; name a variable by api_key_env.")
    return url.rstrip("/")


def _read(response: Any, deadline: float) -> bytes:
    """The whole body, within the time and the size that are allowed; each read waits for the time-out at most."""
    content = b""
    while chunk := response.read1(65536) if hasattr(response, "read1") else response.read(65536):
        content += chunk
        if len(content) > _MAX_ANSWER:
            raise http.client.HTTPException(f"an answer of more than {_MAX_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out while reading")
    length = response.headers.get("Content-Length") or ""
    if length.isdigit() and len(content) < int(length):  # reads of a part do not tell that the connection broke
        raise http.client.IncompleteRead(content, int(length) - len(content))
    return content


def _connection(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"


def _retry_after(headers: Message) -> float:
    try:
        return max(0.0, float(headers.get("Retry-After") or 0))
    except ValueError:  # a date
        return 0.0

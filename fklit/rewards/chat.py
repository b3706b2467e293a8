"""Rewards of a vision-language model behind an OpenAI-style chat API: the probability of its first word."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from fklit.checks import check_choice, check_count
from fklit.rewards.base import Metadata
from fklit.rewards.http_client import HttpClient, NoAnswer
from fklit.rewards.pixels import to_png_base64
from fklit.rewards.remote import RemoteReward, Scored

ChatOutput = Literal["normalized", "probability", "log_probability"]

_UNKNOWN = -9999.0  # what OpenAI's API gives in place of a log probability that it does not tell
_TOLERANCE = 1e-3  # services round probabilities


class ChatReward(RemoteReward):
    """`P(yes) / (P(yes) + P(no))` of a vision-language model that is asked about the image.

    It speaks `POST /chat/completions` with log probabilities, as vLLM, SGLang and OpenAI serve it: one call a sample,
    of one new token. The probabilities are those of the first token of the answer, summed over its spellings
    (case and spaces do not count). Lin et al. 2024 (arXiv:2404.01291) score `P(yes)` alone, `output="probability"`.

    ```python
    reward = fklit.rewards.ChatReward("http://localhost:8000/v1", model="Qwen/Qwen3-VL-8B-Instruct", concurrency=8)
    ```

    A service tells the `top_logprobs` most likely tokens only. If a word that the score needs is not among them, its
    probability is unknown, and so is the score: NaN with a `RewardServiceWarning`, not 0. The same holds for calls
    that failed after their retries, and for answers without log probabilities.

    Args:
        url: The API, up to and with the version, such as "http://localhost:8000/v1".
        model: Name of the model there.
        question: What is asked; `{prompt}` stands for the prompt.
        yes: The answer that is right.
        no: The answer that is wrong.
        output: "normalized" (see above), "probability" (`P(yes)`) or "log_probability" (`log P(yes)`).
        top_logprobs: Tokens that the service tells, 1 to 20.
        body: Further entries of each request, such as `{"chat_template_kwargs": {"enable_thinking": False}}` for
            models that think first.
        concurrency: Calls at the same time.
        timeout: Seconds that one try may take.
        retries: Further tries after a failure that may pass (time-out, broken connection, 408, 425, 429, 5xx).
        backoff: Seconds before the first of them, doubled each time, with jitter.
        max_calls: Most calls, retries included; one more raises. None for no limit.
        price_per_call: What a call costs, for `max_cost` and `cost`.
        max_cost: Most that all calls may cost; one more raises. None for no limit.
        api_key_env: Name of the environment variable with the key, which is sent as a bearer token and written nowhere.
        suggested_scale: A `reward_scale` to start from, for the record.

    Raises:
        ValueError: An argument is out of range, or `question` does not hold `{prompt}`.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        question: str = "Does this image show {prompt}? Answer Yes or No.",
        yes: str = "Yes",
        no: str = "No",
        output: ChatOutput = "normalized",
        top_logprobs: int = 20,
        body: Mapping[str, Any] | None = None,
        concurrency: int = 4,
        timeout: float = 120.0,
        retries: int = 4,
        backoff: float = 1.0,
        max_calls: int | None = None,
        price_per_call: float = 0.0,
        max_cost: float | None = None,
        api_key_env: str | None = None,
        suggested_scale: float | None = None,
    ) -> None:
        check_choice("output", output, ("normalized", "probability", "log_probability"))
        client = HttpClient(
            url.rstrip("/").removesuffix("/chat/completions"),
            name=f"ChatReward({model})",
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            max_calls=max_calls,
            price_per_call=price_per_call,
            max_cost=max_cost,
            api_key_env=api_key_env,
        )
        super().__init__(
            client,
            max_batch=1,
            concurrency=concurrency,
            typical_range=None if output == "log_probability" else (0.0, 1.0),
            suggested_scale=suggested_scale,
        )
        if "{prompt}" not in question:
            raise ValueError(
                f"expected a question with {{prompt}} in it, got {question!r}; put it where the prompt goes."
            )
        if _word(yes) == _word(no) or not _word(yes) or not _word(no):
            raise ValueError(f"expected two different words, got yes={yes!r} and no={no!r}; change one.")
        if check_count("top_logprobs", top_logprobs) > 20:
            raise ValueError(f"expected top_logprobs of 1 to 20, got {top_logprobs}; services tell no more.")
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected a body of texts and numbers, got another ({error}); change it.") from None
        self.model = model
        self.question = question
        self.yes, self.no = yes, no
        self.output: ChatOutput = output
        self.top_logprobs = top_logprobs
        self.body = dict(body or {})

    @property
    def display_name(self) -> str:
        """The model's name."""
        return f"ChatReward({self.model})"

    def settings(self) -> dict[str, Any]:
        """What the scores depend on, for the record: not how calls are made."""
        names = ("model", "question", "yes", "no", "output", "top_logprobs", "body")
        asked = {name: getattr(self, name) for name in names}
        return {"class": "fklit.rewards.ChatReward", "url": self.client.url, **asked}

    def ask(self, images: Tensor, prompts: Sequence[str], metadata: Metadata) -> list[Scored]:
        """One call for one image; see the class."""
        (image,), (prompt,) = images, prompts
        address = f"data:image/png;base64,{to_png_base64(image)}"
        content = [
            {"type": "image_url", "image_url": {"url": address}},
            {"type": "text", "text": self.question.replace("{prompt}", prompt)},
        ]
        answer = self.client.post(
            "/chat/completions",
            {
                "model": self.model,
                "messages": [{"role": "user", "content": content}],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": self.top_logprobs,
                **self.body,
            },
        )
        if isinstance(answer, NoAnswer):
            return [(math.nan, answer.reason)]
        return [self._read(answer)]

    def _read(self, answer: Any) -> Scored:
        try:
            tokens = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            known = [(_word(entry["token"]), entry["logprob"]) for entry in tokens]
        except (KeyError, IndexError, TypeError, AttributeError):
            return math.nan, "an answer without log probabilities of its first token"
        # Of null, text and NaN no probability can be made; of tokens that do not count none is needed.
        yes, no = (self._probability(known, word) for word in (self.yes, self.no))
        for word, probability in ((self.yes, yes), (self.no, no)):
            if probability is None and (word == self.yes or self.output == "normalized"):
                told = ", ".join(f"{token!r}" for token, _ in known[:5])
                return math.nan, f"no probability of {word!r} (among the most likely words: {told})"
        assert yes is not None
        if self.output == "log_probability":
            return math.log(yes), None
        if self.output == "probability":
            return yes, None
        assert no is not None
        return yes / (yes + no), None

    @staticmethod
    def _probability(known: Sequence[tuple[str, Any]], word: str) -> float | None:
        """Sum over the spellings of a word; None if there is none, or if one of them is no probability."""
        total = 0.0
        for token, value in known:
            if token != _word(word):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _TOLERANCE:
                return None
            total += math.exp(value) if value > _UNKNOWN else 0.0
        return min(total, 1.0) if 0 < total <= 1 + 2 * _TOLERANCE else None


def _word(token: str) -> str:
    return token.strip().lower()

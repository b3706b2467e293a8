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
        yes: The answer that is right; in YAML in quotes, as a bare Yes is true there.
        no: The answer that is wrong, likewise.
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
        told = self._told(images[0], self.question.replace("{prompt}", prompts[0]))
        if isinstance(told, NoAnswer):
            return [(math.nan, told.reason)]
        yes, no = self._probability(told, [self.yes]), self._probability(told, [self.no])
        if yes is None:
            return [(math.nan, _missing(told, self.yes))]
        if self.output == "log_probability":
            return [(math.log(yes), None)]
        if self.output == "probability":
            return [(yes, None)]
        return [(math.nan, _missing(told, self.no)) if no is None else (yes / (yes + no), None)]

    def answer_log_probability(
        self, images: Tensor, questions: Sequence[str], answers: Sequence[Sequence[str]]
    ) -> Tensor:
        """Return the log probability of answers to questions of one's own, (n,), one call each; for `SoftTIFA`.

        Args:
            images: One a question, (n, C, H, W) in [0, 1].
            questions: n texts.
            answers: What counts as right, n lists of words.
        """

        def ask(rows: list[int]) -> list[Scored]:
            told = self._told(images[rows[0]].detach().cpu(), questions[rows[0]])
            if isinstance(told, NoAnswer):
                return [(math.nan, told.reason)]
            found = self._probability(told, answers[rows[0]])
            return [(math.nan, _missing(told, answers[rows[0]][0])) if found is None else (math.log(found), None)]

        return self._collected(images, ask)

    def _told(self, image: Tensor, question: str) -> list[tuple[str, Any]] | NoAnswer:
        """The most likely first words of the answer, with what the service gives as their log probabilities."""
        address = f"data:image/png;base64,{to_png_base64(image)}"
        content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": question}]
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
            return answer
        try:
            tokens = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return [(_word(entry["token"]), entry["logprob"]) for entry in tokens]
        except (KeyError, IndexError, TypeError, AttributeError):
            return NoAnswer("an answer without log probabilities of its first token")

    @staticmethod
    def _probability(told: Sequence[tuple[str, Any]], words: Sequence[str]) -> float | None:
        """Sum over the spellings of some words; None if there is none, or if one of them is no probability."""
        total, wanted = 0.0, {_word(word) for word in words}
        for token, value in told:
            if token not in wanted:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _TOLERANCE:
                return None
            total += math.exp(value) if value > _UNKNOWN else 0.0
        return min(total, 1.0) if 0 < total <= 1 + 2 * _TOLERANCE else None


def _missing(told: Sequence[tuple[str, Any]], word: str) -> str:
    likely = ", ".join(f"{token!r}" for token, _ in told[:5])
    return f"no probability of {word!r} (among the most likely words: {likely})"


def _word(token: str) -> str:
    return token.strip().lower()

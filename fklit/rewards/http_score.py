"""Rewards of a service that speaks `POST /score`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fklit.rewards.base import Metadata, RewardError
from fklit.rewards.http_client import HttpClient, NoAnswer
from fklit.rewards.pixels import to_png_base64
from fklit.rewards.remote import RemoteReward, Scored, as_score, first_line, plain_metadata


class HTTPReward(RemoteReward):
    """A reward that another process or machine computes, asked by `POST /score`.

    So a reward can have an environment and a GPU of its own. `fklit serve-reward` serves any reward of fklit in this
    way, and services of others (UniRL's reward service, with HPSv3, UnifiedReward, PickScore and more) speak the same:

    ```python
    reward = fklit.rewards.HTTPReward("http://localhost:8080", "hpsv3", max_batch=16)
    ```

    A call sends `{"requests": [{"history": [{"text", "image_b64"}], "required_rewards": [reward], "metadata"}]}` and
    expects `{"results": [{reward: {metric: number}}], "errors": [{reward: text}]}`, one of each a request; a bare
    number in place of `{metric: number}` is understood, too. A sample with an error, with null, NaN, infinity or text
    for a score gets NaN and a `RewardServiceWarning`; so do all samples of a call that failed after its retries, or
    whose answer has another number of results. 4xx (but 408, 425 and 429, which are tried again) raises at once.

    Args:
        url: Where the service is, such as "http://localhost:8080".
        reward: Name of the reward there (`GET /rewards` lists them; it is asked once, before the first call).
        metric: Which of the reward's numbers counts; None if it has one only.
        metadata_keys: What of a prompt's metadata is sent; None for all of it, an empty list for nothing.
        max_batch: Most samples a call; None for no limit.
        concurrency: Calls at the same time.
        timeout: Seconds that one try may take.
        retries: Further tries after a failure that may pass (time-out, broken connection, 408, 425, 429, 5xx).
        backoff: Seconds before the first of them, doubled each time, with jitter.
        max_calls: Most calls, retries included; one more raises. None for no limit.
        price_per_call: What a call costs, for `max_cost` and `cost`.
        max_cost: Most that all calls may cost; one more raises. None for no limit.
        api_key_env: Name of the environment variable with the key, which is sent as a bearer token and written nowhere.
        typical_range: Range of the scores, for the record.
        suggested_scale: A `reward_scale` to start from, for the record.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        url: str,
        reward: str,
        *,
        metric: str | None = None,
        metadata_keys: Sequence[str] | None = None,
        max_batch: int | None = 32,
        concurrency: int = 1,
        timeout: float = 120.0,
        retries: int = 4,
        backoff: float = 1.0,
        max_calls: int | None = None,
        price_per_call: float = 0.0,
        max_cost: float | None = None,
        api_key_env: str | None = None,
        typical_range: tuple[float, float] | None = None,
        suggested_scale: float | None = None,
    ) -> None:
        client = HttpClient(
            url.rstrip("/").removesuffix("/score"),
            name=f"HTTPReward({reward})",
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
            max_batch=max_batch,
            concurrency=concurrency,
            typical_range=typical_range,
            suggested_scale=suggested_scale,
        )
        if not reward:
            raise ValueError(
                "expected the name of a reward, got an empty text; `GET /rewards` of the service lists them."
            )
        self.reward = reward
        self.metric = metric
        self.metadata_keys = metadata_keys

    @property
    def display_name(self) -> str:
        """The reward's name at the service."""
        return f"HTTPReward({self.reward})"

    def settings(self) -> dict[str, Any]:
        """What the scores depend on, for the record: not how calls are made."""
        asked = {"reward": self.reward, "metric": self.metric, "metadata_keys": self.metadata_keys}
        return {"class": "fklit.rewards.HTTPReward", "url": self.client.url, **asked}

    def build(self) -> None:
        """Asks the service for its rewards, so that a wrong name or address is known before anything is sampled.

        Raises:
            RewardError: The service cannot be reached, or serves no reward of this name.
        """
        answer = self.client.get("/rewards")
        if isinstance(answer, NoAnswer):
            if answer.reason.startswith("status 404"):  # a service without a list: the first call will tell
                return
            raise RewardError(
                f"{self.display_name} expected a service at {self.client.url}, got {answer.reason}; start it, or fix "
                "the url."
            )
        served = answer.get("rewards") if isinstance(answer, Mapping) else None
        if isinstance(served, Mapping | list) and self.reward not in served:
            raise RewardError(
                f"expected a reward that {self.client.url} serves ({', '.join(map(str, served))}), got "
                f"{self.reward!r}; name one of them."
            )

    def ask(self, images: Tensor, prompts: Sequence[str], metadata: Metadata) -> list[Scored]:
        """One call; see the class."""
        requests = [
            {
                "history": [{"text": prompt, "image_b64": to_png_base64(image)}],
                "required_rewards": [self.reward],
                "metadata": self._sent(item),
            }
            for image, prompt, item in zip(images, prompts, metadata, strict=True)
        ]
        answer = self.client.post("/score", {"requests": requests})
        results = answer.get("results") if isinstance(answer, Mapping) else None
        errors = answer.get("errors") if isinstance(answer, Mapping) else None
        reason = None
        if isinstance(answer, NoAnswer):
            reason = answer.reason
        elif not isinstance(results, list):
            reason = "an answer without a list of results"
        elif len(results) != len(requests):
            reason = f"{len(results)} results for {len(requests)} requests"
        elif errors and (not isinstance(errors, list) or len(errors) != len(requests)):
            reason = "errors that are not one a request"
        if reason is not None or not isinstance(results, list):
            return [(float("nan"), reason)] * len(requests)
        return [
            self._read(result, error) for result, error in zip(results, errors or [None] * len(results), strict=True)
        ]

    def _read(self, result: Any, error: Any) -> Scored:
        failed = error.get(self.reward) if isinstance(error, Mapping) else error
        if failed:
            return float("nan"), f"the error {first_line(failed)!r}"
        metrics = result.get(self.reward) if isinstance(result, Mapping) else None
        if not isinstance(metrics, Mapping):
            return as_score(metrics, f"the score of {self.reward}")
        if self.metric is None and len(metrics) > 1:
            raise RewardError(
                f"{self.display_name} expected metric, as the service gives {', '.join(map(str, metrics))}, got None; "
                "name the one that counts."
            )
        if self.metric is not None and self.metric not in metrics and metrics:
            raise RewardError(
                f"{self.display_name} expected a metric among {', '.join(map(str, metrics))}, got {self.metric!r}; "
                "name one of them."
            )
        name = self.metric if self.metric is not None else next(iter(metrics), None)
        return as_score(None if name is None else metrics.get(name), f"the score of {self.reward}")

    def _sent(self, item: Mapping[str, Any]) -> dict[str, Any]:
        chosen = plain_metadata(item, self.metadata_keys)
        for key, value in chosen.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise RewardError(
                    f"{self.display_name} expected metadata of texts and numbers, got {type(value).__name__} under "
                    f"{key!r} ({error}); choose what is sent by metadata_keys."
                ) from None
        return chosen

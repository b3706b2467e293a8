"""Perplexity of texts under a language model that did not guide them."""

from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.metrics.prompt_metric import OnNan, PromptMetric
from fklit.metrics.samples import SampleBatch
from fklit.metrics.texts import chosen_texts
from fklit.rewards.language_model_likelihood import LanguageModelLikelihood
from fklit.rewards.vision_language import WeightType


class TextPerplexity(PromptMetric):
    """Perplexity of the chosen texts under any causal language model of transformers: mean over texts, and over tokens.

    The headline is the mean over texts of each text's perplexity, `exp(-mean log p)` over its scored tokens, which a
    few odd texts can dominate. `token_level` is `exp` of minus the mean log probability of all tokens of all texts.
    Which tokens are scored is said in `fklit.rewards.LanguageModelLikelihood`. No text is dropped: one without a
    scored token, such as an empty one, is an error by name, or counted in `omitted` with `on_nan="omit"`.

    A model that also guides does not measure what was gained by steering.

    ```yaml
    perplexity: {class_path: TextPerplexity, init_args: {model_name: gpt2-xl, given_prompt: true, max_tokens: 50}}
    ```

    Args:
        model_name: As in `LanguageModelLikelihood`.
        given_prompt: Whether to score only what follows the prompt, given the prompt.
        max_tokens: Score so many tokens at most, the first ones; None for all.
        add_bos: Whether a text begins with the tokenizer's BOS token; None leaves it to the tokenizer.
        dtype: Precision of the weights, "auto" for that of the checkpoint.
        revision: Branch, tag or commit at the hub; None for the newest.
        cache_dir: Where downloads are kept; None for the default.
        max_batch: Most texts at once; None for no limit.
        by: As in `PromptMetric`.
        on_nan: As in `PromptMetric`.
    """

    higher_is_better = False
    needs_prompts = True
    of_chosen = True
    accepts = "text"
    num_values = 3  # perplexity; sum of log probabilities in nats; number of tokens

    def __init__(
        self,
        model_name: str,
        *,
        given_prompt: bool = False,
        max_tokens: int | None = None,
        add_bos: bool | None = None,
        dtype: WeightType = "float32",
        revision: str | None = None,
        cache_dir: str | None = None,
        max_batch: int | None = 64,
        by: str | None = None,
        on_nan: OnNan = "error",
    ) -> None:
        super().__init__(by=by, on_nan=on_nan)
        self._reward = LanguageModelLikelihood(
            model_name,
            given_prompt=given_prompt,
            max_tokens=max_tokens,
            add_bos=add_bos,
            empty="nan",
            dtype=dtype,
            revision=revision,
            cache_dir=cache_dir,
            max_batch=max_batch,
        )

    @property
    def reward(self) -> LanguageModelLikelihood:
        """The judge."""
        return self._reward

    def load(self) -> None:
        """Loads the judge."""
        self._reward.load()

    def values(self, samples: Tensor, batch: SampleBatch) -> Float64[Tensor, "b 3"]:
        """Perplexity, sum of log probabilities and number of tokens of each chosen text; NaN without a token."""
        logs = self._reward.token_log_probabilities(chosen_texts(samples, batch), list(batch.prompts))
        rows = [[float((-text.mean()).exp()), float(text.sum()), float(len(text))] for text in logs]
        return torch.tensor(rows, dtype=torch.float64)

    def compute(self) -> dict[str, Tensor]:
        """The mean over texts, `token_level`, and what `PromptMetric.compute` adds; NaN without texts."""
        found: Any = super().compute()
        rows, _ = self.table()
        total, tokens = rows[:, 1].nansum(), rows[:, 2].nansum()
        named = found if isinstance(found, dict) else {"mean": found}
        return {**named, "token_level": (-total / tokens).exp()}

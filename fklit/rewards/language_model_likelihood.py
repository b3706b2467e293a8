"""How likely a text is under a causal language model."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.assets import shipped
from fklit.checks import check_choice, check_count
from fklit.rewards.causal_network import CausalNetwork
from fklit.rewards.text_reward import OnEmpty, TextReward
from fklit.rewards.vision_language import WeightType

LikelihoodOutput = Literal["mean", "sum", "negative_perplexity"]
_RANGES: dict[str, tuple[tuple[float, float] | None, float | None]] = {
    "mean": ((-8.0, -2.0), 7.0),
    "sum": (None, 1.0),
    "negative_perplexity": ((-1000.0, -10.0), None),
}


class LanguageModelLikelihood(TextReward):
    """Log-likelihood of a text under any causal language model of transformers: fluency, in nats a token.

    `mean_i log p(token_i | tokens before)` over the scored tokens; their sum with `output="sum"`, or minus the
    perplexity, `-exp(-mean)`, with `output="negative_perplexity"`. With the sum and `reward_scale` 1, steering samples
    from the product of both models, up to a factor.

    The FK steering paper (Singhal et al. 2025, arXiv:2501.06848) guides by the mean under GPT-2 at a scale of 10 of
    units of its own: its code multiplies nats by log 2, so that the scale here is 6.93, hence the suggestion of 7.

    ```python
    LanguageModelLikelihood("gpt2", given_prompt=True, max_tokens=50)
    LanguageModelLikelihood("fklit:text_guide")
    ```

    **Which tokens are scored.** All of the text, each given those before it; of a text of spaces alone none. What the
    tokenizer puts in front (BOS) is context and has no score, and nothing that it puts behind is used. Where nothing
    precedes the first token, as with GPT-2, whose tokenizer adds no BOS, that token has no score either; `add_bos=True`
    gives it one. With `given_prompt` the tokens of the prompt are context, and what follows is scored: a sample that
    begins with its prompt, apart from spaces and case, is split there, and any other is taken as what follows it.

    Words that the tokenizer does not know, and texts longer than the model takes, are refused by name: the likelihood
    of a stand-in, or of a part, would be another number. Gradients do not reach texts.

    Args:
        model_name: "owner/name" of the hub, a local folder in the format of transformers, or "fklit:text_guide".
        output: "mean", "sum" or "negative_perplexity", see above.
        given_prompt: Whether to score only what follows the prompt, given the prompt.
        max_tokens: Score so many tokens at most, the first ones; None for all.
        add_bos: Whether a text begins with the tokenizer's BOS token; None leaves it to the tokenizer.
        empty: What a text without a scored token is (see above): "error" refuses it by name, "nan" scores it NaN, for
            the method's `on_nan`.
        dtype: Precision of the weights, "auto" for that of the checkpoint. `.half()`, `.bfloat16()` and `.double()`
            win.
        revision: Branch, tag or commit at the hub; None for the newest.
        cache_dir: Where downloads are kept; None for the default.
        max_batch: Most texts at once; None for no limit.
        pad: Fill micro-batches, see `Reward`: here one for each length, in steps of 16 tokens.

    Raises:
        ValueError: An argument is none of those allowed.
    """

    network: CausalNetwork

    def __init__(
        self,
        model_name: str,
        *,
        output: LikelihoodOutput = "mean",
        given_prompt: bool = False,
        max_tokens: int | None = None,
        add_bos: bool | None = None,
        empty: OnEmpty = "error",
        dtype: WeightType = "float32",
        revision: str | None = None,
        cache_dir: str | None = None,
        max_batch: int | None = 64,
        pad: bool = False,
    ) -> None:
        super().__init__(empty=empty, max_batch=max_batch, pad=pad)
        check_choice("output", output, ("mean", "sum", "negative_perplexity"))
        check_choice("dtype", dtype, ("auto", "float32", "bfloat16", "float16"))
        self.model_name = model_name
        self.output: LikelihoodOutput = output
        self.given_prompt = given_prompt
        self.needs_prompts = given_prompt  # type: ignore[misc]  # of this one
        self.max_tokens = None if max_tokens is None else check_count("max_tokens", max_tokens)
        self.add_bos = add_bos
        self.dtype: WeightType = dtype
        self.revision = revision
        self.cache_dir = cache_dir
        self.typical_range, self.suggested_scale = _RANGES[output]

    def build(self) -> None:
        """Loads the model and its tokenizer.

        Raises:
            OSError: There is no such model, or it could not be downloaded.
            ValueError: It is no causal language model, or model and tokenizer do not fit.
        """
        self.network = CausalNetwork(
            str(shipped(self.model_name) or self.model_name),
            owner=type(self).__name__,
            dtype=self.dtype,
            add_bos=self.add_bos,
            revision=self.revision,
            cache_dir=self.cache_dir,
        )

    def token_log_probabilities(self, texts: list[str], prompts: list[str]) -> list[Tensor]:
        """`log p` in nats of each scored token, a tensor of float64 on the CPU a text; empty without a scored token.

        Args:
            texts: n texts.
            prompts: n prompts, of use with `given_prompt` only.
        """
        self.load()
        given = prompts if self.given_prompt else [None] * len(texts)
        rows = [
            self.network.encode(text, prompt, max_tokens=self.max_tokens)
            for text, prompt in zip(texts, given, strict=True)
        ]
        scored = [number for number, (tokens, start) in enumerate(rows) if len(tokens) > start]
        found = [torch.zeros(0, dtype=torch.float64)] * len(rows)
        size = self.max_batch or max(len(scored), 1)
        for some in (scored[first : first + size] for first in range(0, len(scored), size)):
            logs = self.network.log_probabilities([rows[row] for row in some], fill=size if self.pad else None)
            for row, values in zip(some, logs, strict=True):
                found[row] = values.cpu().double()
        return found

    def score_texts(self, texts: list[str], prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        """The likelihood (n,), float64; NaN where no token is scored.

        Raises:
            RewardError: No token of a text is scored, and `empty` is "error"; or see the class.
        """
        with torch.no_grad():
            logs = self.token_log_probabilities(texts, prompts)
        for text, values in zip(texts, logs, strict=True):
            if not len(values):
                self.refuse_empty(text, "a text with a token that others precede")
        total = torch.stack([values.sum() for values in logs])
        counts = torch.tensor([len(values) for values in logs], dtype=torch.float64)
        total = total.masked_fill(counts == 0, torch.nan)
        if self.output == "sum":
            return total
        mean = total / counts
        return mean if self.output == "mean" else -(-mean).exp()

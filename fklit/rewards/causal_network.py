"""Log probabilities of tokens under a causal language model of transformers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fklit.rewards.base import RewardError
from fklit.rewards.continuation import split_prompt
from fklit.rewards.pretrained import load_part, load_pretrained
from fklit.rewards.token_rows import TokenBatch, by_rows, token_batches
from fklit.rewards.vision_language import WeightType


class CausalNetwork(nn.Module):
    """A causal language model with its tokenizer.

    Args:
        source: "owner/name" of the hub, or a local folder.
        owner: The reward that asks, for messages.
        dtype: Precision of the weights; "auto" for that of the checkpoint.
        add_bos: Whether a text begins with the tokenizer's BOS token; None leaves it to the tokenizer.
        revision: Branch, tag or commit at the hub; None for the newest.
        cache_dir: Where downloads are kept; None for the default.

    Raises:
        OSError: It could not be loaded.
        ValueError: It is no causal language model, or the tokenizer has no BOS token to add or gives no offsets.
    """

    def __init__(
        self,
        source: str,
        *,
        owner: str,
        dtype: WeightType = "float32",
        add_bos: bool | None = None,
        revision: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        from transformers import AutoModelForCausalLM, AutoTokenizer

        where: dict[str, Any] = {"owner": owner, "cache_dir": cache_dir, "revision": revision}
        self.tokenizer: Any = load_part(AutoTokenizer, source, **where)
        self.owner, self.source, self.add_bos = owner, source, add_bos
        if not self.tokenizer.is_fast:
            raise ValueError(
                f"{owner} expected a tokenizer that tells where in the text its tokens are, got "
                f"{type(self.tokenizer).__name__} of {source}; save it as tokenizer.json."
            )
        if add_bos and self.tokenizer.bos_token_id is None:
            raise ValueError(f"{owner} expected a BOS token with add_bos=True, got none in {source}; omit add_bos.")
        self.network = load_pretrained(AutoModelForCausalLM, source, dtype=_weight_type(dtype), **where)
        size = self.network.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > size:
            raise ValueError(
                f"{owner} expected a tokenizer of at most {size} tokens, as the model of {source} has, got "
                f"{len(self.tokenizer)}; give the folder of one model."
            )

    def encode(self, text: str, prompt: str | None = None, *, max_tokens: int | None = None) -> tuple[list[int], int]:
        """The tokens of a text and how many of them, at the beginning, are context only.

        Args:
            text: The text.
            prompt: What it was made from, if only what follows is to be scored; None scores the whole text.
            max_tokens: So many tokens after the context at most; None for all.

        Returns:
            Tokens, and the number of them that have no score, which are those of the prompt and BOS, or the first token
            if nothing precedes it.

        Raises:
            RewardError: The tokenizer does not know a word of it.
        """
        whole, end = (text, 0) if prompt is None else split_prompt(text, prompt)
        found = self.tokenizer(
            whole, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False, truncation=False
        )
        ids, added, spans = found.input_ids, found.special_tokens_mask, found.offset_mapping
        first, last = _own(added)
        context = ids[:first]
        if self.add_bos is not None:
            context = [self.tokenizer.bos_token_id] if self.add_bos else []
        own, places = ids[first:last], spans[first:last]
        self._check_known(own, places, whole)
        # A token that begins in the prompt and ends behind it belongs to what follows.
        given = next((number for number, (_, stop) in enumerate(places) if stop > end), len(own))
        given = given if whole[end:].strip() else len(own)  # spaces alone are nothing to score
        scored_from = len(context) + given
        tokens = [*context, *own]
        scored_from = max(scored_from, 1)  # a first token that nothing precedes has no probability given the past
        return (tokens if max_tokens is None else tokens[: scored_from + max_tokens]), scored_from

    def _check_known(self, ids: Sequence[int], places: Sequence[tuple[int, int]], text: str) -> None:
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown == self.tokenizer.bos_token_id or unknown not in ids:
            return  # a tokenizer of bytes has no unknown words, whatever its special token is called
        start, stop = places[list(ids).index(unknown)]
        raise RewardError(
            f"{self.owner} expected words that the tokenizer of {self.source} knows, got {text[start:stop]!r} in "
            f"{text!r}; use a model whose tokenizer has bytes or parts of words."
        )

    @property
    def limit(self) -> int | None:
        """Most tokens that the network takes, if its configuration says so."""
        limit = getattr(self.network.config, "max_position_embeddings", None)
        return int(limit) if isinstance(limit, int) and limit > 0 else None

    def log_probabilities(
        self, rows: Sequence[tuple[list[int], int]], *, fill: int | None = None
    ) -> list[Float[Tensor, " scored"]]:
        """`log p(token | all before it)` in nats of each scored token, float32 or float64.

        Args:
            rows: From `encode`; each has a scored token.
            fill: As in `token_batches`.

        Raises:
            RewardError: A row is longer than the network takes.
        """
        ids, limit = [tokens for tokens, _ in rows], self.limit
        longest = max(map(len, ids))
        if limit is not None and longest > limit:
            raise RewardError(
                f"{self.owner} expected texts of at most {limit} tokens, which {self.source} takes, got {longest}; set "
                "max_tokens to score the beginning of texts."
            )
        # No token that the network sees attends to the padding on its right, so any token will do.
        batches = token_batches(ids, pad=0, limit=limit, fill=fill)
        found = by_rows(batches, len(ids), self._of_batch)
        return [logs[start - 1 : len(tokens) - 1] for logs, (tokens, start) in zip(found, rows, strict=True)]

    def _of_batch(self, batch: TokenBatch) -> Float[Tensor, "m l-1"]:
        device = next(self.network.parameters()).device
        tokens = batch.tokens.to(device)
        logits: Tensor = self.network(input_ids=tokens, attention_mask=batch.mask.to(device), use_cache=False).logits
        logits = logits if logits.dtype == torch.float64 else logits.float()
        # The logits at a place are of the next token; there is none after the last. Flat, since softmax over another
        # dimension than the last is several times slower.
        following = tokens.roll(-1, dims=1)
        losses = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
        return -losses.view(tokens.shape)[:, :-1]


def _own(added: Sequence[int]) -> tuple[int, int]:
    """Bounds of the text's own tokens among those that the tokenizer put around it."""
    first = next((number for number, special in enumerate(added) if not special), len(added))
    after = next((number for number, special in enumerate(reversed(added)) if not special), len(added) - first)
    return first, len(added) - after


def _weight_type(dtype: WeightType) -> Any:
    return dtype if dtype == "auto" else getattr(torch, dtype)

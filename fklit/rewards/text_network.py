"""Classifiers of texts with named labels, from transformers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fklit.rewards.base import RewardError
from fklit.rewards.pretrained import load_part, load_pretrained
from fklit.rewards.token_rows import TokenBatch, by_rows, token_batches
from fklit.rewards.vision_language import WeightType


class TextNetwork(nn.Module):
    """A network that gives a logit for each of its labels, with its tokenizer.

    Args:
        source: "owner/name" of the hub, or a local folder.
        owner: The reward that asks, for messages.
        multi_label: Whether labels are independent (a sigmoid each) instead of exclusive (one softmax); None to take
            it from the model's configuration.
        dtype: Precision of the weights; "auto" for that of the checkpoint.
        revision: Branch, tag or commit at the hub; None for the newest.
        cache_dir: Where downloads are kept; None for the default.

    Attributes:
        labels: Names by number.
        multi_label: Whether labels are independent.

    Raises:
        OSError: It could not be loaded.
        ValueError: It is no classifier.
    """

    def __init__(
        self,
        source: str,
        *,
        owner: str,
        multi_label: bool | None = None,
        dtype: WeightType = "float32",
        revision: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        where: dict[str, Any] = {"owner": owner, "cache_dir": cache_dir, "revision": revision}
        self.tokenizer: Any = load_part(AutoTokenizer, source, **where)
        weights = dtype if dtype == "auto" else getattr(torch, dtype)
        self.network = load_pretrained(AutoModelForSequenceClassification, source, dtype=weights, **where)
        config = self.network.config
        self.owner, self.source = owner, source
        named: dict[int, str] = config.id2label
        self.labels = tuple(named[number] for number in range(len(named)))
        kind = config.problem_type
        self.multi_label = kind == "multi_label_classification" if multi_label is None else multi_label
        if kind == "regression" or (len(named) < 2 and not self.multi_label):
            raise ValueError(
                f"{owner} expected a classifier, got {source}, which has {len(named)} label(s) and the problem type "
                f"{kind!r}; choose another model, or set multi_label=True if its labels have a sigmoid each."
            )
        size = self.network.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > size:
            raise ValueError(
                f"{owner} expected a tokenizer of at most {size} tokens, as the model of {source} has, got "
                f"{len(self.tokenizer)}; give the folder of one model."
            )

    @property
    def limit(self) -> int | None:
        """Most tokens of a text, with those that the tokenizer adds, as tokenizer and configuration say."""
        limits = [self.tokenizer.model_max_length, getattr(self.network.config, "max_position_embeddings", None)]
        known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 10**9]
        return min(known, default=None)

    def log_probabilities(
        self, texts: Sequence[str], *, max_tokens: int | None = None, fill: int | None = None
    ) -> tuple[Float[Tensor, "n labels"], Float[Tensor, "n labels"]]:
        """`log p` of each label, and `log(1 - p)`, in float32 or float64, at most 0.

        Both come from the logits, so that they stay exact where they are tiny.

        Args:
            texts: n texts.
            max_tokens: Read the first so many tokens, with those that the tokenizer adds; None for all.
            fill: As in `token_batches`.

        Raises:
            RewardError: A text is longer than the network takes.
        """
        cut = {"truncation": False} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False, **cut).input_ids
        limit, longest = self.limit, max(map(len, ids))
        if limit is not None and longest > limit:
            raise RewardError(
                f"{self.owner} expected texts of at most {limit} tokens, which {self.source} takes, got {longest}; set "
                f"max_tokens={limit} to read the beginning of texts."
            )
        # By it the network knows where a text ends; without one, as in some causal models, texts go one by one.
        pad = self.network.config.pad_token_id
        found = torch.stack(by_rows(token_batches(ids, pad=pad, limit=limit, fill=fill), len(ids), self._logits))
        if self.multi_label:
            return F.logsigmoid(found), F.logsigmoid(-found)
        logs = found.log_softmax(-1)
        others = torch.stack([_without(logs, number).logsumexp(-1) for number in range(found.shape[1])], dim=1)
        return logs, others.clamp(max=0)  # which rounding may exceed

    def _logits(self, batch: TokenBatch) -> Float[Tensor, "m labels"]:
        device = next(self.network.parameters()).device
        given = {"input_ids": batch.tokens.to(device), "attention_mask": batch.mask.to(device)}
        logits: Tensor = self.network(**given).logits
        return logits if logits.dtype == torch.float64 else logits.float()


def _without(logs: Tensor, number: int) -> Tensor:
    return torch.cat([logs[:, :number], logs[:, number + 1 :]], dim=1)

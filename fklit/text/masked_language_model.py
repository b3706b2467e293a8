"""Any masked language model of transformers (BERT, ModernBERT, ESM, ...) as a denoiser."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class MaskedLanguageModel(nn.Module):
    """Predicts masked tokens with a model of transformers that has a head for them.

    Args:
        model: Such as `AutoModelForMaskedLM` gives.
        before: Ids that every text begins with, such as that of `[CLS]`.
        after: Ids that every text ends with, such as that of `[SEP]`.

    Raises:
        ValueError: Texts are longer than the model takes (in `forward`).
    """

    def __init__(self, model: Any, *, before: Sequence[int] = (), after: Sequence[int] = ()) -> None:
        super().__init__()
        self.model = model
        self.before, self.after = tuple(before), tuple(after)

    @property
    def vocab_size(self) -> int:
        """Tokens that the model can read."""
        return int(self.model.get_input_embeddings().num_embeddings)

    def forward(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Logits (m, v) of the positions `tokens[at]`.

        Args:
            tokens: (n, l) without what every text begins and ends with.
            at: (n, l) bool.
        """
        number, length = tokens.shape
        limit = getattr(self.model.config, "max_position_embeddings", None)
        around = len(self.before) + len(self.after)
        if isinstance(limit, int) and 0 < limit < length + around:
            raise ValueError(
                f"expected texts of at most {limit - around} tokens, which {type(self.model).__name__} takes beside "
                f"{around} around them, got {length}; lower length."
            )
        ends = [torch.tensor(ids, dtype=tokens.dtype, device=tokens.device) for ids in (self.before, self.after)]
        whole = torch.cat([ends[0].expand(number, -1), tokens, ends[1].expand(number, -1)], dim=1)
        logits: Tensor = self.model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits
        return logits[:, len(self.before) : len(self.before) + length][at]


def frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that a tokenizer puts before and after every text.

    Args:
        tokenizer: Of transformers.

    Raises:
        ValueError: It has no mask.
    """
    if tokenizer.mask_token is None:
        raise ValueError(
            f"expected a tokenizer with a mask, got {type(tokenizer).__name__} without; give a masked language model."
        )
    whole, inner = tokenizer(tokenizer.mask_token).input_ids, tokenizer.mask_token_id
    place = whole.index(inner)
    return whole[:place], whole[place + 1 :]

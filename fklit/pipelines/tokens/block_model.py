"""What the adapters to block text pipelines share: blocks, clean texts and finished ones."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.categorical import draw
from fklit.feynman_kac.randomness import Generators, uniforms
from fklit.pieces import pieces
from fklit.pipelines.tokens.grouped import GroupedModel
from fklit.pipelines.tokens.rows import GroupState


@dataclass(frozen=True)
class Undecided:
    """What of the current block of a group is not decided.

    Attributes:
        rows: Of the group, with predictions that the next step uses again.
        tokens: (K, l), generated up to the block's end.
        open_: (K, l), positions of them that are not decided.
        law: Gives the log probabilities (m, V), float64, of the clean tokens there of one particle, by its slot: those
            of all would be large. None where all is decided.
    """

    rows: Any
    tokens: Int64[Tensor, "K l"]
    open_: Bool[Tensor, "K l"]
    law: Callable[[int], Float64[Tensor, "m V"]] | None = None


class BlockTextModel(GroupedModel):
    """A block text pipeline as a model that owns its steps.

    Block n takes the steps from `n * steps_per_block` on; a group whose block is complete earlier waits, which costs no
    denoiser call.

    Args:
        pipeline: Of diffusers; its scheduler is copied, not changed.
        call: All arguments of its call, with `num_draws`.
        tokenizer: Makes texts of tokens.
        eos: Id of the token that ends a text; None for none.
        num_groups: B.
        num_blocks: Most blocks of a group.
        steps_per_block: Most steps of a block.
        max_batch: Rows that the denoiser gets at once, in chunks filled up to exactly this size; None for K.

    Attributes:
        num_steps: T, blocks times steps of a block.
    """

    modality = "text"

    def __init__(
        self,
        pipeline: Any,
        call: dict[str, Any],
        *,
        tokenizer: Any,
        eos: int | None,
        num_groups: int,
        num_blocks: int,
        steps_per_block: int,
        max_batch: int | None,
    ) -> None:
        super().__init__(pipeline, num_groups=num_groups, num_draws=int(call["num_draws"]), max_batch=max_batch)
        self.call, self.tokenizer, self.eos = call, tokenizer, eos
        self.steps_per_block = steps_per_block
        self.num_steps = num_blocks * steps_per_block

    def step(
        self, state: GroupState, t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[GroupState, Float64[Tensor, "B K"]]:
        """The t-th step of every group; their importance ratio is 0."""
        block, within = divmod(t, self.steps_per_block)
        with torch.no_grad():
            groups = tuple(
                self.advance(group, rows, block, within, self._noise[group]) for group, rows in enumerate(state.groups)
            )
        return GroupState(groups, t + 1), torch.zeros(log_weights.shape, dtype=torch.float64)

    def clean_samples(self, state: GroupState, generator: Generators) -> tuple[GroupState, list[str]]:
        """N texts of each particle, whose current block is drawn from the denoiser; blocks to come are absent.

        Positions are drawn independently from the law that the scheduler draws from, at what is not decided yet; the
        text ends at its first end token.
        """
        last = max(state.steps - 1, 0)
        block, within = divmod(last, self.steps_per_block)
        groups, texts = [], []
        with torch.no_grad():
            for group, before in enumerate(state.groups):
                seen = self.undecided(group, before, block, 0 if state.steps == 0 else within + 1)
                groups.append(seen.rows)
                drawn = seen.tokens[..., None].repeat(1, 1, self.num_draws)
                if seen.law is not None:
                    counts = seen.open_.sum(dim=1).tolist()
                    points = uniforms(self._clean[group], (sum(counts), self.num_draws), device=self.device)
                    for slot, some in enumerate(torch.split(points, counts)):
                        if len(some):
                            drawn[slot, seen.open_[slot]], _ = draw(seen.law(slot), some)
                texts += self.texts(drawn.transpose(1, 2).flatten(0, 1))
        return GroupState(tuple(groups), state.steps), texts

    def finished(self, state: GroupState) -> tuple[list[str], Tensor]:
        """Texts without their prompts, and their tokens (B, K, length)."""
        tokens = torch.stack([self.tokens(rows, group) for group, rows in enumerate(state.groups)])
        return self.texts(tokens.flatten(0, 1)), tokens

    def described(self, state: GroupState) -> list[dict[str, Any]]:
        """How each text came about: its tokens as `pieces` that make up the text, and `unmasked_at`.

        That is the step that last changed each token; -1 stands for one that no step wrote.
        """
        found = []
        for group, rows in enumerate(state.groups):
            when = self.written_at(rows, group).tolist()
            for tokens, steps in zip(self.tokens(rows, group), when, strict=True):
                kept = self._until_end(tokens).tolist()
                found.append({"pieces": pieces(self.tokenizer, kept), "unmasked_at": steps[: len(kept)]})
        return found

    def texts(self, tokens: Tensor) -> list[str]:
        """Tokens (n, l) as texts, up to the first end token and without special tokens, as the pipeline decodes."""
        rows = [self._until_end(row) for row in tokens]
        decoded: list[str] = self.decoder.batch_decode(rows, skip_special_tokens=True)
        return decoded

    def _until_end(self, tokens: Tensor) -> Tensor:
        ends = [] if self.eos is None else (tokens == self.eos).nonzero().flatten().tolist()
        return tokens[: ends[0] + 1] if ends else tokens

    # What an adapter says of its pipeline.

    @property
    @abstractmethod
    def decoder(self) -> Any:
        """What the pipeline decodes with, `batch_decode`."""

    @abstractmethod
    def advance(self, group: int, rows: Any, block: int, within: int, generator: torch.Generator | None) -> Any:
        """The rows of a group after step `within` of its n-th block."""

    @abstractmethod
    def undecided(self, group: int, rows: Any, block: int, timestep: int) -> "Undecided":
        """What of a block is not decided before its step `timestep`."""

    @abstractmethod
    def tokens(self, rows: Any, group: int = 0) -> Tensor:
        """Generated tokens (K, length)."""

    @abstractmethod
    def written_at(self, rows: Any, group: int) -> Tensor:
        """The step that last changed each generated token, (K, length); -1 for none."""

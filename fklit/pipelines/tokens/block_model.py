"""What the adapters to block text pipelines share: groups side by side, draws, clean texts and finished ones."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.categorical import draw
from fklit.feynman_kac.randomness import Generators, uniforms
from fklit.pieces import pieces
from fklit.pipelines.tokens.rows import GroupState


@dataclass(frozen=True)
class Undecided:
    """What of the current block of a group is not decided.

    Attributes:
        rows: Of the group, with predictions that the next step uses again.
        tokens: (K, l), generated up to the block's end.
        open_: (K, l), positions of them that are not decided.
        log_probs: (m, V) float64 of the clean tokens there; None where all is decided.
    """

    rows: Any
    tokens: Int64[Tensor, "K l"]
    open_: Bool[Tensor, "K l"]
    log_probs: Float64[Tensor, "m V"] | None = None


class BlockTextModel(ABC):
    """A block text pipeline as a model that owns its steps (see `SteeringModel` of `fklit/steering/own_steps.py`).

    Each group is one call of the pipeline with K copies of its prompt: its steps are the scheduler's own, with the
    group's generator, so that its draws are those of that call. Block n takes the steps from `n * steps_per_block` on;
    a group whose block is complete earlier waits, which costs no denoiser call. A step's importance ratio is 0.

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
        num_draws: N.
        sampler: Name of the scheduler's class.
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
        self.pipeline, self.call, self.tokenizer, self.eos = pipeline, call, tokenizer, eos
        self.num_groups, self.steps_per_block, self.max_batch = num_groups, steps_per_block, max_batch
        self.num_steps = num_blocks * steps_per_block
        self.num_draws = int(call["num_draws"])
        self.sampler = type(pipeline.scheduler).__name__
        self.device = torch.device(pipeline._execution_device)
        self._calls = 0
        self._sources: list[torch.Generator | None] = []
        self._noise: list[torch.Generator | None] = []
        self._clean: list[torch.Generator | None] = []

    @property
    def budget(self) -> Budget:
        """What was spent since `initial`."""
        return Budget(denoiser_calls=self._calls)

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> GroupState:
        """The prompts, K times each.

        Raises:
            ValueError: There are more or fewer groups than prompts.
        """
        if num_groups != self.num_groups:
            raise ValueError(f"expected {self.num_groups} groups, one a prompt, got {num_groups}; give as many.")
        self._calls = 0
        sources: list[torch.Generator | None] = (
            [*generator] if isinstance(generator, Sequence) else [generator] * num_groups
        )
        if not _same(sources, self._sources):  # a further sweep goes on drawing where the last one stopped
            self._sources = sources
            self._noise = [self._moved(source) for source in sources]
            # Clean texts have a stream of their own: the weights must not know the noise of the steps that follow, and
            # the samples must not depend on when rewards look.
            split = {id(source): _split(source) for source in sources}
            self._clean = [split[id(source)] for source in sources]
        return GroupState(tuple(self.start(group, num_particles) for group in range(num_groups)), 0)

    def _moved(self, source: torch.Generator | None) -> torch.Generator | None:
        """A generator on the device that the pipeline draws on."""
        if source is None or source.device == self.device:
            return source
        return torch.Generator(self.device).manual_seed(source.initial_seed())

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
                if seen.log_probs is not None:
                    points = uniforms(self._clean[group], (len(seen.log_probs), self.num_draws), device=self.device)
                    drawn[seen.open_], _ = draw(seen.log_probs, points)
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

    def in_chunks(self, ask: Callable[[Tensor | None, int], Tensor], number: int) -> Tensor:
        """Ask a network about rows, at most `max_batch` at once, and count them.

        Args:
            ask: Function of the indices of rows (None for all) and of their number, that returns one entry a row.
            number: Of rows.
        """
        self._calls += number
        if self.max_batch is None:
            return ask(None, number)
        return torch.cat([ask(index, len(index))[:used] for index, used in self.chunks(number)])

    def chunks(self, number: int) -> Iterator[tuple[Tensor, int]]:
        """Indices of `max_batch` rows each, and how many of them are new: the last are copies of the last row.

        Kernels round by the size of the batch, so that all chunks have one.
        """
        assert self.max_batch is not None
        for first in range(0, number, self.max_batch):
            index = torch.arange(first, first + self.max_batch, device=self.device)
            yield index.clamp(max=number - 1), min(self.max_batch, number - first)

    # What an adapter says of its pipeline.

    @property
    @abstractmethod
    def decoder(self) -> Any:
        """What the pipeline decodes with, `batch_decode`."""

    @abstractmethod
    def start(self, group: int, num_particles: int) -> Any:
        """The rows of a group before the first step."""

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


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _split(source: torch.Generator | None) -> torch.Generator | None:
    """A generator on the CPU whose stream is independent of that of `source`, and a function of its seed."""
    if source is None:
        return None
    digest = hashlib.sha256(f"{source.initial_seed()}:clean".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))

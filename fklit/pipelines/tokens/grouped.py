"""Groups of particles side by side, each as one call of a pipeline of discrete tokens: generators, chunks, cost."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.randomness import Generators
from fklit.pipelines.tokens.arguments import TokenSettings
from fklit.pipelines.tokens.rows import GroupState


class GroupedModel(ABC):
    """A pipeline of discrete tokens as a model that owns its steps (`SteeringModel` of `fklit/steering/own_steps.py`).

    Each group is one call of the pipeline with K copies of its prompt: its steps are the scheduler's own, with the
    group's generator, so that its draws are those of that call. A step's importance ratio is 0.

    Args:
        pipeline: Of diffusers; its scheduler is copied, not changed.
        num_groups: B.
        num_draws: N, clean samples that are drawn of each particle where a reward scores on the way.
        max_batch: Rows that a network gets at once, in chunks filled up to exactly this size; None for K.
        scheduler: Whose class names the sampler; None for the pipeline's `scheduler`.

    Attributes:
        sampler: Name of the scheduler's class.
    """

    def __init__(
        self, pipeline: Any, *, num_groups: int, num_draws: int, max_batch: int | None, scheduler: Any = None
    ) -> None:
        self.pipeline, self.num_groups, self.num_draws, self.max_batch = pipeline, num_groups, num_draws, max_batch
        self.sampler = type(pipeline.scheduler if scheduler is None else scheduler).__name__
        self.device = torch.device(pipeline._execution_device)
        self._spent = Budget()
        self._sources: list[torch.Generator | None] = []
        self._noise: list[torch.Generator | None] = []
        self._clean: list[torch.Generator | None] = []

    def check(self, settings: TokenSettings) -> None:
        """Refuse settings of a run that do not fit the call; a model that has some says which."""
        return None

    @property
    def budget(self) -> Budget:
        """What was spent since `initial`."""
        return self._spent

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> GroupState:
        """The start of each group, K times.

        Raises:
            ValueError: There are more or fewer groups than prompts.
        """
        if num_groups != self.num_groups:
            raise ValueError(f"expected {self.num_groups} groups, one a prompt, got {num_groups}; give as many.")
        self._spent = Budget()
        sources: list[torch.Generator | None] = (
            [*generator] if isinstance(generator, Sequence) else [generator] * num_groups
        )
        if not _same(sources, self._sources):  # a further sweep goes on drawing where the last one stopped
            self._sources = sources
            moved = {id(source): self._moved(source) for source in sources}
            # Clean samples have a stream of their own: the weights must not know the noise of the steps that follow,
            # and the samples must not depend on when rewards look.
            split = {id(source): _split(source) for source in sources}
            self._noise = [moved[id(source)] for source in sources]
            self._clean = [split[id(source)] for source in sources]
        return GroupState(tuple(self.start(group, num_particles) for group in range(num_groups)), 0)

    @abstractmethod
    def start(self, group: int, num_particles: int) -> Any:
        """The rows of a group before the first step."""

    def _moved(self, source: torch.Generator | None) -> torch.Generator | None:
        """A generator on the device that the pipeline draws on."""
        if source is None or source.device == self.device:
            return source
        return torch.Generator(self.device).manual_seed(source.initial_seed())

    def in_chunks(self, ask: Callable[[Tensor | None, int], Tensor], number: int, cost: Budget) -> Tensor:
        """Ask a network about rows, at most `max_batch` at once, and count them.

        Args:
            ask: Function of the indices of rows (None for all) and of their number, that returns one entry a row.
            number: Of rows.
            cost: What it costs.
        """
        self._spent = self._spent + cost
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


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _split(source: torch.Generator | None) -> torch.Generator | None:
    """A generator on the CPU whose stream is independent of that of `source`, and a function of its seed."""
    if source is None:
        return None
    digest = hashlib.sha256(f"{source.initial_seed()}:clean".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))

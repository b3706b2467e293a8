"""What a benchmark of text-to-image models is: a published format of prompts, and what its scorer reads."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fklit.evaluation.sampled import SampledPrompt


class Benchmark(ABC):
    """A benchmark's published formats; subclass it for one of your own, and name that by class path in YAML.

    `PromptDataModule(format=...)` reads its prompts, `SampleWriter(evaluation=...)` writes what its scorer reads.
    Whatever the benchmark calls the kind of a prompt (task, category, style, atomicity) stands under `"tag"` of the
    metadata, for figures by tag.

    Attributes:
        name: Of the format, and of the folder that is written.
        suffixes: Endings of its files of prompts.
        column: Column or key that holds the prompt.
        unique: Key whose values must differ between prompts, since the scorer finds images by it; None for none.
        needs: Keys of a prompt's metadata without which nothing can be written.
        one_image: Whether the scorer takes one image a prompt and no more.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")
    column: ClassVar[str] = "prompt"
    unique: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, ...]] = ()
    one_image: ClassVar[bool] = False

    def files(self, path: Path) -> list[Path]:
        """The files of prompts that a path stands for, in order: itself."""
        return [path]

    @abstractmethod
    def recognizes(self, path: Path, row: Mapping[str, Any]) -> bool:
        """Whether a file looks like one of this benchmark.

        Args:
            path: The file, with one of `suffixes`.
            row: Its first entry as it stands there; a text without keys stands under `"prompt"`.
        """

    @abstractmethod
    def parse(self, row: dict[str, Any], where: str, *, path: Path, place: int) -> dict[str, Any]:
        """Check one entry and return the metadata of its prompt.

        Args:
            row: The entry, with its prompt, which is a text, under `"prompt"`.
            where: File and line, for messages.
            path: The file.
            place: Number of the entry within the file, from 0.

        Returns:
            The entry with what the scorer will need, and `"tag"` if the benchmark has one.

        Raises:
            ValueError: The entry is none of this benchmark; one line with `where`.
        """

    @abstractmethod
    def write(self, samples: Sequence[SampledPrompt], folder: Path, *, run: str) -> None:
        """Write what the scorer reads.

        Args:
            samples: The prompts with their images, in order.
            folder: An empty folder of this benchmark.
            run: Name of the run, by which scorers that compare models call it.
        """

    def check(self, metadata: Mapping[int, Mapping[str, Any]]) -> None:
        """Refuse prompts for which the scorer would find nothing.

        Args:
            metadata: Metadata of each prompt by its index.

        Raises:
            ValueError: A key of `needs` is missing, or two prompts agree in `unique`.
        """
        seen: dict[Any, int] = {}
        for index, known in metadata.items():
            missing = [key for key in self.needs if key not in known]
            if missing:
                raise ValueError(
                    f"evaluation {self.name!r} expected {missing[0]!r} in the metadata of prompt {index}, got "
                    f"{', '.join(map(repr, known)) or 'nothing'}; read the prompts with PromptDataModule(path, "
                    f"format={self.name!r})."
                )
            if self.unique is None or self.unique not in known:
                continue
            first = seen.setdefault(known[self.unique], index)
            if first != index:
                raise ValueError(
                    f"evaluation {self.name!r} expected another {self.unique!r} for each prompt, got "
                    f"{known[self.unique]!r} for prompts {first} and {index}; its scorer finds images by it: remove "
                    "one."
                )


def text_of(row: Mapping[str, Any], key: str, where: str, benchmark: str) -> str:
    """The text under a key of an entry.

    Args:
        row: The entry.
        key: The key.
        where: File and line.
        benchmark: Name of the format.

    Raises:
        ValueError: There is none, or it is empty.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: expected a text under {key!r}, as {benchmark} has it, got {value!r}; {_OTHERWISE}.")
    return value


def fault(where: str, expected: str, got: Any, benchmark: str) -> ValueError:
    """The error that refuses an entry.

    Args:
        where: File and line.
        expected: What should stand there.
        got: What does.
        benchmark: Name of the format.
    """
    said = str(got)
    said = f"{said[:100]}..." if len(said) > 100 else said
    return ValueError(f"{where}: expected {expected}, as {benchmark} has it, got {said}; {_OTHERWISE}.")


_OTHERWISE = "fix the entry, or set format: plain to read the prompts alone"

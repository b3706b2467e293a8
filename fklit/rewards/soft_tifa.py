"""Soft-TIFA: the mean probability of the right answers to questions about what a prompt asks for."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.rewards.base import Metadata, Reward, RewardError

TIFAMean = Literal["geometric", "arithmetic"]

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@runtime_checkable
class AnswersQuestions(Protocol):
    """A reward that can say how likely an answer is: `VQAScore` and `ChatReward`."""

    def answer_log_probability(
        self, images: Tensor, questions: Sequence[str], answers: Sequence[Sequence[str]]
    ) -> Tensor:
        """Return log probabilities (n,) of answers to n questions about n images."""
        ...


class SoftTIFA(Reward):
    """Mean over a prompt's questions of the probability that a model gives the right answer.

    This is how GenEval 2 scores images (Kamath et al. 2025, arXiv:2512.16853): the geometric mean says whether a
    prompt is met as a whole ("Soft-TIFA GM"), the arithmetic mean how many of its parts are ("Soft-TIFA AM").

    The questions stand in the metadata of the prompt, under `vqa_list` as in `geneval2_data.jsonl` of that benchmark:

    ```json
    {"prompt": "four red hearts", "vqa_list": [["How many hearts are in the image?", "four"],
                                               ["Are the hearts red?", "Yes"]]}
    ```

    The probability of an answer is summed over its spellings (as given, in lower case, with a capital, with a space in
    front, and a number up to ten as a word or in digits), of those that are one token. The script of the benchmark
    takes the first token of the others, too, which may be a mere space.

    Its data are under CC BY-NC 4.0 and are not part of fklit: name your copy as the prompt file.

    Args:
        vqa: What answers, `VQAScore` or `ChatReward`; of it only the model counts, not its question.
        mean: "geometric" or "arithmetic".
        suffix: What is said behind each question; the default is that of the benchmark.
        key: Where the questions stand in the metadata.

    Raises:
        TypeError: `vqa` cannot answer questions.
        ValueError: `mean` is none of the two.
    """

    accepts = "image"
    needs_prompts = False
    uses_metadata = True
    typical_range = (0.0, 1.0)

    def __init__(
        self,
        vqa: Reward,
        *,
        mean: TIFAMean = "geometric",
        suffix: str = " Answer in one word.",
        key: str = "vqa_list",
    ) -> None:
        super().__init__()
        if not isinstance(vqa, Reward) or not isinstance(vqa, AnswersQuestions):
            raise TypeError(
                f"expected a reward that answers questions as vqa, got a {type(vqa).__name__}; give a VQAScore or a "
                "ChatReward."
            )
        check_choice("mean", mean, ("geometric", "arithmetic"))
        self.vqa = vqa
        self.mean: TIFAMean = mean
        self.suffix = suffix
        self.key = key

    def build(self) -> None:
        """Loads what answers."""
        self.vqa.load()

    def score(self, samples: Tensor, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """The mean probability (n,), in [0, 1].

        Args:
            samples: Images (n, C, H, W) in [0, 1].
            prompts: One prompt a sample, for messages.
            metadata: What holds the questions.

        Raises:
            RewardError: A prompt has no questions, or they are not pairs of a question and an answer.
        """
        known: Metadata = [{}] * len(prompts) if metadata is None else metadata
        asked = [self._questions(prompt, item) for prompt, item in zip(prompts, known, strict=True)]
        rows = [row for row, pairs in enumerate(asked) for _ in pairs]
        questions = [f"{question}{self.suffix}" for pairs in asked for question, _ in pairs]
        answers = [spellings(answer) for pairs in asked for _, answer in pairs]
        assert isinstance(self.vqa, AnswersQuestions)
        logs = self.vqa.answer_log_probability(samples[rows], questions, answers)
        parts = torch.split(logs, [len(pairs) for pairs in asked])
        if self.mean == "geometric":
            means = [part.mean().exp() for part in parts]
        else:
            means = [part.exp().mean() for part in parts]
        return torch.stack(means)

    def _questions(self, prompt: str, known: Mapping[str, Any]) -> list[tuple[str, str]]:
        pairs = known.get(self.key)
        if pairs is None:
            raise RewardError(
                f"SoftTIFA expected questions under {self.key!r} in the metadata of {prompt!r}, got "
                f"{', '.join(map(repr, known)) or 'nothing'}; give prompts as JSON lines with them."
            )
        fits = isinstance(pairs, Sequence) and not isinstance(pairs, str) and len(pairs) > 0
        if not fits or not all(_is_pair(pair) for pair in pairs):
            raise RewardError(
                f"SoftTIFA expected pairs of a question and an answer under {self.key!r} of {prompt!r}, got "
                f"{str(pairs)[:100]}; write [[question, answer], ...]."
            )
        return [(question, answer) for question, answer in pairs]


def spellings(answer: str) -> list[str]:
    """Return the ways to write an answer of one word: as given, in lower case, capitalized, numbers in both forms."""
    word = answer.strip()
    forms = [word, word.lower(), word.capitalize()]
    if word.lower() in _NUMBERS:
        forms.append(str(_NUMBERS.index(word.lower())))
    elif word.isdigit() and int(word) < len(_NUMBERS):
        forms += [_NUMBERS[int(word)], _NUMBERS[int(word)].capitalize()]
    return list(dict.fromkeys(forms))


def _is_pair(pair: Any) -> bool:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        return False
    return all(isinstance(text, str) and bool(text.strip()) for text in pair)

"""VQAScore: the probability that a vision-language model says that the image shows the prompt."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.checks import check_choice
from fklit.rewards.base import Reward
from fklit.rewards.vision_language import VisionLanguageModel, WeightType

VQAOutput = Literal["probability", "log_probability"]


class VQAScore(Reward):
    """`P("Yes" | image, question)` of a vision-language model (Lin et al. 2024, arXiv:2404.01291, equation 1).

    Any model will do that transformers loads by `AutoModelForImageTextToText` and that has a chat template: Qwen2-VL to
    Qwen3-VL, InternVL, LLaVA, SmolVLM and others. The probability is that of the first token of the reply, among the
    whole vocabulary; "Yes" with and without a space in front is the same answer.

    With `output="log_probability"` and `reward_scale=1` samples are drawn from `p(image | prompt) P(Yes | image,
    prompt)`, which is the posterior given that the model says yes: hence its suggested scale of 1.

    Gradients reach the pixels if the model's image processor runs on torchvision (those of transformers 5 do by
    default); of others they are refused.

    ```python
    reward = fklit.rewards.VQAScore("Qwen/Qwen3-VL-8B-Instruct", output="log_probability", max_batch=8)
    ```

    Args:
        model: Hub id, or a folder.
        template: The question; `{prompt}` stands for the prompt. The default is that of the paper.
        answers: The answer, or several whose probabilities are added. Each must be one token. In
            YAML they need quotes: a bare Yes is true there.
        output: "probability", in [0, 1], or "log_probability", at most 0.
        dtype: Precision of the weights, "auto" for that of the checkpoint. `.half()`, `.bfloat16()` and `.double()`
            win.
        revision: Branch, tag or commit at the hub; None for the newest.
        max_batch: Most images at once; None for no limit.
        pad: Fill the last micro-batch (see `Reward`).

    Raises:
        ValueError: `template` does not hold `{prompt}`, or an argument is none of those allowed.
    """

    accepts = "image"

    def __init__(
        self,
        model: str,
        *,
        template: str = 'Does this figure show "{prompt}"? Please answer yes or no.',
        answers: str | Sequence[str] = "Yes",
        output: VQAOutput = "probability",
        dtype: WeightType = "auto",
        revision: str | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        check_choice("output", output, ("probability", "log_probability"))
        check_choice("dtype", dtype, ("auto", "float32", "bfloat16", "float16"))
        if "{prompt}" not in template:
            raise ValueError(f"expected a template with {{prompt}} in it, got {template!r}; put it where it goes.")
        self.answers = (answers,) if isinstance(answers, str) else tuple(answers)
        if not self.answers or not all(answer.strip() for answer in self.answers):
            raise ValueError(f"expected at least one word as answers, got {answers!r}; give one, such as 'Yes'.")
        self.model = model
        self.template = template
        self.output: VQAOutput = output
        self.dtype: WeightType = dtype
        self.revision = revision
        self.typical_range = (0.0, 1.0) if output == "probability" else None
        self.suggested_scale = None if output == "probability" else 1.0
        self.upper_bound = 1.0 if output == "probability" else 0.0

    def build(self) -> None:
        """Loads model and processor, and looks the answers up.

        Raises:
            OSError: There is no such model, or it could not be downloaded.
            ValueError: The model does not fit; see `VisionLanguageModel`. Or no answer is one token.
        """
        self.network = VisionLanguageModel(self.model, dtype=self.dtype, revision=self.revision)
        self.network.answer_tokens(self.answers)

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the pixels; loads the model if need be."""
        self.load()
        return self.network.differentiable

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """The probability of the answers, or its logarithm, (n,).

        Args:
            samples: Images (n, C, H, W) in [0, 1]; one channel is repeated to three.
            prompts: One prompt a sample.
        """
        questions = [self.template.replace("{prompt}", prompt) for prompt in prompts]
        logs = self.network.log_probability(samples, questions, [self.answers] * len(prompts))
        return logs if self.output == "log_probability" else logs.exp()

    def answer_log_probability(
        self, images: Float[Tensor, "n c h w"], questions: Sequence[str], answers: Sequence[Sequence[str]]
    ) -> Float[Tensor, " n"]:
        """Return the log probability of answers to questions of one's own, (n,), at most `max_batch` at once.

        Args:
            images: One a question.
            questions: n texts; the template is not put around them.
            answers: What counts as right, n lists of words; those that are not one token are left out.

        Raises:
            ValueError: To a question, no answer is one token.
        """
        self.load()
        size = self.max_batch or max(len(questions), 1)
        parts = [
            self.network.log_probability(images[i : i + size], questions[i : i + size], answers[i : i + size])
            for i in range(0, len(questions), size)
        ]
        return torch.cat(parts)

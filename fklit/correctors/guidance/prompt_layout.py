"""Where the particles of plain and composed prompts lie in the rows of one pipeline call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fklit.checks import check_count
from fklit.correctors.guidance.prompts import ComposedPrompt
from fklit.feynman_kac.randomness import group_generators

_COMPOSING_SCALE = (
    2.0  # any scale above 1 makes a pipeline evaluate both predictions; composed prompts need no more of it
)


class PromptLayout:
    """Rows of a pipeline call: K particles for each part of each of B prompts, the parts of a prompt one after another.

    A plain prompt has one part. The parts of a composed prompt hold copies of the same K particles: they start from the
    same noise, get the same model output and draw the same noise, and so stay copies.

    Args:
        prompts: B prompts.
        guidance_scale: of plain prompts, at least 1.
        num_particles: K.

    Attributes:
        names: B texts that describe the prompts.
        texts: the prompts to call the pipeline with, one a part.
        scales: guidance scales of each prompt's parts.
        composed: whether any prompt is composed.
        call_scale: the guidance scale to call the pipeline with.

    Raises:
        ValueError: for prompts or a scale that no pipeline takes.
    """

    def __init__(self, prompts: Sequence[str | ComposedPrompt], guidance_scale: float, *, num_particles: int) -> None:
        parts = _parts(prompts, guidance_scale)
        self.names = [str(prompt) for prompt in prompts]
        self.texts = [text for part in parts for text in part.prompts]
        self.scales = [part.scales for part in parts]
        self.composed = any(isinstance(prompt, ComposedPrompt) for prompt in prompts)
        self.call_scale = _COMPOSING_SCALE if self.composed else float(guidance_scale)
        self._num_particles = check_count("num_particles", num_particles)
        self._first = [sum(len(scales) for scales in self.scales[:b]) for b in range(len(parts))]

    def generators(self, seed: int, prompt_indices: Sequence[int]) -> list[torch.Generator]:
        """Return one generator a row; the copies of a particle draw the same noise from sources of their own."""
        sources = [
            source
            for index, scales in zip(prompt_indices, self.scales, strict=True)
            for _ in scales
            for source in group_generators(seed, [index])
        ]
        return [source for source in sources for _ in range(self._num_particles)]

    def rows(self, b: int, part: int) -> slice:
        """Rows of the particles of prompt b in their copy for one of its parts."""
        start = (self._first[b] + part) * self._num_particles
        return slice(start, start + self._num_particles)

    def name_of_row(self, row: int) -> str:
        """Name a row of the call, for messages."""
        part, particle = divmod(row, self._num_particles)
        b = max(b for b, first in enumerate(self._first) if first <= part)
        return f"particle {particle} of prompt {self.names[b]!r}"

    def own(self, rows: Tensor) -> Tensor:
        """The first copy of every particle, (B * K, ...)."""
        return torch.cat([rows[self.rows(b, 0)] for b in range(len(self.scales))]) if self.composed else rows

    def flat_ancestors(self, ancestors: Tensor) -> Tensor:
        """Ancestors of every row, from those of every particle (B, K)."""
        flat = []
        for b, scales in enumerate(self.scales):
            flat += [self.rows(b, part).start + ancestors[b] for part in range(len(scales))]
        return torch.cat(flat)

    def combine(self, conditional: Tensor, unconditional: Tensor, model_output: Tensor) -> Tensor:
        """The model output `u + sum_j w_j (c_j - u)` of every prompt, equal for all copies of a particle."""
        output = model_output.clone()
        for b, scales in enumerate(self.scales):
            blocks = [self.rows(b, part) for part in range(len(scales))]
            base = unconditional[blocks[0]]
            mixed = base.clone()
            for scale, block in zip(scales, blocks, strict=True):
                mixed = mixed + scale * (conditional[block] - base)
            for block in blocks:
                output[block] = mixed.to(output.dtype)
        return output

    def experts(self, b: int, conditional: Tensor, unconditional: Tensor) -> tuple[list[Tensor], tuple[float, ...]]:
        """Predictions and exponents of the experts of prompt b: the unconditional one, and one a part; of sum 1."""
        scales = self.scales[b]
        predictions = [unconditional[self.rows(b, 0)]]
        predictions += [conditional[self.rows(b, part)] for part in range(len(scales))]
        return predictions, (1 - sum(scales), *scales)


def _parts(prompts: Sequence[str | ComposedPrompt], scale: float) -> list[ComposedPrompt]:
    if isinstance(prompts, str | ComposedPrompt) or not prompts:
        raise ValueError(f"prompts expected a list of at least one prompt, got {prompts!r}; give a list.")
    parts = []
    for prompt in prompts:
        if not isinstance(prompt, str | ComposedPrompt):
            raise ValueError(
                f"a prompt expected a string or a ComposedPrompt, got a {type(prompt).__name__}; give one."
            )
        parts.append(ComposedPrompt([prompt], [float(scale)]) if isinstance(prompt, str) else prompt)
    return parts

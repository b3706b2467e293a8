"""The model of one steered run over text, and how texts are sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from jaxtyping import Int64
from torch import Tensor

from fklit.pieces import pieces
from fklit.text.ancestral import AncestralModel, TextState
from fklit.text.denoising import Denoising
from fklit.text.noise_schedule import NoiseSchedule
from fklit.text.proposals import TokenProposal
from fklit.text.twisted import StepProposal


@dataclass(frozen=True)
class TextSampling:
    """How texts are sampled; what `pipeline_kwargs` of `fklit.steer` may change.

    Attributes:
        length: Tokens of a text, the prompt's included.
        num_steps: T, steps from masks to text.
        temperature: Of the predictions, above 0; the model that is sampled, and steered, is that at this temperature.
        num_draws: N, clean texts drawn of each particle where a reward scores on the way.
    """

    length: int = 32
    num_steps: int = 32
    temperature: float = 1.0
    num_draws: int = 4

    def __post_init__(self) -> None:
        for name, value in (("length", self.length), ("num_steps", self.num_steps), ("num_draws", self.num_draws)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"expected {name} as an integer of at least 1, got {value!r}; give one.")
        if not isinstance(self.temperature, int | float) or not self.temperature > 0:
            raise ValueError(f"expected temperature above 0, got {self.temperature!r}; give a number such as 0.8.")

    def changed(self, given: Mapping[str, Any] | None) -> Self:
        """These with others in place of some.

        Raises:
            ValueError: There is no such setting.
        """
        known = [item.name for item in fields(self)]
        unknown = sorted(set(given or {}) - set(known))
        if unknown:
            raise ValueError(
                f"expected pipeline_kwargs among {', '.join(known)} for a text model, got {', '.join(unknown)}; omit "
                "it."
            )
        return replace(self, **(given or {}))


class SteeredText(AncestralModel):
    """The model of one steered run: ancestral sampling, clean texts for the reward, and finished ones.

    Args:
        denoising: Predicts.
        start: (B, L) int64, prompts and masks.
        tokenizer: Makes texts of tokens.
        sampling: How texts are sampled.
        schedule: Of the noise.
        proposal: Law of the tokens; None for the model's own.
    """

    modality = "text"
    sampler = "ancestral"

    def __init__(
        self,
        denoising: Denoising,
        start: Int64[Tensor, "B L"],
        *,
        tokenizer: Any,
        sampling: TextSampling,
        schedule: NoiseSchedule,
        proposal: TokenProposal | StepProposal | None,
    ) -> None:
        super().__init__(denoising, start, num_steps=sampling.num_steps, schedule=schedule, proposal=proposal)
        self.tokenizer, self.num_draws = tokenizer, sampling.num_draws

    def clean_samples(self, state: TextState, generator: Any) -> tuple[TextState, list[str]]:
        """Texts of `num_draws` draws of `x_0` of each particle; predictions are kept for the next step."""
        state = self.predict(state)
        return state, self.texts(self.draw_clean(state, self.num_draws, generator).flatten(0, 2))

    def finished(self, state: TextState) -> tuple[list[str], Tensor]:
        """Texts, and their tokens (B, K, L)."""
        return self.texts(state.tokens.flatten(0, 1)), state.tokens

    def described(self, state: TextState) -> list[dict[str, Any]]:
        """How each text came about: its tokens as `pieces` that make up the text, and `unmasked_at`, the step of each.

        Steps count from 0, the noisiest; -1 stands for what the prompt gave.
        """
        assert state.unmasked_at is not None
        rows = zip(state.tokens.flatten(0, 1).tolist(), state.unmasked_at.flatten(0, 1).tolist(), strict=True)
        return [{"pieces": pieces(self.tokenizer, tokens), "unmasked_at": steps} for tokens, steps in rows]

    def texts(self, tokens: Int64[Tensor, "n l"]) -> list[str]:
        """Tokens as texts, without special tokens."""
        decoded: list[str] = self.tokenizer.batch_decode(tokens.tolist(), skip_special_tokens=True)
        return decoded

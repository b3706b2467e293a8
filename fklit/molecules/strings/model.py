"""A masked diffusion model over molecules, as users hold it: load it, sample from it, steer it, multiply conditions."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from fklit.correctors.discrete import MaskedPath
from fklit.molecules.strings.drawing import draw_molecule
from fklit.molecules.strings.vocabulary import MoleculeVocabulary
from fklit.text.ancestral import TextState
from fklit.text.backbone import DiffusionTransformer
from fklit.text.denoising import Denoising
from fklit.text.expert import TextExpert
from fklit.text.masked_model import MaskedTextModel
from fklit.text.nelbo import MaskedDenoiser
from fklit.text.noise_schedule import NoiseSchedule
from fklit.text.proposals import TokenProposal
from fklit.text.steered_text import SteeredText, TextSampling
from fklit.text.twisted import StepProposal


class SteeredMolecules(SteeredText):
    """The model of one steered run over molecules; texts are SMILES, empty where tokens make no molecule."""

    def texts(self, tokens: Int64[Tensor, "n l"]) -> list[str]:
        """SMILES of rows of tokens with their conditions."""
        vocabulary = MoleculeVocabulary(self.tokenizer)
        return [vocabulary.smiles(row) for row in tokens[:, vocabulary.prefix :].tolist()]

    def described(self, state: TextState) -> list[dict[str, Any]]:
        """Symbols of each molecule as `pieces`, the step that unmasked each, and a `drawing` of it as SVG."""
        assert state.unmasked_at is not None
        vocabulary = MoleculeVocabulary(self.tokenizer)
        rows = state.tokens.flatten(0, 1).tolist()
        words = [self.tokenizer.convert_ids_to_tokens(row) for row in rows]
        special = {self.tokenizer.pad_token, *vocabulary.conditions.tokens}
        return [
            {
                "pieces": ["" if word in special else word for word in symbols],
                "unmasked_at": steps,
                "drawing": draw_molecule(vocabulary.smiles(row[vocabulary.prefix :])),
            }
            for row, symbols, steps in zip(rows, words, state.unmasked_at.flatten(0, 1).tolist(), strict=True)
        ]


class MoleculeModel(MaskedTextModel):
    """Masked diffusion over SELFIES under conditions: a denoiser with the tokenizer of its molecules.

    ```python
    model = MoleculeModel.from_folder("fklit:molecules")
    model.sample("qed=high sa=low", 10)  # SMILES
    result = fklit.steer(model, ["qed=high"], reward=QED(), reward_scale=20.0, num_particles=16)
    ```

    A prompt names levels of properties ("low", "mid", "high": terciles of the training molecules), or is "any". Samples
    are SMILES; tokens that make no molecule (a symbol after the end, or no atom) give an empty one.

    Args:
        denoiser: Predicts masked tokens, such as a `DiffusionTransformer`; a module is put in evaluation mode.
        tokenizer: With the conditions, as data set and exported folder have it.
        sampling: How molecules are sampled by default, at the tokenizer's length; 48 steps if not given.
        schedule: Of the noise; log-linear by default.
        proposal: Law of the tokens when steered; None for the model's own.
        device: Where to compute; see `MaskedTextModel`.

    Attributes:
        vocabulary: What the tokens mean.

    Raises:
        ValueError: The tokenizer is none of molecules, or the length is another one.
    """

    steered = SteeredMolecules

    def __init__(
        self,
        denoiser: MaskedDenoiser,
        tokenizer: Any,
        *,
        sampling: TextSampling | None = None,
        schedule: NoiseSchedule | None = None,
        proposal: TokenProposal | StepProposal | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.vocabulary = MoleculeVocabulary(tokenizer)
        usual = TextSampling(length=self.vocabulary.length, num_steps=48)
        super().__init__(
            denoiser,
            tokenizer,
            sampling=sampling or usual,
            schedule=schedule,
            proposal=proposal,
            never=self.vocabulary.conditions.tokens,
            device=device,
        )
        if isinstance(denoiser, DiffusionTransformer):  # what its vocabulary has beyond the tokenizer's
            self.never += tuple(range(len(tokenizer), denoiser.settings.vocab_size))
        self._check_length(self.sampling.length)

    def _check_length(self, length: int) -> None:
        if length != self.vocabulary.length:
            raise ValueError(
                f"expected length={self.vocabulary.length}, the {self.vocabulary.prefix} conditions and "
                f"{self.vocabulary.max_symbols} symbols of this model, got {length}; omit it."
            )

    def encode(self, prompts: Sequence[str], length: int) -> Int64[Tensor, "B L"]:
        """Conditions followed by masks.

        Args:
            prompts: B prompts, such as "qed=high sa=low"; an empty one leaves everything to the model.
            length: L, the model's.

        Raises:
            ValueError: A prompt names no condition of the model, or the length is another one.
        """
        self._check_length(length)
        fronts = torch.stack([self.vocabulary.condition(prompt) for prompt in prompts])
        masks = torch.full((len(prompts), self.vocabulary.max_symbols), self.mask)
        return torch.cat([fronts, masks], dim=1).to(self.device)

    def denoising(self, *, temperature: float | None = None, max_batch: int | None = None) -> Denoising:
        """What experts of this model share, which counts their calls.

        Args:
            temperature: Of the predictions; the model's default if not given.
            max_batch: Most rows of the denoiser at once.
        """
        chosen = self.sampling.temperature if temperature is None else temperature
        return Denoising(self.denoiser, mask=self.mask, never=self.never, temperature=chosen, max_batch=max_batch)

    def expert(self, condition: str = "", *, denoising: Denoising | None = None) -> TextExpert:
        """The law of molecules under a condition as an expert of `MaskedCorrector`; its sites are the symbols.

        Args:
            condition: A prompt.
            denoising: Of `denoising()`, shared by experts that are asked in one call; its own if not given.
        """
        path = MaskedPath(mask=self.mask, length=self.vocabulary.max_symbols)
        front = self.vocabulary.condition(condition).to(self.device)
        return TextExpert(denoising or self.denoising(), path, given=front)

    def smiles(self, tokens: Int64[Tensor, "n s"]) -> list[str]:
        """SMILES of rows of symbols without their conditions; empty where they make no molecule."""
        return [self.vocabulary.smiles(row) for row in tokens.tolist()]

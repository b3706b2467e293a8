"""A masked diffusion model over text, as users hold it: load it, sample from it, steer it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from fklit.feynman_kac import group_generators, run
from fklit.text.backbone import DiffusionTransformer
from fklit.text.denoising import Denoising
from fklit.text.folder import load_folder
from fklit.text.masked_language_model import MaskedLanguageModel, frame
from fklit.text.nelbo import MaskedDenoiser
from fklit.text.noise_schedule import LogLinearSchedule, NoiseSchedule
from fklit.text.proposals import TokenProposal
from fklit.text.published import load_published
from fklit.text.reading import readable
from fklit.text.steered_text import SteeredText, TextSampling
from fklit.text.twisted import StepProposal


class _Settings(Protocol):
    """What of the settings of a run this module reads."""

    @property
    def pipeline_kwargs(self) -> Mapping[str, Any] | None: ...

    @property
    def max_batch(self) -> int | None: ...


class MaskedTextModel:
    """Masked diffusion over text: a denoiser with its tokenizer.

    ```python
    model = MaskedTextModel.from_folder("fklit:text_diffusion")
    result = fklit.steer(model, "The king", reward=reward, reward_scale=1.0, num_particles=8)
    ```

    Args:
        denoiser: Predicts masked tokens, such as a `DiffusionTransformer`; a module is put in evaluation mode.
        tokenizer: Of transformers, with a mask token.
        sampling: How texts are sampled by default.
        schedule: Of the noise; log-linear by default.
        proposal: Law of the tokens when steered; None for the model's own.
        never: Tokens that are never predicted besides the mask; None for all special tokens of the tokenizer. As the
            length is fixed, the end of a text is among them.
        device: Where to compute; None leaves a network where it is, and takes the CPU for other denoisers.

    Attributes:
        vocab_size: Tokens of the tokenizer.
        network_vocab_size: Tokens that the denoiser predicts, more where its vocabulary is filled up.

    Raises:
        ValueError: The tokenizer has no mask, more tokens than the network, or none of a name in `never`.
    """

    steered: ClassVar[type[SteeredText]] = SteeredText
    """What a run steers; subclasses whose tokens stand for something else than words have their own."""

    def __init__(
        self,
        denoiser: MaskedDenoiser,
        tokenizer: Any,
        *,
        sampling: TextSampling | None = None,
        schedule: NoiseSchedule | None = None,
        proposal: TokenProposal | StepProposal | None = None,
        never: Sequence[str] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"expected a tokenizer with a mask, got {type(tokenizer).__name__} without; set mask_token."
            )
        self.vocab_size = 1 + max(tokenizer.get_vocab().values())
        size = self.vocab_size
        if isinstance(denoiser, DiffusionTransformer):
            size = denoiser.settings.vocab_size
        elif isinstance(denoiser, MaskedLanguageModel):
            size = denoiser.vocab_size
        if self.vocab_size > size:
            raise ValueError(
                f"expected a tokenizer of at most the network's {size} tokens, got {self.vocab_size}; give the one "
                "that the network was trained with."
            )
        self.network_vocab_size = size
        if isinstance(denoiser, nn.Module):
            denoiser.eval().requires_grad_(False)
            if device is not None:
                denoiser.to(device)
        self.denoiser, self.tokenizer = denoiser, tokenizer
        self._device = torch.device("cpu" if device is None else device)
        self.sampling = sampling or TextSampling()
        self.schedule: NoiseSchedule = schedule or LogLinearSchedule()
        self.proposal = proposal
        self.mask = int(tokenizer.mask_token_id)
        excluded = tokenizer.all_special_ids if never is None else self._ids(never)
        self.never = tuple(sorted({int(number) for number in excluded} - {self.mask}))

    def _ids(self, words: Sequence[str]) -> list[int]:
        known = self.tokenizer.get_vocab()
        unknown = [word for word in words if word not in known]
        if unknown:
            raise ValueError(
                f"expected never as tokens that the tokenizer has, got {', '.join(map(repr, unknown))}; omit them."
            )
        return [known[word] for word in words]

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        parameters = self.denoiser.parameters() if isinstance(self.denoiser, nn.Module) else iter(())
        return next((parameter.device for parameter in parameters), self._device)

    @classmethod
    def from_folder(cls, folder: str | Path, **given: Any) -> Self:
        """Read a folder that a training exported, or the model that ships.

        Args:
            folder: With `config.json`, `model.safetensors` and the tokenizer; or "fklit:text_diffusion".
            **given: Further arguments of the class.
        """
        network, tokenizer = load_folder(folder)
        return cls(network, tokenizer, **given)

    @classmethod
    def from_published(
        cls,
        source: str = "kuleshov-group/mdlm-owt",
        tokenizer: str = "gpt2",
        *,
        revision: str | None = None,
        **given: Any,
    ) -> Self:
        """Read the published MDLM model; no code that comes with it is run.

        Args:
            source: A folder with `config.json` and `model.safetensors`, or an id on the Hugging Face hub.
            tokenizer: Folder or id of its tokenizer, to which the mask is added as the last token.
            revision: Of the model on the hub; None for the newest.
            **given: Further arguments of the class.

        Raises:
            OSError: There is no such model or tokenizer.
            ValueError: The files are of another model, or the tokenizer is of another size.
        """
        from transformers import AutoTokenizer

        network = load_published(source, revision=revision)
        with readable("a tokenizer", tokenizer):
            words = AutoTokenizer.from_pretrained(tokenizer)
        if words.mask_token is None:
            words.add_special_tokens({"mask_token": "[MASK]"})
        if len(words) != network.settings.vocab_size:
            raise ValueError(
                f"expected a tokenizer of {network.settings.vocab_size} tokens with the mask, got {len(words)} of "
                f"{tokenizer}; give the one that the model was trained with."
            )
        return cls(network, words, **given)

    @classmethod
    def from_masked_lm(cls, source: str, *, revision: str | None = None, **given: Any) -> Self:
        """Use any masked language model of transformers (BERT, ModernBERT, ESM) as the denoiser.

        It was trained to fill few masks, not all: texts are worse than those of a diffusion model of its size.

        Args:
            source: Folder or id on the Hugging Face hub.
            revision: On the hub; None for the newest.
            **given: Further arguments of the class.

        Raises:
            OSError: There is no such model.
            ValueError: Its tokenizer has no mask, or more tokens than the model.
        """
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        with readable("a tokenizer", source):
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        before, after = frame(tokenizer)
        with readable("a masked language model", source):
            model = AutoModelForMaskedLM.from_pretrained(source, revision=revision)
        return cls(MaskedLanguageModel(model, before=before, after=after), tokenizer, **given)

    def _special(self) -> list[str]:
        """Tokens that stand for no words, such as the mask; BERT's unknown one is told with its words."""
        return [str(word) for word in self.tokenizer.all_special_tokens if word != self.tokenizer.unk_token]

    def encode(self, prompts: Sequence[str], length: int) -> Int64[Tensor, "B L"]:
        """Prompts followed by masks.

        Args:
            prompts: B texts; an empty one leaves everything to the model.
            length: L.

        Raises:
            ValueError: A prompt has words that the tokenizer does not know, special tokens, or leaves no room.
        """
        start = torch.full((len(prompts), length), self.mask)
        for row, prompt in zip(start, prompts, strict=True):
            ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
            unknown = [] if self.tokenizer.unk_token_id is None else self._unknown(prompt, ids)
            if unknown:
                raise ValueError(
                    f"expected words that the tokenizer knows, got {', '.join(map(repr, unknown))} in the prompt "
                    f"{prompt!r}; use others."
                )
            special = [word for word in self._special() if word in prompt]
            if special:
                raise ValueError(
                    f"expected a prompt without special tokens, got {special[0]!r} in {prompt!r}; leave it out: "
                    "what follows a prompt is masked already."
                )
            if len(ids) >= length:
                raise ValueError(
                    f"expected a prompt of fewer than {length} tokens, got {len(ids)} of {prompt!r}; shorten it or "
                    "raise length."
                )
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return start.to(self.device)

    def _unknown(self, prompt: str, ids: list[int]) -> list[str]:
        if self.tokenizer.unk_token_id not in ids:
            return []
        if not self.tokenizer.is_fast:  # it does not tell where in the text its tokens are
            known = self.tokenizer.get_vocab()
            return [word for word in self.tokenizer.tokenize(prompt) if word not in known]
        where = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        found = zip(ids, where, strict=True)
        return [prompt[first:last] for number, (first, last) in found if number == self.tokenizer.unk_token_id]

    def steering_model(self, prompts: Sequence[str], settings: _Settings) -> SteeredText:
        """The model of one run, for `fklit.steer`.

        Args:
            prompts: B prompts.
            settings: `pipeline_kwargs` may change `sampling`; `max_batch` is the most rows of the denoiser at once.
        """
        sampling = self.sampling.changed(settings.pipeline_kwargs)
        denoising = Denoising(
            self.denoiser,
            mask=self.mask,
            never=self.never,
            vocab_size=self.vocab_size,
            temperature=sampling.temperature,
            max_batch=settings.max_batch,
        )
        return self.steered(
            denoising,
            self.encode(prompts, sampling.length),
            tokenizer=self.tokenizer,
            sampling=sampling,
            schedule=self.schedule,
            proposal=self.proposal,
        )

    def sample(self, prompts: str | Sequence[str] = "", num_samples: int = 1, *, seed: int = 0) -> list[list[str]]:
        """Texts of the model itself.

        Args:
            prompts: One prompt or B of them.
            num_samples: Of each prompt.
            seed: Of the draws; those of a prompt depend on it and the prompt's place.

        Returns:
            B lists of `num_samples` texts.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        model = self.steering_model(texts, _Plain())
        model.proposal = None
        result = run(
            model,
            num_groups=len(texts),
            num_particles=num_samples,
            ess_threshold=0.0,
            generator=group_generators(seed, len(texts)),
        )
        made, _ = model.finished(result.samples)
        return [made[b * num_samples : (b + 1) * num_samples] for b in range(len(texts))]


@dataclass(frozen=True)
class _Plain:
    pipeline_kwargs: Mapping[str, Any] | None = None
    max_batch: int | None = None

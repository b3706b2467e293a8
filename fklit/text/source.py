"""A text model for tasks and configurations, by folder or hub id."""

from pathlib import Path
from typing import Any, Literal

from torch import nn

from fklit import assets
from fklit.fingerprint import fingerprint
from fklit.sampling.describe import describe
from fklit.sampling.model_source import ModelSource
from fklit.text.masked_model import MaskedTextModel
from fklit.text.noise_schedule import NoiseSchedule
from fklit.text.proposals import TokenProposal
from fklit.text.steered_text import TextSampling
from fklit.text.twisted import StepProposal

TextLayout = Literal["fklit", "mdlm", "masked_lm"]


class MaskedTextSource(ModelSource):
    """A masked diffusion model over text for `SteeringTask`.

    ```yaml
    source:
      class_path: fklit.text.MaskedTextSource
      init_args: {path: 'fklit:text_diffusion'}
    ```

    Args:
        path: A folder, the name of a model that ships with fklit, or (but for "fklit") an id on the Hugging Face hub.
        layout: "fklit" for what `MaskedDiffusionTask` exports, "mdlm" for the published layout, "masked_lm" for any
            masked language model of transformers.
        tokenizer: Folder or id of the tokenizer of an "mdlm" model; None for GPT-2's. The others bring theirs.
        sampling: How texts are sampled; `pipeline_kwargs` may change it.
        schedule: Of the noise; log-linear by default.
        proposal: Law of the tokens when steered, such as a class of your own; None for the model's own.
        revision: On the hub; None for the newest.

    Raises:
        ValueError: An argument does not fit the layout.
    """

    modality = "text"

    def __init__(
        self,
        path: str,
        *,
        layout: TextLayout = "fklit",
        tokenizer: str | None = None,
        sampling: TextSampling | None = None,
        schedule: NoiseSchedule | None = None,
        proposal: TokenProposal | StepProposal | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        if layout not in ("fklit", "mdlm", "masked_lm"):
            raise ValueError(f"expected layout as one of fklit, mdlm, masked_lm, got {layout!r}; choose one.")
        if tokenizer is not None and layout != "mdlm":
            raise ValueError(
                f"expected a tokenizer with layout='mdlm' only, got {tokenizer!r} with {layout!r}; omit it."
            )
        if revision is not None and layout == "fklit":
            raise ValueError(f"expected a revision of a model on the hub, got {revision!r} with a folder; omit it.")
        self.path, self.layout, self.tokenizer, self.revision = path, layout, tokenizer, revision
        self.sampling = sampling or TextSampling()
        self.schedule = schedule
        self.proposal = proposal
        self.network: nn.Module | None = None

    def _where(self) -> str:
        return str(assets.shipped(self.path) or self.path)

    def build(self) -> MaskedTextModel:
        """Read the model."""
        where = self._where()
        given: dict[str, Any] = {"sampling": self.sampling, "schedule": self.schedule, "proposal": self.proposal}
        if self.layout == "fklit":
            model = MaskedTextModel.from_folder(where, **given)
        elif self.layout == "mdlm":
            model = MaskedTextModel.from_published(where, self.tokenizer or "gpt2", revision=self.revision, **given)
        else:
            model = MaskedTextModel.from_masked_lm(where, revision=self.revision, **given)
        if isinstance(model.denoiser, nn.Module):
            self.network = model.denoiser  # a child: it moves with this module
        return model

    def settings(self) -> dict[str, Any]:
        """What determines the weights and how texts are sampled."""
        where = Path(self._where()).expanduser()
        origin: dict[str, Any] = (
            {"content": fingerprint(where)} if where.is_dir() else {"hub": self.path, "revision": self.revision}
        )
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            **origin,
            "layout": self.layout,
            "tokenizer": self.tokenizer,
            "sampling": repr(self.sampling),
            "schedule": None if self.schedule is None else type(self.schedule).__qualname__,
            "proposal": None if self.proposal is None else describe(self.proposal),
        }

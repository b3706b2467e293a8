"""A text pipeline of diffusers for tasks and configurations, by the folder or hub id of its model."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fklit.fingerprint import fingerprint
from fklit.sampling.model_source import ModelSource

TextPipelineName = Literal["llada2", "diffusion_gemma"]
Dtype = Literal["float32", "float16", "bfloat16"]

_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TextPipelineSource(ModelSource):
    """`LLaDA2Pipeline` or `DiffusionGemmaPipeline` of diffusers for `SteeringTask`.

    Their models are published as models of transformers, without a `model_index.json`: the pipeline is made here from
    the model, its tokenizer or processor, and a scheduler.

    ```yaml
    source:
      class_path: fklit.text.TextPipelineSource
      init_args: {path: google/diffusiongemma-26B-A4B-it, pipeline: diffusion_gemma, dtype: bfloat16}
    ```

    Args:
        path: Folder, or id on the Hugging Face hub, of the model with its tokenizer or processor.
        pipeline: Which pipeline of diffusers runs it.
        scheduler: Class of diffusers: `BlockRefinementScheduler`, and for DiffusionGemma also `DiscreteDDIMScheduler`
            or `EntropyBoundScheduler`.
        scheduler_config: Arguments of that class; None for its own defaults.
        dtype: Precision of the network.
        revision: On the hub; None for the newest.
        trust_remote_code: Whether Python code that comes with the model may run on this machine. LLaDA2's network is
            such code; read it before.

    Raises:
        ValueError: An argument is none of these, or the scheduler has no such argument (in `load`).
    """

    modality = "text"

    def __init__(
        self,
        path: str,
        *,
        pipeline: TextPipelineName,
        scheduler: str = "BlockRefinementScheduler",
        scheduler_config: dict[str, Any] | None = None,
        dtype: Dtype = "float32",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        if pipeline not in ("llada2", "diffusion_gemma"):
            raise ValueError(f"expected pipeline as one of llada2, diffusion_gemma, got {pipeline!r}; choose one.")
        if dtype not in _DTYPES:
            raise ValueError(f"expected dtype as one of {', '.join(_DTYPES)}, got {dtype!r}; choose one.")
        known = ["BlockRefinementScheduler"]
        known += ["DiscreteDDIMScheduler", "EntropyBoundScheduler"] if pipeline == "diffusion_gemma" else []
        if scheduler not in known:
            raise ValueError(
                f"expected scheduler as one of {', '.join(known)} for {pipeline}, got {scheduler!r}; choose one."
            )
        self.path, self.kind, self.revision, self.dtype = path, pipeline, revision, dtype
        self.scheduler, self.scheduler_config = scheduler, dict(scheduler_config or {})
        self.trust_remote_code = trust_remote_code
        self.network: nn.Module | None = None

    def build(self) -> Any:
        """Read the model and make the pipeline."""
        import diffusers
        import transformers

        scheduler = _scheduler(getattr(diffusers, self.scheduler), self.scheduler_config)
        asked = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        common = {name: value for name, value in asked.items() if value is not None}
        masked = self.kind == "llada2"
        kind = transformers.AutoModelForCausalLM if masked else transformers.DiffusionGemmaForBlockDiffusion
        alone = masked or self._has_no_processor()
        reader = transformers.AutoTokenizer if alone else transformers.AutoProcessor
        try:
            model = kind.from_pretrained(self.path, dtype=_DTYPES[self.dtype], **common)
            words = reader.from_pretrained(self.path, **common)
        except (OSError, ValueError) as error:
            raise _one_line(error, self.path, self.trust_remote_code) from error
        self.network = model.eval().requires_grad_(False)  # a child: it moves with this module
        pipeline = (
            diffusers.LLaDA2Pipeline(model=model, scheduler=scheduler, tokenizer=words)
            if masked
            else diffusers.DiffusionGemmaPipeline(model=model, scheduler=scheduler, processor=words)
        )
        pipeline.set_progress_bar_config(disable=True)  # one bar a block would fight with Lightning's
        return pipeline

    def _has_no_processor(self) -> bool:
        """Whether a folder has a tokenizer only, which serves as well where there are no pictures."""
        folder = Path(self.path).expanduser()
        names = ("processor_config.json", "preprocessor_config.json")
        return folder.is_dir() and not any((folder / name).is_file() for name in names)

    def settings(self) -> dict[str, Any]:
        """What determines the weights and the sampler."""
        where = Path(self.path).expanduser()
        origin: dict[str, Any] = (
            {"content": fingerprint(where)} if where.is_dir() else {"hub": self.path, "revision": self.revision}
        )
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            **origin,
            "pipeline": self.kind,
            "scheduler": self.scheduler,
            "scheduler_config": self.scheduler_config,
            "dtype": self.dtype,
        }


def _one_line(error: Exception, path: str, trusts: bool) -> Exception:
    if not trusts and "trust_remote_code" in str(error):
        return ValueError(
            f"expected a model without code of its own, got {path!r}, whose network is Python code that comes with it; "
            "read it, and set trust_remote_code=True."
        )
    said = str(error).strip().partition("\n")[0][:200]
    return type(error)(
        f"expected a folder or hub id of a model, got {path!r}, which cannot be read ({said}); check it."
    )


def _scheduler(kind: Any, given: Mapping[str, Any]) -> Any:
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"expected scheduler_config among {', '.join(known)} for {kind.__name__}, got {', '.join(unknown)}; omit "
            "it."
        )
    return kind(**given)

"""Where a pipeline comes from: a folder, an asset of fklit or a model hub, loaded when it is first needed."""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fklit import assets
from fklit.fingerprint import fingerprint
from fklit.pipelines.broken_files import broken_file

Dtype = Literal["float32", "float16", "bfloat16"]

_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class PipelineSource(nn.Module):
    """A diffusers pipeline that is loaded by `load`, and moves with the module that holds this one.

    The networks of the pipeline become children of this module, so `.to(device)` of a LightningModule reaches
    them. They are frozen, in evaluation mode, and never part of a `state_dict`: a checkpoint would otherwise repeat
    gigabytes that lie on disk already.

    Args:
        path: A folder with `model_index.json`, the name of a model that ships with fklit
            (`"fklit:emoji_scenes"`), or the id of a model on the Hugging Face hub (`"owner/name"`). A folder wins
            over an id of the same name.
        dtype: Precision of the networks: "float32" (CPU), "bfloat16" or "float16" (GPU).
        pipeline_class: Name of the pipeline class, in diffusers (`"StableDiffusionImg2ImgPipeline"`) or dotted
            (`"my_package.MyPipeline"`); None for the class that the model names.
        revision: Branch, tag or commit on the hub; None for the newest.
        variant: Variant of the weight files ("fp16" loads `*.fp16.safetensors`); None for the plain files.
        trust_remote_code: Whether Python code that comes with the model may run on this machine. Read it before.
        offload: Whether the networks stay in main memory and each goes to the GPU only while it runs: slower, for
            models that do not fit. They are then no children of this module, see `enable_offload`.

    Raises:
        ValueError: An argument is none of these.
    """

    def __init__(
        self,
        path: str,
        *,
        dtype: Dtype = "float32",
        pipeline_class: str | None = None,
        revision: str | None = None,
        variant: str | None = None,
        trust_remote_code: bool = False,
        offload: bool = False,
    ) -> None:
        super().__init__()
        if dtype not in _DTYPES:
            raise ValueError(f"dtype expected one of {list(_DTYPES)}, got {dtype!r}; use one of them.")
        self.path = path
        self.dtype = dtype
        self.pipeline_class = pipeline_class
        self.revision = revision
        self.variant = variant
        self.trust_remote_code = trust_remote_code
        self.offload = offload
        self._pipeline: Any = None
        self.register_state_dict_post_hook(_drop_weights)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_forgive_missing_weights)  # type: ignore[no-untyped-call]

    @property
    def pipeline(self) -> Any:
        """The pipeline, loaded now if it was not."""
        self.load()
        return self._pipeline

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._pipeline is not None

    def locate(self) -> Path | str:
        """The folder, or the id on the hub as a text.

        Raises:
            ValueError: `path` is neither a folder with `model_index.json`, nor an asset, nor the id of a hub.
        """
        folder = assets.shipped(self.path) or Path(self.path).expanduser()
        if folder.is_dir():
            if not (folder / "model_index.json").is_file():
                raise ValueError(
                    f"The folder {folder} has no model_index.json, so it is not a diffusers pipeline; "
                    "give the folder that `pipeline.save_pretrained` wrote."
                )
            return folder
        if folder.is_absolute() or self.path.startswith((".", "~")) or not _HUB_ID.fullmatch(self.path):
            raise ValueError(
                f"path expected a folder with model_index.json, a shipped model such as 'fklit:emoji_scenes', or a "
                f"hub id 'owner/name', got {self.path!r}, and there is no folder {folder.absolute()}; fix the path."
            )
        return self.path

    def settings(self) -> dict[str, Any]:
        """What determines the weights, for a hash: the content of a folder (not its place), or hub id and revision.

        Raises:
            ValueError: As for `locate`.
        """
        where = self.locate()
        origin: dict[str, Any] = (
            {"content": fingerprint(where)} if isinstance(where, Path) else {"hub": where, "revision": self.revision}
        )
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            **origin,
            "dtype": self.dtype,
            "pipeline_class": self.pipeline_class,
            "variant": self.variant,
        }

    def load(self) -> "PipelineSource":
        """Loads the pipeline; calling it again does nothing. The global random state is as before.

        Returns:
            The source itself.

        Raises:
            ValueError: The path or the class cannot be found.
            OSError: Files are missing or cannot be downloaded.
        """
        if self._pipeline is None:
            # Weights that are made in inference mode (Lightning's default for predict) could never carry gradients.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                pipeline = self.build()
            for name, part in _networks(pipeline).items():
                part.eval().requires_grad_(False)
                if not self.offload:  # else a .to() of the module that holds this one would bring all to the GPU
                    self.add_module(name, part)
            self._pipeline = pipeline
        return self

    def enable_offload(self, device: torch.device | str) -> None:
        """With `offload`, has each network run on `device` and wait in main memory; without it, does nothing.

        Args:
            device: Where to compute.
        """
        if self.offload and not any(hasattr(part, "_hf_hook") for part in _networks(self.pipeline).values()):
            self.pipeline.enable_model_cpu_offload(device=torch.device(device))

    def build(self) -> Any:
        """Makes the pipeline on the CPU. A subclass may override this to make one in another way."""
        where = self.locate()
        kind = _pipeline_class(self.pipeline_class)
        asked = {"revision": self.revision, "variant": self.variant}
        try:
            pipeline = kind.from_pretrained(
                where,
                dtype=_DTYPES[self.dtype],
                trust_remote_code=self.trust_remote_code,
                local_files_only=isinstance(where, Path) or None,
                **{name: value for name, value in asked.items() if value is not None},
            )
        except Exception as error:  # OSError, or the libraries' own
            if isinstance(where, Path):
                fault = broken_file(where)
                if fault is None and not isinstance(error, OSError):
                    raise
                raise OSError(
                    f"path expected a whole diffusers pipeline, got {where}: {fault or _first_line(error)}; copy or "
                    "download it again."
                ) from error
            if not isinstance(error, OSError):
                raise
            raise OSError(
                f"path expected a model on the hub, got {where!r}, which could not be had ({_first_line(error)}); "
                f"check the name and the connection, or give the folder of `hf download {where}`."
            ) from error
        pipeline.set_progress_bar_config(disable=True)  # one bar a prompt would fight with Lightning's
        return pipeline

    def train(self, mode: bool = True) -> "PipelineSource":
        """Does nothing: a pipeline stays in evaluation mode inside a module that is trained."""
        return super().train(False)


def _networks(pipeline: Any) -> dict[str, nn.Module]:
    components: Mapping[str, Any] = pipeline.components
    return {name: part for name, part in components.items() if isinstance(part, nn.Module)}


def _pipeline_class(name: str | None) -> Any:
    import diffusers

    if name is None:
        return diffusers.DiffusionPipeline
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else diffusers, attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"pipeline_class expected the name of a pipeline of diffusers, or 'module.Class', got {name!r}, which "
            f"cannot be imported ({error}); fix the name."
        ) from error
    if not hasattr(found, "from_pretrained"):
        raise ValueError(f"pipeline_class={name!r} has no from_pretrained; give the name of a pipeline class.")
    return found


def _first_line(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return said if len(said) <= 120 else f"{said[:117]}..."


def _drop_weights(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]


def _forgive_missing_weights(module: nn.Module, incompatible: Any) -> None:
    own = tuple(name for name, _ in (*module.named_parameters(), *module.named_buffers()))
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.endswith(own)]

"""Denoisers of vectors, preconditioned as in EDM: what training, files and experts need of a network."""

import importlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fklit.hyperparameters import describe


class Denoiser(nn.Module, ABC):
    """A network `D(x, sigma)` of vectors that estimates `E[x_0 | x_0 + sigma e = x]`, for `ScoreModelTask`.

    `D = c_skip x + c_out F(c_in x, log(sigma) / 4)` with the coefficients of Karras et al. 2022 (arXiv 2206.00364,
    table 1), which give the network F unit variance in and out at every noise level. Subclasses define F and their
    settings. As an expert: `ScoreModel(denoiser, path, prediction="edm", event_shape=(dim,))`, on any path.

    Args:
        dim: length of the vectors, at least 1.
        data_std: standard deviation of the data, one number, positive.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, dim: int, *, data_std: float = 1.0) -> None:
        super().__init__()
        if dim < 1 or not data_std > 0:
            raise ValueError(
                f"expected positive numbers, got dim={dim}, data_std={data_std}; dim is the length of the vectors."
            )
        self.dim, self.data_std = dim, data_std

    @abstractmethod
    def network(self, inputs: Float[Tensor, "n d"], log_noise: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Return F, (n, d).

        Args:
            inputs: noisy vectors of unit variance.
            log_noise: `log(sigma) / 4`.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that build a network of this shape, JSON-able."""

    def forward(self, x: Float[Tensor, "n d"], sigma: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Denoised vectors, in the dtype of x.

        Args:
            x: noisy vectors.
            sigma: their noise levels, positive.
        """
        kind = next(self.parameters()).dtype
        level = sigma.to(kind).unsqueeze(1)
        total = (level.square() + self.data_std**2).sqrt()
        skip = self.data_std**2 / total.square()
        out = self.network(x.to(kind) / total, level.squeeze(1).log() / 4)
        return (skip * x.to(kind) + level * self.data_std / total * out).to(x.dtype)

    def description(self) -> dict[str, Any]:
        """Return the settings with the import path of the class, from which `load` builds the network."""
        return {"class": _path_of(type(self)), **self.settings()}

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, target / "model.safetensors")
        # Last: it is what makes the folder one that `load` reads.
        (target / "config.json").write_text(json.dumps(self.description(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, or a checkpoint of `ScoreModelTask`: its averaged weights if they were averaged.

        Args:
            path: the folder, or the file of a checkpoint.

        Raises:
            FileNotFoundError: if there is neither.
            ValueError: if the checkpoint is one of another task, or the network one of another class.
        """
        from safetensors.torch import load_file

        place = Path(path).expanduser()
        if (place / "config.json").is_file():
            settings: dict[str, Any] = json.loads((place / "config.json").read_text(encoding="utf-8"))
            weights = load_file(place / "model.safetensors")
        elif place.is_file():
            # With EMAWeightAveraging Lightning keeps the average under "state_dict".
            saved = torch.load(place, map_location="cpu", weights_only=True)
            if "denoiser" not in saved:
                raise ValueError(
                    f"expected a checkpoint of ScoreModelTask, got {place}, which is none; pass one, or the exported "
                    "folder."
                )
            settings = saved["denoiser"]
            prefix = "denoiser."
            weights = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
        else:
            raise FileNotFoundError(
                f"expected a folder with a config.json or a checkpoint, got {place}, which is none (looked for "
                f"{place.absolute()}); train a denoiser with ScoreModelTask first and pass its export_dir or a .ckpt."
            )
        settings = dict(settings)
        kind = _class_of(settings.pop("class", "fklit.correctors.DenoiserMLP"))  # files of before had that one only
        if not issubclass(kind, cls):
            raise ValueError(
                f"expected a {cls.__name__}, got {place} with a {kind.__name__}; call {kind.__name__}.load, or "
                "Denoiser.load, which reads all of them."
            )
        model: Self = kind(**settings)
        model.load_state_dict(weights)
        return model.eval()


def _path_of(kind: type) -> str:
    """The shortest import path of a class, which survives most moves between files."""
    try:
        return str(describe(kind))
    except ValueError:  # a class inside a function: it can be saved, but not loaded
        return f"{kind.__module__}.{kind.__qualname__}"


def _class_of(path: str) -> Any:
    """The class of an import path."""
    module, _, name = str(path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"expected a denoiser whose class can be imported, got {path!r}; put it on the import path."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Denoiser)):
        raise ValueError(f"expected a subclass of Denoiser, got {path!r}; the folder is of something else.")
    return found

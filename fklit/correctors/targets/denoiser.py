"""Small denoisers of vectors, preconditioned as in EDM, for correctors on data of few dimensions."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """Sines and cosines of a number at `count` geometric frequencies from 1/4 to `highest`."""

    frequencies: Tensor

    def __init__(self, count: int = 16, highest: float = 8.0) -> None:
        super().__init__()
        exponents = torch.linspace(math.log(0.25), math.log(highest), count)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, values: Float[Tensor, " n"]) -> Float[Tensor, "n f"]:
        """Features (n, 2 count)."""
        angles = values.unsqueeze(1) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class DenoiserMLP(nn.Module):
    """`D(x, sigma)`, an estimate of `E[x_0 | x_0 + sigma e = x]` for vectors.

    `D = c_skip x + c_out F(c_in x, log(sigma) / 4)` with the coefficients of Karras et al. 2022 (arXiv 2206.00364,
    table 1), which give the network F unit variance in and out at every noise level. As an expert:
    `ScoreModel(denoiser, path, prediction="edm", event_shape=(dim,))`, on any path.

    Args:
        dim: length of the vectors.
        width: of the hidden layers.
        depth: number of hidden layers, at least 1.
        data_std: standard deviation of the data, one number.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, dim: int, width: int = 128, depth: int = 3, *, data_std: float = 1.0) -> None:
        super().__init__()
        if dim < 1 or width < 1 or depth < 1 or not data_std > 0:
            raise ValueError(
                f"expected positive numbers, got dim={dim}, width={width}, depth={depth}, data_std={data_std}; dim is "
                "the length of the vectors."
            )
        self.dim, self.width, self.depth, self.data_std = dim, width, depth, data_std
        self.noise = FourierFeatures()
        sizes = [dim + 2 * len(self.noise.frequencies), *[width] * depth]
        layers: list[nn.Module] = []
        for size, following in pairwise(sizes):
            layers += [nn.Linear(size, following), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Float[Tensor, "n d"], sigma: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Denoised vectors, in the dtype of x.

        Args:
            x: noisy vectors.
            sigma: their noise levels, positive.
        """
        kind = next(self.layers.parameters()).dtype
        level = sigma.to(kind).unsqueeze(1)
        total = (level.square() + self.data_std**2).sqrt()
        inputs = torch.cat([x.to(kind) / total, self.noise(level.squeeze(1).log() / 4)], dim=1)
        skip = self.data_std**2 / total.square()
        out: Tensor = self.layers(inputs)
        return (skip * x.to(kind) + level * self.data_std / total * out).to(x.dtype)

    def settings(self) -> dict[str, Any]:
        """Arguments that build a network of this shape."""
        return {"dim": self.dim, "width": self.width, "depth": self.depth, "data_std": self.data_std}

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        import json

        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, target / "model.safetensors")
        # Last: it is what makes the folder one that `load` reads.
        (target / "config.json").write_text(json.dumps(self.settings(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "DenoiserMLP":
        """Read what `save` wrote, or a checkpoint of `ScoreModelTask`: its averaged weights if they were averaged.

        Args:
            path: the folder, or the file of a checkpoint.

        Raises:
            FileNotFoundError: if there is neither.
            ValueError: if the checkpoint is one of another task.
        """
        import json

        from safetensors.torch import load_file

        place = Path(path).expanduser()
        if (place / "config.json").is_file():
            settings = json.loads((place / "config.json").read_text(encoding="utf-8"))
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
        model = cls(**settings)
        model.load_state_dict(weights)
        return model.eval()

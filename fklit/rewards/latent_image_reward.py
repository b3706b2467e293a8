"""A learned latent reward of the ImageReward architecture: a few convolutions in place of decoder and image encoder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit import assets
from fklit.rewards.checkpoint import fit_weights, read_weights
from fklit.rewards.image_reward import ImageReward
from fklit.rewards.latent_encoder import LatentEncoder
from fklit.rewards.latent_reward import LatentReward


class LatentImageReward(LatentReward):
    """Foresees an `ImageReward` from denoised latents; `fklit.emoji.training.latent_reward.LatentRewardTask` trains it.

    A `LatentEncoder` makes image tokens, and the text encoder and head of the `ImageReward` that it was distilled from
    read them. The score is `log(q) / exponent`, where `q` estimates `E[P(match of x_0)^exponent | x_t]`: with
    `reward_scale` equal to `exponent`, `exp(reward_scale * score)` is that mean itself.

    Args:
        model_name: a folder that the task has written, or "fklit:NAME" of one that ships.
        until: share of the run before which it scores; later steps are decoded. 1 for the whole run.

    Raises:
        ValueError: the folder holds no model of this kind.
    """

    encoder: LatentEncoder

    def __init__(self, model_name: str, *, until: float = 1.0) -> None:
        super().__init__(until=until)
        self.model_name = str(model_name)
        self._folder = assets.shipped(self.model_name) or Path(self.model_name)
        note = self._folder / "config.json"
        self._notes: dict[str, Any] = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        if self._notes.get("kind") != "latent_image_reward":
            raise ValueError(
                "LatentImageReward expected config.json as LatentRewardTask writes it, got another one, or none, in "
                f"{self.model_name}; give a folder that the task has exported."
            )
        self.exponent = float(self._notes["exponent"])
        self.reader: ImageReward | None = None

    def __repr__(self) -> str:
        """Return the call that makes it."""
        return f"LatentImageReward({self.model_name!r}, until={self.until:g})"

    def build(self) -> None:
        """Loads the encoder and the reward that reads its tokens.

        Raises:
            ValueError: the weights are those of another model.
            OSError: a file is not there, or damaged.
        """
        encoder = LatentEncoder(**self._notes["encoder"])
        source = self._folder / "model.safetensors"
        weights = {name: value.float() for name, value in read_weights(source, owner="LatentImageReward").items()}
        fit_weights(encoder, weights, owner="LatentImageReward", source=source)
        self.encoder = encoder
        self.reader = ImageReward(self._notes["reward"]).load()

    def score(self, latents: Tensor, prompts: Sequence[str], *, time: float) -> Tensor:
        """Scores (n,), at most 0.

        Args:
            latents: of the shape it was trained on, (n, c, h, w).
            prompts: one a row.
            time: share of the training timesteps.

        Raises:
            ValueError: latents of another shape.
        """
        assert self.reader is not None
        shape = tuple(self._notes["latents"])
        if tuple(latents.shape[1:]) != shape:
            raise ValueError(
                f"LatentImageReward expected latents of shape {shape}, got {tuple(latents.shape[1:])}; it belongs to "
                f"{self._notes['pipeline']}, so train one for this pipeline."
            )
        times = torch.full((len(latents),), time, device=latents.device)
        tokens, calibration = self.encoder(latents.float(), times)
        odds = calibrated_odds(self.reader, tokens, calibration, prompts)
        return F.logsigmoid(odds) / self.exponent


def calibrated_odds(reader: ImageReward, tokens: Tensor, calibration: Tensor, prompts: Sequence[str]) -> Tensor:
    """Log odds (n,) that `reader` reads off image tokens (n, p, d), scaled and shifted by `calibration` (n, 2)."""
    odds = reader.network(reader.tokens(prompts).to(tokens.device), tokens)
    found: Tensor = (1 + calibration[:, 0]) * odds.float() + calibration[:, 1]
    return found

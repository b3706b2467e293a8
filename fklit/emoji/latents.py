"""Emoji scenes as latents of a trained autoencoder, encoded once and kept."""

import hashlib
from pathlib import Path
from typing import TypedDict

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fklit.atomic import write_atomically
from fklit.emoji.art import load_art
from fklit.emoji.scene_data import SceneDataset
from fklit.emoji.scenes import caption, sample_scene

_STREAMS = {"validate": ("val",), "test": ("test",)}  # of each stage; of others, training and validation


class LatentItem(TypedDict):
    """One training example: the scaled latent, float32 `(C, h, w)`, and the caption."""

    latent: torch.Tensor
    prompt: str


class LatentDataset(Dataset[LatentItem]):
    """Stored latents with the captions of the scenes they came from."""

    def __init__(self, latents: torch.Tensor, seed: int) -> None:
        self.latents = latents
        self.prompts = [caption(sample_scene(seed, index)) for index in range(len(latents))]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> LatentItem:
        return LatentItem(latent=self.latents[index].float(), prompt=self.prompts[index])


class EncodedScenesDataModule(LightningDataModule):
    """The latents of captioned emoji scenes; encoded at the first use and stored below `data_dir/latents`.

    Args:
        data_dir: Where the emoji art is.
        batch_size: Scenes in a batch.
        autoencoder: Folder of a diffusers `AutoencoderKL` whose `scaling_factor` is set.
        num_scenes: Scenes in a training epoch; the same ones every epoch.
        num_val_scenes: Scenes of the validation stream, and as many of the test stream.
        seed: Of the training stream; validation uses `seed + 1`, test `seed + 2`.

    Raises:
        ValueError: A number is out of its range.
        FileNotFoundError: No autoencoder in that folder, or no art (raised by `prepare_data`).
    """

    train_set: LatentDataset
    val_set: LatentDataset
    test_set: LatentDataset

    def __init__(
        self,
        data_dir: str = "data/emoji",
        batch_size: int = 32,
        *,
        autoencoder: str = "outputs/assets/autoencoder/folder",
        num_scenes: int = 50_000,
        num_val_scenes: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("num_scenes", num_scenes), ("num_val_scenes", num_val_scenes)):
            if value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}; give an integer.")
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.autoencoder = Path(autoencoder)
        self.num_scenes = num_scenes
        self.num_val_scenes = num_val_scenes
        self.seed = seed

    def _store(self, seed: int, length: int) -> Path:
        """File of one stream; its name follows the weights, so that latents of two autoencoders are never mixed."""
        digest = hashlib.sha256()
        for path in sorted(self.autoencoder.iterdir()):
            if path.is_file():
                digest.update(path.read_bytes())
        return self.data_dir / "latents" / f"{digest.hexdigest()[:16]}-seed{seed}-{length}.safetensors"

    def prepare_data(self) -> None:
        """Encodes what is not stored yet."""
        if not (self.autoencoder / "config.json").is_file():
            raise FileNotFoundError(
                f"expected an autoencoder in {self.autoencoder}, got no config.json; make it with "
                "`fklit fit --config configs/assets/autoencoder.yaml`, or give the folder of another one."
            )
        running = None if self.trainer is None else self.trainer.state.fn
        stage = "fit" if running is None else str(running.value)
        for name, (seed, length) in self._streams().items():
            path = self._store(seed, length)
            # Latents of a stage that does not run would cost minutes: validation and test need no training scenes.
            if name in _STREAMS.get(stage, ("train", "val")) and not path.is_file():
                self._encode(path, seed, length)

    def _streams(self) -> dict[str, tuple[int, int]]:
        """Seed and length of each stream."""
        return {
            "train": (self.seed, self.num_scenes),
            "val": (self.seed + 1, self.num_val_scenes),
            "test": (self.seed + 2, self.num_val_scenes),
        }

    def _encode(self, path: Path, seed: int, length: int) -> None:
        from diffusers import AutoencoderKL
        from rich.progress import track
        from safetensors.torch import save

        autoencoder = AutoencoderKL.from_pretrained(self.autoencoder, dtype=torch.float32).eval()
        scenes = DataLoader(SceneDataset(load_art(self.data_dir), length, seed=seed), batch_size=64)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        autoencoder.to(device)
        parts = []
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            for batch in track(scenes, description="encoding scenes"):
                latent = autoencoder.encode(batch["image"].to(device) * 2.0 - 1.0).latent_dist.mode()
                parts.append((latent.float() * autoencoder.config.scaling_factor).half().cpu())
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write(save({"latents": torch.cat(parts)}))

    def setup(self, stage: str) -> None:
        """Reads the stored latents of a stage: "fit", "validate" or "test"."""
        from safetensors.torch import load_file

        for name in _STREAMS.get(stage, ("train", "val")):
            seed, length = self._streams()[name]
            stored = LatentDataset(load_file(self._store(seed, length))["latents"], seed)
            setattr(self, f"{name}_set", stored)

    def train_dataloader(self) -> DataLoader[LatentItem]:
        """Batches `{"latent": (N, C, h, w), "prompt": list of str}`."""
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[LatentItem]:
        """The validation stream, in order."""
        return DataLoader(self.val_set, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[LatentItem]:
        """The test stream, in order."""
        return DataLoader(self.test_set, batch_size=self.batch_size)

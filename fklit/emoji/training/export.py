"""Writes the shipped folders from training checkpoints.

`python -m fklit.emoji.training.export autoencoder CHECKPOINT FOLDER --data_dir data/emoji` and
`python -m fklit.emoji.training.export text_to_image CHECKPOINT FOLDER`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from fklit.emoji.art import load_art
from fklit.emoji.scene_data import SceneDataset
from fklit.emoji.training.autoencoder import AutoencoderTask, latent_scale
from fklit.emoji.training.text_to_image import TextToImageTask


def export_autoencoder(checkpoint: str | Path, folder: str | Path, *, data_dir: str | Path = "data/emoji") -> float:
    """Writes the autoencoder of a checkpoint, with the scale of its latents measured on 1,024 scenes.

    Returns:
        The `scaling_factor` that was written.
    """
    task = AutoencoderTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    scenes = SceneDataset(load_art(data_dir), 1024, seed=2)
    scale = latent_scale(task.vae, torch.stack([scenes[index]["image"] for index in range(len(scenes))]))
    task.save_folder(folder, scaling_factor=scale)
    return scale


def export_text_to_image(checkpoint: str | Path, folder: str | Path, *, autoencoder: str | Path | None = None) -> None:
    """Writes the pipeline of a checkpoint; with `EMAWeightAveraging` the checkpoint holds the averaged weights.

    Args:
        checkpoint: Of `TextToImageTask`.
        folder: Where to.
        autoencoder: Folder of the autoencoder; by default the one of the training.
    """
    task = TextToImageTask.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    if autoencoder is not None:
        task.autoencoder = str(autoencoder)
    task.save_folder(folder)


def main(args: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Write a diffusers folder from a training checkpoint.")
    parser.add_argument("task", choices=("autoencoder", "text_to_image"))
    parser.add_argument("checkpoint", help="a .ckpt of that task; only load those you made or trust")
    parser.add_argument("folder", help="where to")
    parser.add_argument("--data_dir", default="data/emoji", help="the emoji art (autoencoder only)")
    options = parser.parse_args(args)
    if not Path(options.checkpoint).is_file():
        raise SystemExit(f"fklit: expected a checkpoint, got {options.checkpoint}; give the .ckpt of `fklit fit`.")
    if options.task == "autoencoder":
        scale = export_autoencoder(options.checkpoint, options.folder, data_dir=options.data_dir)
        print(f"wrote {options.folder} with scaling_factor {scale:.4f}")
    else:
        export_text_to_image(options.checkpoint, options.folder)
        print(f"wrote {options.folder}")


if __name__ == "__main__":
    main()

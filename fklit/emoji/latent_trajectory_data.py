"""Trajectories of the generator in latent space, and a reward's verdict on their ends, as a LightningDataModule."""

import json
from pathlib import Path
from typing import TypedDict

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fklit.atomic import write_atomically, write_json_atomically
from fklit.emoji.prompts import COMPOSITIONAL_TAGS, Split, test_prompts
from fklit.emoji.training.trajectories import Trajectories
from fklit.rewards.image_reward import ImageReward

LatentTrajectoryItem = tuple[Tensor, float, str, float, bool]
"""A denoised prediction, its time, a caption, P(match) of its end, and whether the caption is its own."""


class LatentTrajectoryBatch(TypedDict):
    """N denoised predictions.

    `latents` float32 (N, 4, 16, 16), `time` float32 (N,), the share of the training timesteps; `captions` N texts;
    `chance` float32 (N,), P(match) of the picture that came of it under the caption; `own` bool (N,), whether it is the
    caption that it was drawn for.
    """

    latents: Tensor
    time: Tensor
    captions: list[str]
    chance: Tensor
    own: Tensor


class LatentTrajectoriesDataModule(LightningDataModule):
    """Draws trajectories once, in chunks that are kept on disk, and learns from them for as many epochs as one likes.

    Every chunk is a function of the settings and its number, so that an interrupted run goes on where it stopped.
    Training prompts are those on which settings may be chosen, validation prompts those of tests (held-out pairs of
    objects among them).

    Args:
        trajectories: Draws the runs; `prompts` captions a chunk with `samples` runs each.
        reward: An `ImageReward` with log probabilities, which judges the ends.
        folder: Where the chunks are kept.
        num_chunks: Chunks to train on.
        num_val_chunks: Chunks to validate on, at least 1.
        batch_size: Predictions in a batch.
        swapped: Share of the predictions shown under another caption of the chunk, in [0, 1).
        seed: Of all draws.

    Raises:
        ValueError: A number is out of its range, or the folder holds chunks of other settings.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        reward: str = "fklit:emoji_reward",
        *,
        folder: str = "outputs/assets/latent_trajectories",
        num_chunks: int = 12,
        num_val_chunks: int = 2,
        batch_size: int = 128,
        swapped: float = 0.25,
        seed: int = 900_000,
    ) -> None:
        super().__init__()
        for name, value in (("num_chunks", num_chunks), ("num_val_chunks", num_val_chunks), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}; give an integer.")
        if not 0 <= swapped < 1:
            raise ValueError(f"expected swapped in [0, 1), got {swapped}; give a share.")
        self.trajectories, self.reward = trajectories, reward
        self.folder = Path(folder)
        self.num_chunks, self.num_val_chunks, self.batch_size = num_chunks, num_val_chunks, batch_size
        self.swapped, self.seed = swapped, seed

    def prepare_data(self) -> None:
        """Draws the chunks that are not there yet."""
        draws = self.trajectories
        settings = {
            **{"pipeline": draws.folder, "reward": self.reward, "prompts": draws.prompts, "samples": draws.samples},
            **{"steps": draws.steps, "kept": draws.kept, "window": list(draws.window), "seed": self.seed},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "settings.json"
        if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != settings:
            raise ValueError(
                f"expected chunks of these settings, got others in {self.folder}; give another folder, or delete it."
            )
        write_json_atomically(note, settings, indent=1)
        judge: ImageReward | None = None
        counts: dict[Split, int] = {"tune": self.num_chunks, "test": self.num_val_chunks}
        for split, count in counts.items():
            for number in range(count):
                if not self._path(split, number).is_file():
                    judge = judge or ImageReward(self.reward)
                    self._draw(split, number, judge)

    def setup(self, stage: str) -> None:
        """Reads the chunks."""
        self.train_set = LatentTrajectoryDataset([self._path("tune", i) for i in range(self.num_chunks)], self.swapped)
        self.val_set = LatentTrajectoryDataset([self._path("test", i) for i in range(self.num_val_chunks)], 0.0)

    def train_dataloader(self) -> DataLoader[LatentTrajectoryItem]:
        """Predictions in random order."""
        return DataLoader(self.train_set, self.batch_size, shuffle=True, drop_last=True, collate_fn=_collated)

    def val_dataloader(self) -> DataLoader[LatentTrajectoryItem]:
        """Predictions in the order of the runs."""
        return DataLoader(self.val_set, self.batch_size, collate_fn=_collated)

    def captions(self, split: Split) -> list[str]:
        """All captions that the chunks of a split draw from, 64 for each caption of a chunk."""
        return [p.text for p in test_prompts(self.trajectories.prompts * 64, split=split, tags=COMPOSITIONAL_TAGS)]

    def _path(self, split: str, number: int) -> Path:
        return self.folder / f"{split}_{number:04d}.safetensors"

    @torch.no_grad()
    def _draw(self, split: Split, number: int, judge: ImageReward) -> None:
        """Draw one chunk: latents (n, k, c, h, w), times (k,), and P(match) under each of its captions (n, prompts)."""
        from safetensors.torch import save

        draws, device = self.trajectories, torch.device("cpu")
        every = self.captions(split)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 2 * number + (split == "test"))
            chosen = torch.randperm(len(every))[: draws.prompts].tolist()
            captions = [every[index] for index in chosen]
            texts = [caption for caption in captions for _ in range(draws.samples)]
            final, means, times = draws.latents(texts, device)
        pictures = draws.decode(draws.load(device), final)
        chance = torch.stack([judge(pictures, [caption] * len(texts)).exp() for caption in captions], dim=1)
        tensors = {"latents": means.half(), "times": times, "chance": chance}
        with write_atomically(self._path(split, number)) as file:
            file.write(save(tensors, metadata={"captions": json.dumps(captions)}))


class LatentTrajectoryDataset(Dataset[LatentTrajectoryItem]):
    """All kept predictions of some chunks.

    Args:
        paths: Files of the chunks.
        swapped: Share of the predictions shown under another caption of their chunk.
    """

    def __init__(self, paths: list[Path], swapped: float) -> None:
        from safetensors import safe_open

        self.swapped = swapped
        self.chunks = []
        for path in paths:
            with safe_open(path, framework="pt") as file:
                parts = {name: file.get_tensor(name) for name in ("latents", "times", "chance")}
                self.chunks.append({**parts, "captions": json.loads(file.metadata()["captions"])})
        self.runs, self.kept = self.chunks[0]["latents"].shape[:2]
        self.repeats = self.runs // len(self.chunks[0]["captions"])

    def __len__(self) -> int:
        """Predictions."""
        return len(self.chunks) * int(self.runs) * int(self.kept)

    def __getitem__(self, index: int) -> LatentTrajectoryItem:
        """One prediction, its time, a caption, the chance of its end under the caption, whether it is its own."""
        rest, step = divmod(index, self.kept)
        number, run = divmod(rest, self.runs)
        chunk = self.chunks[number]
        caption, count = run // self.repeats, len(chunk["captions"])
        own = count == 1 or float(torch.rand(())) >= self.swapped
        if not own:
            caption = (caption + int(torch.randint(1, count, ()))) % count
        found = chunk["latents"][run, step].float(), float(chunk["times"][step]), chunk["captions"][caption]
        return (*found, float(chunk["chance"][run, caption]), own)


def _collated(items: list[LatentTrajectoryItem]) -> LatentTrajectoryBatch:
    latents, time, captions, chance, own = zip(*items, strict=True)
    return {
        "latents": torch.stack(latents),
        "time": torch.tensor(time),
        "captions": list(captions),
        "chance": torch.tensor(chance),
        "own": torch.tensor(own),
    }

"""The evaluation set of the judge: real scenes with a prompt that they show and a prompt that they do not."""

from typing import Any, TypedDict

import torch
from torch.utils.data import Dataset

from fklit.emoji.art import EmojiArt
from fklit.emoji.hard_negatives import fulfills, hard_negative
from fklit.emoji.prompts import all_prompts
from fklit.emoji.scenes import compose, place, scene_rng
from fklit.metrics.geneval import TAGS


class EvaluationItem(TypedDict):
    """A scene float32 (3, 64, 64) in [0, 1], the metadata of its prompt, and that of a prompt it does not show."""

    image: torch.Tensor
    metadata: dict[str, Any]
    wrong: dict[str, Any]


class EvaluationDataset(Dataset[EvaluationItem]):
    """Scenes that a judge must find right for their prompt and wrong for another one that differs in one thing.

    All six tasks in turn, with the pairs of objects that no training scene of the generator holds as they come.

    Args:
        art: The sprites.
        length: Number of scenes.
        seed: Of the stream.
    """

    def __init__(self, art: EmojiArt, length: int, *, seed: int) -> None:
        self.art = art
        self.length = length
        self.seed = seed
        self._prompts = [all_prompts(tag) for tag in TAGS]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EvaluationItem:
        rng = scene_rng(self.seed, index)
        choices = self._prompts[index % len(TAGS)]
        prompt = choices[int(rng.integers(len(choices)))]
        scene = place(prompt, rng)
        wrong = hard_negative(prompt, rng)
        while fulfills(scene, wrong):
            wrong = hard_negative(prompt, rng)
        image = torch.from_numpy(compose(scene, self.art)).permute(2, 0, 1).float() / 255
        return EvaluationItem(image=image, metadata=prompt.metadata(), wrong=wrong.metadata())


def collate_evaluation(items: list[EvaluationItem]) -> dict[str, Any]:
    """Joins items; metadata stay lists, because they differ in form."""
    return {
        "image": torch.stack([item["image"] for item in items]),
        "metadata": [item["metadata"] for item in items],
        "wrong": [item["wrong"] for item in items],
    }

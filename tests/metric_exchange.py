"""Run by `metrics/test_two_processes.py`: metrics of two processes, each fed with its share."""

import json
import sys

import torch
from torch import distributed
from torch.utils.data import DistributedSampler
from torchmetrics.image import TotalVariation

from fklit.metrics import CLIPFID, CLIPKID, ChosenSamples, CLIPDiversity, Compositional, MeanCLIPScore, SampleBatch

TAGS = ["colors", "position", "counting"]


def samples(number):
    colors = torch.rand(number, 2, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return colors * torch.rand(number, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def figures(clip, real, number, rank=0, world=1, *, padded=True):
    """Metrics of one process's share; without padding the last process may have nothing at all."""
    metrics = {
        "clip": MeanCLIPScore(clip, by="tag"),
        "diversity": CLIPDiversity(clip),
        "judge": Compositional(),
        "fid": CLIPFID(clip, real=real, min_samples=2),
        "kid": CLIPKID(clip, real=real, min_samples=2),
    }
    if not padded:  # each prompt comes once: metrics of torchmetrics cannot tell repeated ones apart
        metrics["variation"] = ChosenSamples(TotalVariation(reduction="mean"))
    sampler = DistributedSampler(range(number), world, rank, shuffle=False)
    shares = [*sampler] if padded else [*range(rank, number, world)]
    images = samples(number)
    for start in range(0, max(len(shares), 1), 2):
        rows = shares[start : start + 2]
        metadata = [{"tag": TAGS[row % 3], "include": [{"class": "cat"}]} for row in rows]
        indices = torch.tensor(rows, dtype=torch.int64)
        batch = SampleBatch([f"a cat {row}" for row in rows], metadata, indices % 2, indices)
        for name, metric in metrics.items():
            if name == "judge":
                metric.update(images[rows], batch, images[rows].mean((1, 3, 4)).double())
            elif rows or name != "variation":
                metric.update(images[rows], batch)
    found = {}
    for name, metric in metrics.items():
        value = metric.compute()
        values = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        found |= {key: float(v) for key, v in values.items()}
    return found


if __name__ == "__main__":
    clip, real, store, rank = sys.argv[1:5]
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
    found = [figures(clip, real, 5, int(rank), 2), figures(clip, real, 5, int(rank), 2, padded=False)]
    print(json.dumps(found))
    distributed.destroy_process_group()

"""Run by `metrics/test_text_metrics_of_processes.py`: metrics of texts of two processes, each fed with its share."""

import json
import sys

import torch
from torch import distributed
from torch.utils.data import DistributedSampler

from fklit.metrics import AcceptanceRate, Distinct, SelfBLEU, TextPerplexity, text_batch
from fklit.rewards import RegexScore

TEXTS = [
    ["the king went", "the people went out"],
    ["he said , go", "he went out of the city"],
    ["a great king", "a great city"],
    ["go", "go out , he said to the people of the city"],
    ["and", "and he went out"],
]


def figures(judge, rank=0, world=1, *, padded=True):
    """Metrics of one process's share; without padding the last process has less, and of one prompt nothing at all."""
    metrics = {
        "perplexity": TextPerplexity(judge),
        "accepted": AcceptanceRate(RegexScore("king|city"), 1.0),
        "distinct": Distinct(),
        "alike": SelfBLEU(1, with_prompt=True),
    }
    number = len(TEXTS) if padded else 1
    sampler = DistributedSampler(range(number), world, rank, shuffle=False)
    shares = [*sampler] if padded else [*range(rank, number, world)]
    for start in range(0, max(len(shares), 1), 2):
        rows = shares[start : start + 2]
        samples, batch = text_batch([TEXTS[row] for row in rows], [f"prompt {row % 2}" for row in rows])
        batch.indices.copy_(torch.tensor(rows, dtype=torch.int64))
        for metric in metrics.values():
            metric.update(samples, batch)
    found = {}
    for name, metric in metrics.items():
        value = metric.compute()
        values = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        found |= {key: float(v) for key, v in values.items()}
    return found


if __name__ == "__main__":
    judge, store, rank = sys.argv[1:4]
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
    print(json.dumps([figures(judge, int(rank), 2), figures(judge, int(rank), 2, padded=False)]))
    distributed.destroy_process_group()

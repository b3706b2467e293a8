"""Speed of text sampling: calls saved by caching, scoring in one batch, tokens a second against a plain loop."""

import time
from typing import Any

import torch

from fklit.feynman_kac import group_generators, run
from fklit.rewards import Reward
from fklit.text import DiffusionTransformer, LogLinearSchedule, MaskedTextModel, TextSampling, TransformerSettings
from fklit.text.ancestral import AncestralModel
from fklit.text.denoising import Denoising


def calls_saved(num_steps: int = 1000, length: int = 128, particles: int = 4) -> dict[str, float]:
    """Denoiser calls of a run against one call a particle and step; weights do not matter to the count."""
    network = DiffusionTransformer(TransformerSettings(vocab_size=32, width=8, layers=1, heads=2)).eval()
    start = torch.full((1, length), 3)
    model = AncestralModel(Denoising(network, mask=3), start, num_steps=num_steps, schedule=LogLinearSchedule())
    run(model, num_particles=particles, generator=group_generators(0, 1))
    calls = model.budget.denoiser_calls
    return {"calls": calls, "without": num_steps * particles, "saved": 1 - calls / (num_steps * particles)}


def batched_scoring(reward: Reward, texts: list[str]) -> dict[str, float]:
    """Seconds of one batch against one call a text."""
    reward.load()
    reward(texts[:2], [""] * 2)
    start = time.perf_counter()
    together = reward(texts, [""] * len(texts))
    middle = time.perf_counter()
    alone = torch.cat([reward([text], [""]) for text in texts])
    end = time.perf_counter()
    assert torch.allclose(together, alone, atol=1e-3)
    return {"batch": middle - start, "one by one": end - middle, "ratio": (end - middle) / (middle - start)}


@torch.no_grad()
def plain_sampler(model: MaskedTextModel, number: int, sampling: TextSampling, seed: int) -> torch.Tensor:
    """A plain loop in the style of the published sampler: all logits at every step, unless nothing changed."""
    torch.manual_seed(seed)
    tokens = torch.full((number, sampling.length), model.mask, device=model.device)
    cached: torch.Tensor | None = None
    for step in range(sampling.num_steps):
        t, s = 1 - step / sampling.num_steps, 1 - (step + 1) / sampling.num_steps
        if cached is None:
            logits = model.denoiser(tokens, torch.ones_like(tokens, dtype=torch.bool)).view(*tokens.shape, -1)
            logits[..., [model.mask, *model.never]] = -torch.inf
            cached = (logits / sampling.temperature).softmax(-1)
        law = cached * (t - s)
        law[..., model.mask] = s
        gumbel = 1e-10 - (torch.rand_like(law) + 1e-10).log()
        drawn = torch.where(tokens == model.mask, (law / gumbel).argmax(-1), tokens)
        cached = cached if torch.equal(drawn, tokens) else None
        tokens = drawn
    return tokens


def tokens_per_second(model: MaskedTextModel, number: int, sampling: TextSampling) -> dict[str, float]:
    """Tokens a second of fklit's sampler and of the plain loop, on the same model and batch."""
    model.sampling = sampling
    model.sample("", number, seed=0)
    start = time.perf_counter()
    model.sample("", number, seed=1)
    middle = time.perf_counter()
    plain_sampler(model, number, sampling, 1)
    end = time.perf_counter()
    made = number * sampling.length
    return {
        "fklit": made / (middle - start),
        "plain": made / (end - middle),
        "ratio": (end - middle) / (middle - start),
    }


def measure(model: MaskedTextModel, reward: Reward, *, quick: bool) -> dict[str, Any]:
    """All three."""
    sampling = TextSampling(num_steps=8 if quick else 32, temperature=0.8)
    texts = [row[0] for row in [model.sample("", 1, seed=i) for i in range(4)]] if quick else None
    texts = texts or model.sample("", 64, seed=0)[0]
    size = (60, 16) if quick else (1000, 128)
    return {
        "caching": calls_saved(*size),
        "scoring": batched_scoring(reward, texts),
        "sampling": tokens_per_second(model, 4 if quick else 64, sampling),
    }

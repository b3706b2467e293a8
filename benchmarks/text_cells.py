"""The cells of `benchmarks/text.py`: what determines them, how they are computed, and how they are kept on disk."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fklit import assets, steer
from fklit.feynman_kac.schedule import Schedule
from fklit.fingerprint import fingerprint
from fklit.rewards import Reward
from fklit.sampling.describe import settings_hash
from fklit.text import MaskedTextModel, TextSampling

# Openings that the model's vocabulary has; none was used to choose a setting.
PROMPTS = (
    "the king said to", "a woman came to", "in the morning", "my son,", "when the sun went down", "the children of",
    "there was a man who", "I will give you", "the water of the river", "the old man and his", "do not fear",
    "at the end of the day", "they went out to", "he took the bread and", "the young men", "a voice came out of",
    "we have heard that", "the house of the", "you shall not", "who is this", "his servants said to him",
    "the stones of the wall", "in those days", "she took the child", "the wicked man", "bring me a",
    "the mountains and", "an old prophet", "they made a great feast", "the enemy came against", "if a man has",
    "blessed is the man",
    "the ships of the sea", "his brothers saw that", "on the seventh day",
)  # fmt: skip

_CHUNKS = 8


@dataclass(frozen=True)
class Attribute:
    """What texts are steered towards, and who else judges it.

    Attributes:
        name: Its name.
        guide: Makes the reward.
        judge: Makes the held-out judge; None if there is none.
        scale: Reward scale.
    """

    name: str
    guide: Any
    judge: Any
    scale: float


@dataclass(frozen=True)
class Arm:
    """A way to sample K texts of a prompt.

    Attributes:
        name: "pool" for unsteered texts.
        k: K.
        draws: N, clean texts drawn of each particle at a scored step.
        sweeps: Of particle Gibbs.
    """

    name: str
    k: int
    draws: int = 1
    sweeps: int = 0


@dataclass(frozen=True)
class Plan:
    """Everything that determines the cells.

    Attributes:
        arms: The pool first, then the steered ones.
        continuations: Runs of each prompt and seed.
        window: Start, stop and every of the scored steps.
        rows: Rows that a network gets at once.
        autocast: Precision of all networks, by its name in torch; None for that of their weights.
    """

    arms: tuple[Arm, ...]
    attributes: tuple[Attribute, ...]
    prompts: tuple[str, ...]
    continuations: int
    seeds: tuple[int, ...]
    sampling: TextSampling
    model: str = "fklit:text_diffusion"
    guide: str = "fklit:text_guide"
    judge: str = ""
    window: tuple[float, float, float] = (0.1, 0.9, 0.1)
    rows: int = 64
    device: str = "cpu"
    autocast: str | None = None

    @property
    def digest(self) -> str:
        """Hash of what all cells share."""
        folder = assets.shipped(self.model) or Path(self.model)
        shared: dict[str, Any] = {
            "model": fingerprint(folder),
            "sampling": repr(self.sampling),
            "window": list(self.window),
        }
        shared |= {"guide": self.guide, "judge": self.judge, "autocast": self.autocast}
        return settings_hash({**shared, "prompts": list(self.prompts), "continuations": self.continuations})[:12]

    def units(self) -> Iterator[tuple[Arm, Attribute | None, int]]:
        """What is computed at once: an arm, an attribute (None for the pool) and a seed."""
        for seed in self.seeds:
            for arm in self.arms:
                for attribute in (None,) if arm.name == "pool" else self.attributes:
                    yield arm, attribute, seed


def file_of(folder: Path, arm: Arm, attribute: Attribute | None, seed: int) -> Path:
    """Where the cells of a unit are."""
    what = "base" if attribute is None else f"{attribute.name}-x{attribute.scale:g}"
    return folder / f"{arm.name}-k{arm.k}-n{arm.draws}-s{arm.sweeps}-{what}-{seed}.json"


def run_cells(plan: Plan, folder: Path, *, shard: int = 0, shards: int = 1, advance: Any = lambda: None) -> None:
    """Compute every `shards`-th unit that is not on disk."""
    model = MaskedTextModel.from_folder(plan.model, sampling=plan.sampling, device=plan.device)
    guides = {attribute.name: attribute.guide().to(plan.device) for attribute in plan.attributes}
    # Attributes of one judge share it.
    made = {kind: kind().to(plan.device) for kind in {a.judge for a in plan.attributes if a.judge is not None}}
    judges = {a.name: made[a.judge] for a in plan.attributes if a.judge is not None}
    precision = getattr(torch, plan.autocast or "bfloat16")
    with torch.autocast(torch.device(plan.device).type, precision, enabled=plan.autocast is not None):
        for number, unit in enumerate(plan.units()):
            path = file_of(folder, *unit)
            if number % shards == shard:
                if not path.is_file():
                    _write(path, _unit(plan, unit, model, guides, judges))
                else:
                    _score_more(path, unit[1], guides, judges)
            advance()


def _write(path: Path, cells: list[dict[str, Any]]) -> None:
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(json.dumps(cells), encoding="utf-8")
    os.replace(part, path)


def _score_more(path: Path, attribute: Attribute | None, guides: dict[str, Reward], judges: dict[str, Reward]) -> None:
    """Score texts that are on disk by what was asked for later: attributes of the pool, and judges."""
    cells = json.loads(path.read_text(encoding="utf-8"))
    wanted = guides if attribute is None else {attribute.name: guides[attribute.name]}
    unscored = [name for name in wanted if name not in cells[0]["guide"]]
    unjudged = {name: judges[name] for name in wanted if name in judges and name not in cells[0]["judge"]}
    if not unscored and not unjudged:
        return
    for cell in cells:
        cell["guide"] |= {name: _scores(guides[name], cell["texts"], cell["prompt"]) for name in unscored}
        cell["judge"] |= _judged(unjudged, cell, None if attribute is None else cell["chosen"])
    _write(path, cells)


def _unit(
    plan: Plan,
    unit: tuple[Arm, Attribute | None, int],
    model: MaskedTextModel,
    guides: dict[str, Reward],
    judges: dict[str, Reward],
) -> list[dict[str, Any]]:
    """Cells of a unit, one for each prompt and continuation, in the order of the prompts."""
    arm, attribute, seed = unit
    texts = [prompt for prompt in plan.prompts for _ in range(plan.continuations)]
    # Many more particles than rows: a step asks for some of them only, and chunks are filled up to all rows.
    size = max(1, _CHUNKS * plan.rows // arm.k)
    start, stop, every = plan.window
    cells: list[dict[str, Any]] = []
    for first in range(0, len(texts), size):
        some = texts[first : first + size]
        result = steer(
            model,
            some,
            reward=guides[plan.attributes[0].name if attribute is None else attribute.name],
            reward_scale=0.0 if attribute is None else attribute.scale,
            potential="terminal" if attribute is None else "difference",
            reward_schedule=Schedule(start=start, stop=stop, every=every),
            num_particles=arm.k,
            num_sweeps=arm.sweeps,
            previews=False,
            seed=seed,
            max_batch=plan.rows,
            prompt_indices=range(first, first + len(some)),
            pipeline_kwargs={"num_draws": arm.draws},
        )
        share = 1 / len(some)
        for b, prompt in enumerate(some):
            made, chosen = result.items[b], int(result.best_index()[b])
            wanted = guides if attribute is None else {attribute.name: guides[attribute.name]}
            cell: dict[str, Any] = {
                "prompt": prompt,
                "index": first + b,
                "texts": made,
                "chosen": chosen,
                "guide": {name: _scores(guide, made, prompt) for name, guide in wanted.items()},
                "denoiser_calls": result.budget.denoiser_calls * share,
                "reward_calls": result.budget.reward_calls * share,
                "seconds": result.budget.seconds * share,
                "roots": int(result.unique_roots[b]),
            }
            asked = {name: judges[name] for name in wanted if name in judges}
            cell["judge"] = _judged(asked, cell, None if attribute is None else chosen)
            cells.append(cell)
    return cells


def _scores(reward: Reward, texts: list[str], prompt: str) -> list[float]:
    return [float(score) for score in reward(texts, [prompt] * len(texts)).cpu()]


def _judged(judges: dict[str, Reward], cell: dict[str, Any], chosen: int | None) -> dict[str, list[float | None]]:
    """Scores of all texts, or of the chosen one alone, since judges are large; each judge is asked once."""
    texts, found = cell["texts"], {}
    for judge in set(judges.values()):
        if chosen is None:
            found[judge] = [*_scores(judge, texts, cell["prompt"])]
        else:
            score = _scores(judge, [texts[chosen]], cell["prompt"])[0]
            found[judge] = [score if number == chosen else None for number in range(len(texts))]
    return {name: found[judge] for name, judge in judges.items()}


def read_cells(folder: Path, plan: Plan) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Cells on disk by arm (with K) and attribute ("base" for the pool), each with its seed.

    Raises:
        FileNotFoundError: A unit is missing.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for arm, attribute, seed in plan.units():
        cells = json.loads(file_of(folder, arm, attribute, seed).read_text(encoding="utf-8"))
        name = "base" if attribute is None else attribute.name
        found.setdefault((label(arm), name), []).extend({**cell, "seed": seed} for cell in cells)
    return found


def label(arm: Arm) -> str:
    """Name of an arm for tables and JSON."""
    if arm.name == "pool":
        return "pool"
    sweeps = f" + {arm.sweeps} sweeps" if arm.sweeps else ""
    return f"K{arm.k}, {arm.draws} draw{'s' if arm.draws > 1 else ''}{sweeps}"

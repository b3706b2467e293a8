"""The cells of `benchmarks/steering.py`: what determines them, how one is computed, and how they are kept on disk."""

import json
import os
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from steering_methods import method_settings

from fklit import assets, steer
from fklit.emoji.prompts import ScenePrompt
from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Linear
from fklit.sampling.describe import settings_hash

# Chosen with --tune, on prompts that the benchmark does not use.
POTENTIAL, SCALE, SCHEDULE, ESS_THRESHOLD, FIRST = "difference", 16.0, (0.2, 0.8, 0.1), 0.5, 1.0


@dataclass(frozen=True)
class Arm:
    """A way to sample ``k`` samples of a prompt; ``scale`` None stands for unsteered sampling."""

    name: str
    k: int
    eta: float = 1.0
    scale: float | None = None
    schedule: tuple[float, float, float] = SCHEDULE
    potential: str = POTENTIAL
    ess_threshold: float = ESS_THRESHOLD
    first: float = FIRST  # share of the scale at which its line to the full one starts; 1 for a constant scale
    method: str = ""  # what is changed besides, see `steering_methods`


@dataclass(frozen=True)
class Plan:
    """Everything that determines the cells."""

    arms: tuple[Arm, ...]
    prompts: tuple[ScenePrompt, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    pipeline: str
    reward: str
    judge: str
    device: str = "cpu"
    rows: int = 48  # every call of every arm has about as many samples, so that seconds compare
    autocast: str | None = None  # precision of all networks but the judge; float32 if None

    @property
    def digest(self) -> str:
        """Hash of the settings that all cells share; arms, prompts and seeds are told apart by the cells themselves."""
        precision = {} if self.autocast is None else {"autocast": self.autocast}
        shared = {"steps": self.steps, "guidance": self.guidance, **precision}
        return settings_hash(shared | fingerprints(self))[:12]

    def units(self) -> list[tuple[int, tuple[int, ...]]]:
        """Seeds and groups of prompts, the grain at which work is shared: all arms of a unit run after one another."""
        size = max(12, self.rows // 4)
        group = range(0, len(self.prompts), size)
        return [(s, tuple(range(i, min(i + size, len(self.prompts))))) for s in self.seeds for i in group]


def fingerprints(plan: Plan) -> dict[str, Any]:
    """Contents of the models, so that retrained ones are measured anew."""
    from fklit.fingerprint import fingerprint

    names = (plan.pipeline, plan.reward, plan.judge)
    return {name: fingerprint(assets.path(name.split(":", 1)[1]) if ":" in name else Path(name)) for name in names}


def key(arm: Arm, prompt: str, seed: int) -> str:
    """Name of a cell."""
    made = {name: value for name, value in asdict(arm).items() if name != "method" or value}
    return json.dumps([made, prompt, seed], sort_keys=True)


def read_cells(folder: Path) -> dict[str, dict[str, Any]]:
    """All finished cells; a line cut short by a crash is passed over."""
    cells = {}
    for path in sorted(folder.glob("cells.*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                cell = json.loads(line)
            except ValueError:
                continue
            cells[cell["key"]] = cell
    return cells


def append(path: Path, cells: Sequence[dict[str, Any]]) -> None:
    """Add lines in one write; what a crash leaves of it is a broken line, which does not count."""
    text = "".join(json.dumps(cell) + "\n" for cell in cells)
    fresh = not path.exists() or _last_byte(path) in (b"", b"\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, (("" if fresh else "\n") + text).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
        return file.read(1)


def run_cells(plan: Plan, folder: Path, *, models: tuple[Any, Any, Any], shard: int = 0, shards: int = 1) -> None:
    """Compute this shard's cells that are not on disk.

    Args:
        plan: what to compute.
        folder: where the cells are.
        models: pipeline, reward and judge.
        shard: which of the ``shards`` processes this one is.
        shards: number of processes.
    """
    pipeline, reward, judge = models
    done = set(read_cells(folder))
    for seed, indices in plan.units()[shard::shards]:
        for arm in plan.arms:
            todo = [i for i in indices if key(arm, plan.prompts[i].text, seed) not in done]
            size = max(1, plan.rows // arm.k)
            for start in range(0, len(todo), size):
                batch = todo[start : start + size]
                append(folder / f"cells.{shard}.jsonl", _call(plan, arm, seed, batch, pipeline, reward, judge))


def steered(plan: Plan, arm: Arm, seed: int, batch: list[int], pipeline: Any, reward: Any) -> Any:
    """Sample a few of the plan's prompts as an arm does."""
    with autocast(plan):
        return _steered(plan, arm, seed, batch, pipeline, reward)


def autocast(plan: Plan) -> AbstractContextManager[Any]:
    """The precision of the plan."""
    if plan.autocast is None:
        return nullcontext()
    return torch.autocast(torch.device(plan.device).type, getattr(torch, plan.autocast))


def _steered(plan: Plan, arm: Arm, seed: int, batch: list[int], pipeline: Any, reward: Any) -> Any:
    prompts = [plan.prompts[i] for i in batch]
    start, stop, every = arm.schedule
    usual = {
        "potential": "terminal" if arm.scale is None else arm.potential,
        "reward_scale": 1.0 if arm.scale is None else arm.scale,
        "reward_schedule": Schedule(start=start, stop=stop, every=every),
        "ess_threshold": arm.ess_threshold,
        "tempering": Linear(arm.first),
    }
    return steer(
        pipeline,
        [prompt.text for prompt in prompts],
        reward=reward,
        num_particles=arm.k,
        **method_settings(arm.method, arm.k, usual),
        seed=seed,
        # Noise follows from the prompt, not from its place in a list that another run may order otherwise.
        prompt_indices=[zlib.crc32(prompt.text.encode()) for prompt in prompts],
        scheduler="keep",
        previews=False,
        pipeline_kwargs={"num_inference_steps": plan.steps, "guidance_scale": plan.guidance, "eta": arm.eta},
    )


def _call(
    plan: Plan, arm: Arm, seed: int, batch: list[int], pipeline: Any, reward: Any, judge: Any
) -> list[dict[str, Any]]:
    result = steered(plan, arm, seed, batch, pipeline, reward)
    cells = []
    for b, prompt in enumerate(plan.prompts[i] for i in batch):
        verdicts = judge.judge(result.samples[b], [prompt.metadata()] * arm.k)
        record = result.record(b)
        cells.append(
            {
                "key": key(arm, prompt.text, seed),
                "arm": arm.name,
                "k": arm.k,
                "seed": seed,
                "prompt": prompt.text,
                "tag": prompt.tag,
                "held_out": prompt.held_out,
                "rewards": record["rewards"],
                "weights": result.log_weights[b].exp().tolist(),
                "judge": [float(verdict.correct) for verdict in verdicts],
                "best": record["best"],
                "unique_roots": record["unique_roots"],
                "log_z": record["log_z"],
                "resampled": sum(record["resampled"]),
                **record["budget"],
            }
        )
    return cells

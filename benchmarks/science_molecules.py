"""The cells of benchmarks/science.py on molecules: two conditions at once, at equal calls of the denoiser."""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from science_clusters import ROOT, Cell
from science_costs import Run, costs
from science_counts import counts_arm, counts_arms
from torch import Tensor

from fklit import assets, steer
from fklit.cli import main as fklit_command
from fklit.fingerprint import fingerprint
from fklit.metrics import MoleculeObjectives, MoleculeQuality, text_batch
from fklit.molecules import MoleculeModel, SymbolChain, read_molecules, sample_product, write_molecules
from fklit.rewards import QED, SyntheticAccessibility, WeightedSum
from fklit.rewards.molecule_properties import measure
from fklit.sampling.describe import settings_hash

COLUMNS = (
    "met",
    "drug_like_and_easy",
    "valid",
    "unique",
    "novel",
    "internal_diversity",
    "hypervolume",
    "min_ess",
    "calls",
)


def cells(given: argparse.Namespace) -> Iterator[Cell]:
    """Every arm of a seed before the next seed. A cell is one run, which makes as many molecules as all others."""
    if given.quick:
        train_quickly(given)
    model = MoleculeModel.from_folder(given.molecules_model, device=given.device)
    measured = partial(figures, given, model)
    first, second = given.conditions
    both = f"{first} {second}"
    three, two, mean = [first, second, ""], [first, second], [0.5, 0.5]
    arms: dict[str, Run] = {
        "unconditioned": partial(plain, given, model, ""),
        first: partial(plain, given, model, first),
        second: partial(plain, given, model, second),
        "both in one prompt": partial(plain, given, model, both),
        "heuristic average": partial(product, given, model, two, mean, False),
        "weighted average": partial(product, given, model, two, mean, True),
        "best of n": partial(best_of, given, model, first, 3),
        "FK steering": partial(steered, given, model),
        "best of n by the rewards": partial(best_of, given, model, "", 3),
    }
    for strength in given.strengths:
        exponents = [strength, strength, 1 - 2 * strength]
        for word, corrected in (("heuristic", False), ("weighted", True)):
            arms[product_arm(word, strength)] = partial(product, given, model, three, exponents, corrected)
    arms |= counts_arms(given, model)
    for seed in range(given.first_run, given.first_run + given.runs):
        for name, run in arms.items():
            yield Cell(" and ".join(given.conditions), name, seed, partial(measured, run, seed))


def product_arm(word: str, strength: float) -> str:
    """Name of an arm that samples `p(x) (p(x | first) p(x | second) / p(x)^2)^strength`."""
    return f"{word} product" if strength == 1 else f"{word} product, strength {strength:g}"


def cells_file(given: argparse.Namespace, name: str) -> Path:
    """Where the cells of this model and these settings are."""
    folder = assets.shipped(str(given.molecules_model)) or Path(given.molecules_model)
    shared = {"model": fingerprint(folder), "train": fingerprint(given.molecules_train)}
    for key in ("conditions", "molecules", "molecule_steps", "count_steps", "group", "reward_scale", "autocast"):
        shared[key] = getattr(given, key)
    return given.output / f"{name}.molecules.{settings_hash(shared)[:12]}.cells.jsonl"


def plain(given: argparse.Namespace, model: MoleculeModel, prompt: str, seed: int) -> tuple[list[str], dict[str, Any]]:
    """The model under one prompt."""
    result = sample_product(model, [prompt], corrected=False, **settings(given, seed))
    return result.smiles[0], costs(result)


def product(
    given: argparse.Namespace,
    model: MoleculeModel,
    conditions: list[str],
    exponents: list[float],
    corrected: bool,
    seed: int,
) -> tuple[list[str], dict[str, Any]]:
    """The product of the conditions, drawn by weight."""
    result = sample_product(model, conditions, exponents, corrected=corrected, **settings(given, seed))
    return result.sample_smiles(given.molecules, seed=seed)[0], costs(result)


def best_of(
    given: argparse.Namespace, model: MoleculeModel, prompt: str, n: int, seed: int
) -> tuple[list[str], dict[str, Any]]:
    """N times as many molecules under a prompt, as many calls as n experts; of each n neighbors the best stays.

    Under a condition it is one that is in the ranges of most conditions, which is what the table counts; without one it
    is the best by the rewards that steer.
    """
    some = {**settings(given, seed), "num_particles": n * given.molecules}
    result = sample_product(model, [prompt], corrected=False, **some)
    made = result.smiles[0]
    if prompt:
        rows, conditions = properties(model, made), model.vocabulary.conditions
        scores = sum(conditions.met(one, rows).double() for one in given.conditions)
    else:
        scores = objective()(made, [""] * n * given.molecules)
    chosen = torch.as_tensor(scores).view(given.molecules, n).argmax(dim=1).tolist()
    return [made[row * n + best] for row, best in enumerate(chosen)], costs(result)


def steered(given: argparse.Namespace, model: MoleculeModel, seed: int) -> tuple[list[str], dict[str, Any]]:
    """FK steering of the unconditioned model by the sum of both rewards, in groups, drawn by weight."""
    groups = max(given.molecules // given.group, 1)
    begun = time.perf_counter()
    result = steer(
        model,
        [""] * groups,
        reward=objective(),
        reward_scale=given.reward_scale,
        num_particles=3 * given.group,
        previews=False,
        seed=seed,
        max_batch=given.rows,
        pipeline_kwargs={"num_steps": given.molecule_steps},
    )
    slots = result.sample_index(given.group, seed=seed, systematic=True).tolist()
    made = [result.items[b][slot] for b, chosen in enumerate(slots) for slot in chosen]
    found = {"calls": result.budget.denoiser_calls, "seconds": time.perf_counter() - begun}
    return made, found | {"min_ess": float(result.min_ess.mean()) / (3 * given.group)}


def settings(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What all arms share."""
    return {
        "num_particles": given.molecules,
        "num_steps": given.molecule_steps,
        "max_batch": given.rows,
        "seed": seed,
    }


def autocast(given: argparse.Namespace) -> torch.autocast:
    """The precision of the network."""
    precision = getattr(torch, given.autocast or "bfloat16")
    return torch.autocast(torch.device(given.device).type, precision, enabled=given.autocast is not None)


def objective() -> WeightedSum:
    """QED and ease of synthesis, each divided by its standard deviation over MOSES, about 0.1 and 0.05."""
    return WeightedSum([QED(), SyntheticAccessibility()], [1.0, 2.0])


def properties(model: MoleculeModel, made: list[str]) -> Tensor:
    """The conditioned properties of each molecule, (n, p); NaN of what is none."""
    names = model.vocabulary.conditions.names
    measured = [measure(text, names) for text in made]
    return torch.tensor([[math.nan] * len(names) if row is None else row for row in measured])


def figures(given: argparse.Namespace, model: MoleculeModel, run: Run, seed: int) -> dict[str, Any]:
    """What a run made, measured.

    `met` is the share in the range of both conditions, `drug_like_and_easy` that in the best thirds of both rewards.
    """
    with autocast(given):
        made, found = run(seed)
    conditions = model.vocabulary.conditions
    rows = properties(model, made)
    if {"qed", "sa"} <= set(conditions.names):
        found["drug_like_and_easy"] = float(conditions.met("qed=high sa=low", rows).double().mean())
    for name, prompt in (("met", " ".join(given.conditions)), *((one, one) for one in given.conditions)):
        found[name] = float(conditions.met(prompt, rows).double().mean())
    quality = MoleculeQuality(str(given.molecules_train))
    rewards = {"qed": QED(), "sa": SyntheticAccessibility()}
    volume = MoleculeObjectives(rewards, dict.fromkeys(rewards, 0.0))
    for metric in (quality, volume):
        metric.update(*text_batch([made]))
    found |= {name: float(value) for name, value in quality.compute().items()}
    found["hypervolume"] = float(volume.compute()["hypervolume"])
    for name in ("qed", "sa"):
        if name in conditions.names:
            found[f"mean_{name}"] = float(rows[:, conditions.names.index(name)].nanmean())
    return found


def bootstrap(values: list[float], *, draws: int = 10_000) -> list[float]:
    """Mean over runs with the percentiles 2.5 and 97.5 of its bootstrap, runs drawn with replacement."""
    tensor = torch.tensor(values, dtype=torch.float64)
    picks = torch.randint(len(values), (draws, len(values)), generator=torch.Generator().manual_seed(0))
    low, high = torch.quantile(tensor[picks].mean(dim=1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [float(tensor.mean()), low, high]


def summarize(
    found: dict[tuple[str, str], list[dict[str, Any]]], strength: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Differences of the share that meets both, runs of one seed paired, and a row for each arm.

    The product is that of the counts where the conditions are counts, and "learned" then that of the experts that have
    learned them, of this strength; otherwise it is the latter.
    """
    by_arm = {arm: figures for (_, arm), figures in found.items()}

    def less(arm: str, other: str, figure: str) -> list[float]:
        pairs = zip(by_arm[arm], by_arm[other], strict=True)
        return bootstrap([one[figure] - two[figure] for one, two in pairs])

    weighted, heuristic = product_arm("weighted", strength), product_arm("heuristic", strength)
    learned = {
        "product_less_heuristic": less(weighted, heuristic, "met"),
        "product_less_best_of_n": less(weighted, "best of n", "met"),
    }
    summary: dict[str, Any] = {"strength": strength}
    if counts_arm("weighted") in by_arm:  # conditions that the experts know exactly
        weighted, heuristic = counts_arm("weighted"), counts_arm("heuristic")
        summary |= {f"learned_{name}": values for name, values in learned.items()}
    summary["product_less_heuristic"] = less(weighted, heuristic, "met")
    summary["product_less_best_of_n"] = less(weighted, "best of n", "met")
    if "drug_like_and_easy" in by_arm["FK steering"][0]:
        arms = ("FK steering", "best of n by the rewards")
        summary["steering_less_best_of_n"] = less(*arms, "drug_like_and_easy")
    rows = []
    for arm, runs in by_arm.items():
        # A run without two molecules has no diversity: such runs have no part in that mean, and are counted.
        known = {name: [run[name] for run in runs if not math.isnan(run[name])] for name in runs[0]}
        row = {name: bootstrap(values) if values else None for name, values in known.items()}
        missing = {name: len(runs) - len(values) for name, values in known.items() if len(values) < len(runs)}
        rows.append({"arm": arm, "runs": len(runs), "figures": row, "runs_without": missing})
    return summary, rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print one table."""
    names = [name for name in COLUMNS if any(name in row["figures"] for row in rows)]
    table = Table(title="molecules: mean over runs, 95 % interval")
    for column in ("arm", *names):
        table.add_column(column)
    for row in rows:
        found = [row["figures"].get(name) for name in names]
        texts = ["" if one is None else f"{one[0]:.3g} [{one[1]:.3g}, {one[2]:.3g}]" for one in found]
        table.add_row(row["arm"], *texts)
    console.print(table)


def train_quickly(given: argparse.Namespace) -> None:
    """A tiny data set and a tiny network by the configuration for smoke tests."""
    given.molecules_model = given.output / "quick-molecules"
    given.molecules_train = given.output / "quick-moses" / "train.smi"
    if (given.molecules_model / "config.json").is_file():
        return
    ends = ("C1CC1", "C(=O)O", "CCl", "CN", "C", "CC", "CO", "c1ccccc1")
    starts = ("O", "c1ccccc1", "c1ccc2ccccc2c1")
    smiles = [start + "C" * length + end for end in ends for length in range(1, 6) for start in starts]
    folder, properties = given.molecules_train.parent, ("qed", "sa", "logp", "oxygens", "heavy_atoms")
    write_molecules(smiles[:100], smiles[100:], folder, properties=properties, max_symbols=20)
    words = ["fit", "--config", str(ROOT / "configs" / "debug" / "molecules.yaml")]
    words += ["--data.init_args.data_dir", str(given.molecules_train.parent)]
    words += ["--model.init_args.tokenizer", str(given.molecules_train.parent / "tokenizer")]
    words += ["--model.init_args.export_dir", str(given.molecules_model), "--trainer.max_steps", "30"]
    words += ["--trainer.callbacks", json.dumps([])]
    words += ["--trainer.enable_checkpointing", "false"]
    with patch.object(sys, "argv", ["fklit"]):  # the command line warns of words of its own beside those of Python
        fklit_command(words)
    vocabulary = MoleculeModel.from_folder(given.molecules_model).vocabulary
    SymbolChain.fitted(vocabulary, read_molecules(folder, "train").tokens).save(given.molecules_model)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the molecules add to the command line."""
    group = parser.add_argument_group("molecules")
    group.add_argument("--molecules-model", default="fklit:molecules", help="shipped name or exported folder")
    group.add_argument("--molecules-train", type=Path, default=Path("data/moses/train.smi"))
    group.add_argument("--conditions", nargs=2, default=["qed=high", "sa=low"], help="the two objectives")
    group.add_argument(
        "--strengths", type=float, nargs="+", default=[1.0], help="of products; the last is the chosen one"
    )
    group.add_argument("--runs", type=int, default=10, help="seeds of each arm")
    group.add_argument("--first-run", type=int, default=0, help="others than those that chose the strength")
    group.add_argument("--molecules", type=int, default=256, help="molecules of a run")
    group.add_argument("--molecule-steps", type=int, default=64)
    group.add_argument(
        "--count-steps", type=int, default=None, help="of products of counts; one symbol a step if left out"
    )
    group.add_argument("--group", type=int, default=32, help="molecules of one steered group, of three times as many")
    group.add_argument("--reward-scale", type=float, default=20.0)
    group.add_argument("--rows", type=int, default=256, help="rows that the network gets at once")
    group.add_argument("--autocast", choices=("bfloat16", "float16"), help="precision of the network; default float32")
    group.add_argument("--device", default="cpu")

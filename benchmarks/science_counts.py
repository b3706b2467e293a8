"""Arms of benchmarks/science.py in which a chain of symbols knows the two conditions exactly, as counts of atoms."""

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from science_costs import Run, costs
from torch import Tensor

from fklit.correctors import Target, simulate_masked
from fklit.feynman_kac import ParticleResult, ess
from fklit.molecules import AtomCount, Conditions, MoleculeModel, SymbolChain
from fklit.molecules.strings.counts_met import CountsMet


def counts_arms(given: argparse.Namespace, model: MoleculeModel) -> dict[str, Run]:
    """Products without and with weights, of an expert for each count and of one for both; none if one is no count."""
    found = [count_of(model.vocabulary.conditions, one) for one in given.conditions]
    counts = [one for one in found if one is not None]
    if len(counts) < len(found):
        return {}
    chain = SymbolChain.from_folder(given.molecules_model)
    arms: dict[str, Run] = {}
    for word, corrected in (("heuristic", False), ("weighted", True)):
        separate = [[one] for one in counts]
        arms[counts_arm(word)] = partial(counted, given, model, chain, separate, corrected)
        arms[f"{word}, both counts in one expert"] = partial(counted, given, model, chain, [counts], corrected)
    return arms


def counts_arm(word: str) -> str:
    """Name of an arm that samples the model times `p(x | count) / p(x)` of the chain for each count."""
    return f"{word} product of counts"


def count_of(conditions: Conditions, prompt: str) -> AtomCount | None:
    """The count of atoms whose range is that of a condition; None if it is no count, or of the mid range.

    Args:
        conditions: Of the model, with the edges of the ranges.
        prompt: One condition.
    """
    name, _, level = prompt.partition("=")
    element = {"oxygens": "O", "nitrogens": "N", "heavy_atoms": "heavy_atoms"}.get(name)
    if element is None or level not in ("low", "high"):
        return None
    low, high = conditions.edges[name]
    return AtomCount(element, at_most=int(low)) if level == "low" else AtomCount(element, at_least=int(high) + 1)


def counted(
    given: argparse.Namespace,
    model: MoleculeModel,
    chain: SymbolChain,
    groups: list[list[AtomCount]],
    corrected: bool,
    seed: int,
) -> tuple[list[str], dict[str, Any]]:
    """The model without a condition, times `p(x | counts) / p(x)` of the chain for each group, drawn by weight.

    As in `fklit.molecules.sample_product`, molecules in which RDKit counts otherwise than the chain have no weight in
    the end. `met_unchecked` is the share that met the counts before that.
    """
    denoising = model.denoising(max_batch=given.rows)
    experts: list[Any] = [model.expert(denoising=denoising)]
    experts += [chain.expert(some, vocab_size=model.network_vocab_size) for some in (*groups, [])]
    result = simulate_masked(
        Target.product(experts, [1.0] * (1 + len(groups)) + [-float(len(groups))]),
        num_particles=given.molecules,
        num_steps=given.count_steps,
        corrected=corrected,
        resampler="systematic",
        ess_threshold=0.5,
        seed=seed,
        device=model.device,
    )
    found: dict[str, Any] = {}
    if corrected:
        met = CountsMet(model, [one for some in groups for one in some])(result.samples)
        found["met_unchecked"] = float(met[0, drawn(result, seed)].exp().mean())
        if not (result.log_weights + met).isneginf().all():  # where none meets them, the run keeps what it has
            log_weights = torch.log_softmax(result.log_weights + met, dim=1)
            result = replace(result, log_weights=log_weights, ess=torch.cat([result.ess, ess(log_weights)[None]]))
    made = model.smiles(result.samples[0, drawn(result, seed)])
    return made, costs(result) | {"calls": denoising.calls} | found


def drawn(result: ParticleResult[Tensor], seed: int) -> Tensor:
    """Places of as many draws by weight as there are particles."""
    return result.sample_index(result.num_particles, seed=seed, systematic=True)[0]

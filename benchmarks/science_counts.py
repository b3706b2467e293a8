"""Arms of benchmarks/science.py in which a chain of symbols knows the two conditions exactly, as counts of atoms."""

import argparse
from functools import partial
from typing import Any

from science_costs import Run, costs

from fklit.correctors import Target, simulate_masked
from fklit.molecules import AtomCount, Conditions, MoleculeModel, SymbolChain


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
    """The model without a condition, times `p(x | counts) / p(x)` of the chain for each group, drawn by weight."""
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
    slots = result.sample_index(given.molecules, seed=seed, systematic=True)[0]
    return model.smiles(result.samples[0, slots]), costs(result) | {"calls": denoising.calls}

"""Products and powers of conditions, sampled with exact weights in one call."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fklit.correctors.discrete import simulate_masked
from fklit.correctors.targets import Target
from fklit.feynman_kac import Generators, ParticleResult, Resampler
from fklit.molecules.strings.atom_counts import AtomCount
from fklit.molecules.strings.counts_met import CountsMet
from fklit.molecules.strings.model import MoleculeModel
from fklit.molecules.strings.symbol_chain import SymbolChain


@dataclass(frozen=True, kw_only=True)
class MoleculeResult(ParticleResult[Tensor]):
    """Weighted molecules of B groups of K.

    `samples` are tokens (B, K, S) of symbols. `budget.denoiser_calls` counts rows that the denoiser was asked for.

    Attributes:
        smiles: B lists of K SMILES, empty where tokens make no molecule.
    """

    smiles: list[list[str]]

    def sample_smiles(self, n: int = 1, *, seed: int = 0) -> list[list[str]]:
        """Draws by weight, B lists of n SMILES, with as few copies as the weights allow (see `sample_index`)."""
        slots = self.sample_index(n, seed=seed, systematic=True).tolist()
        return [[row[slot] for slot in chosen] for row, chosen in zip(self.smiles, slots, strict=True)]


@torch.no_grad()
def sample_product(
    model: MoleculeModel,
    conditions: Sequence[str],
    exponents: Sequence[float] | None = None,
    *,
    counts: Sequence[AtomCount | str] = (),
    chain: SymbolChain | None = None,
    num_particles: int = 64,
    num_groups: int = 1,
    num_steps: int | None = None,
    corrected: bool = True,
    temperature: float | None = None,
    resampler: Resampler | str = "systematic",
    ess_threshold: float = 0.5,
    max_batch: int | None = None,
    seed: int = 0,
    generator: Generators = None,
) -> MoleculeResult:
    """Sample `prod_i p(molecule | condition_i)^exponent_i`, all conditions in one call of the denoiser a step.

    ```python
    sample_product(model, ["qed=high", "sa=low"])  # both conditions at once
    sample_product(model, ["qed=high", "sa=low", ""], [1.0, 1.0, -1.0])  # as independent given the molecule
    sample_product(model, ["qed=high"], [2.0])  # annealed
    chain = SymbolChain.from_folder("fklit:molecules")
    sample_product(model, [""], counts=["O>=4", "heavy_atoms<=20"], chain=chain)  # what the model was not trained for
    ```

    Args:
        model: The model.
        conditions: Prompts such as "qed=high"; an empty one is the model without a condition.
        exponents: One for each condition, of positive sum; 1 if not given.
        counts: Conditions on numbers of atoms that the molecules meet besides, such as "N=2". Two experts more: the
            chain under all of them to the power 1, and the chain to the power -1. Molecules in which RDKit counts
            otherwise, as SELFIES drops symbols for want of free valences and symbols of one step of a grid do not see
            each other, have no weight in the end (if corrected), nor have texts of no molecule. Texts that meet the
            counts only because symbols are dropped are left out. `log_z` is the log probability of the counts under
            the model less that under the chain.
        chain: Of the model's symbols; wanted with counts.
        num_particles: K.
        num_groups: B, independent runs side by side.
        num_steps: None writes one symbol a step, which has no error of steps. A number is T of a grid, see
            `fklit.correctors.simulate_masked`.
        corrected: False gives the heuristic sampler, with equal weights.
        temperature: Of the predictions; the model's default if not given.
        resampler: See `fklit.feynman_kac.resampling`.
        ess_threshold: Fraction of K below which a group resamples.
        max_batch: Most rows of the denoiser at once.
        seed: Of one generator for each group; ignored if `generator` is given.
        generator: One, or one for each group.

    Raises:
        ValueError: A condition is none of the model, exponents do not fit, counts come without a chain, or no molecule
            meets them all.
        DegenerateGroupError: No particle of a group meets the counts.
        ImportError: Counts without RDKit.
    """
    if isinstance(conditions, str) or not conditions:
        raise ValueError(f"expected a list of conditions, got {conditions!r}; give one or more, such as ['qed=high'].")
    given = [1.0] * len(conditions) if exponents is None else list(exponents)
    if len(given) != len(conditions):
        raise ValueError(
            f"expected an exponent for each of {len(conditions)} conditions, got {len(given)}; give one each."
        )
    denoising = model.denoising(temperature=temperature, max_batch=max_batch)
    experts: list[Any] = [model.expert(condition, denoising=denoising) for condition in conditions]
    if counts:
        experts += _counted(model, counts, chain)
        given += [1.0, -1.0]
    target = Target.product(experts, given)
    if counts and corrected:
        target = Target.tilted(target, CountsMet(model, counts), 1.0, gradient=False, potential="terminal")
    found = simulate_masked(
        target,
        num_particles=num_particles,
        num_groups=num_groups,
        num_steps=num_steps,
        corrected=corrected,
        resampler=resampler,
        ess_threshold=ess_threshold,
        seed=seed,
        generator=generator,
        device=model.device,
    )
    known = {item.name: getattr(found, item.name) for item in fields(ParticleResult)}
    known["budget"] = replace(found.budget, denoiser_calls=denoising.calls)
    made = model.smiles(found.samples.flatten(0, 1))
    rows = [made[b * num_particles : (b + 1) * num_particles] for b in range(num_groups)]
    return MoleculeResult(**known, smiles=rows)


def _counted(model: MoleculeModel, counts: Sequence[AtomCount | str], chain: SymbolChain | None) -> list[Any]:
    """The chain under all counts, and the chain."""
    if isinstance(counts, str):
        raise ValueError(f"expected a list of counts, got {counts!r}; put it in brackets.")
    if chain is None:
        raise ValueError("expected a chain with counts, got none; SymbolChain.from_folder or .fitted makes one.")
    if chain.vocabulary.tokenizer.get_vocab() != model.vocabulary.tokenizer.get_vocab():
        raise ValueError("expected a chain of the model's tokens, got another one; fit it with model.vocabulary.")
    return [chain.expert(some, vocab_size=model.network_vocab_size) for some in (counts, ())]

"""A few hundred molecules, a data set of them, and a model whose law over three symbols is a table."""

import itertools

import torch

from fklit.feynman_kac import normalize
from fklit.molecules import Conditions, MoleculeModel, write_molecules
from fklit.molecules.strings.vocabulary import build_tokenizer

FIRSTS = ("O", "c1ccccc1", "c1ccc2ccccc2c1")
LASTS = ("c1ccccc1", "C1CC1", "C(=O)O", "C(C)N", "CCl", "c1ccncc1", "CS", "C(F)F", "CN", "C", "CC", "CO")
SMILES = [first + "C" * length + last for last in LASTS for length in range(1, 6) for first in FIRSTS]
EDGES = {"qed": (0.4, 0.5), "sa": (1.5, 2.0)}


def write_tiny_molecules(folder, **given):
    """150 molecules to train on and 30 held out."""
    return write_molecules(SMILES[:150], SMILES[150:], folder, **given)


class TableDenoiser:
    """Exact predictions of a law of three symbols, another one for each condition."""

    def __init__(self, tokenizer, symbols):
        self.mask, self.size = tokenizer.mask_token_id, len(tokenizer)
        values = [tokenizer.pad_token_id, *tokenizer.convert_tokens_to_ids(symbols)]
        self.states = torch.tensor(list(itertools.product(values, repeat=3)))
        self.calls, self.known = 0, {}

    def law(self, front):
        """Probabilities (64,) of the states."""
        seed = int(sum(token * 97**place for place, token in enumerate(front)))
        logits = torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return torch.softmax(logits, dim=0)

    def __call__(self, tokens, at):
        self.calls += 1
        rows = torch.full((*tokens.shape, self.size), 5.0, dtype=torch.float64)
        for row, text in enumerate(tokens.tolist()):
            if tuple(text) not in self.known:
                self.known[tuple(text)] = self.marginals(text[:-3], torch.tensor(text[-3:]))
            rows[row, -3:] = self.known[tuple(text)]
        return rows[at]

    def marginals(self, front, sites):
        """Log probabilities (3, size) of each site given those that are not masked."""
        fits = ((self.states == sites) | (sites == self.mask)).all(dim=1)
        weights = self.law(front) * fits
        found = torch.zeros(3, self.size, dtype=torch.float64)
        for site in range(3):
            found[site].scatter_add_(0, self.states[:, site], weights / weights.sum())
        return found.clamp(min=1e-300).log()


def table_model(symbols=("[C]", "[N]", "[O]")):
    """A model of molecules of three symbols at most, of three kinds."""
    tokenizer = build_tokenizer(list(symbols), Conditions(EDGES), max_symbols=3)
    return MoleculeModel(TableDenoiser(tokenizer, list(symbols)), tokenizer)


def truth(model, conditions, exponents):
    """Unnormalized mass of each state of a product of conditions."""
    mass = torch.ones(64, dtype=torch.float64)
    for condition, exponent in zip(conditions, exponents, strict=True):
        mass *= model.denoiser.law(model.vocabulary.condition(condition).tolist()) ** exponent
    return mass


def found_law(model, result):
    """Weighted shares of the states, groups by their evidence."""
    places = (result.samples[..., None, :] == model.denoiser.states).all(dim=-1).double().argmax(dim=-1)
    law = torch.zeros(64, dtype=torch.float64)
    shares = normalize(result.log_weights) * torch.softmax(result.log_z, dim=0)[:, None]
    return law.scatter_add(0, places.flatten(), shares.flatten())

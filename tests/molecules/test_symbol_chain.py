"""Counts of atoms by a chain of symbols against the sum over all texts, alone and in products with a model."""

import itertools

import pytest
import torch
from tiny_molecules import EDGES, SMILES, found_law, table_model, truth

from fklit.correctors import Target, simulate_masked
from fklit.feynman_kac import DegenerateGroupError
from fklit.molecules import AtomCount, Conditions, MoleculeVocabulary, SymbolChain, sample_product
from fklit.molecules.strings.vocabulary import build_tokenizer

ERROR = 0.05


@pytest.fixture(scope="module")
def chain():
    """Fitted to a few texts of five places, whose branches take one or two index symbols."""
    symbols = ["[C]", "[N]", "[O]", "[Branch1]", "[Ring2]"]
    vocabulary = MoleculeVocabulary(build_tokenizer(symbols, Conditions(EDGES), max_symbols=5))
    texts = [
        ["[C]", "[Branch1]", "[N]", "[O]", "[C]"],
        ["[N]", "[C]", "[O]"],
        ["[C]", "[Ring2]", "[C]", "[N]", "[N]"],
        ["[O]", "[N]"],
        ["[C]", "[C]", "[Branch1]", "[C]", "[Ring2]"],
    ]
    rows = [vocabulary.encode(text) for text in texts]
    return SymbolChain.fitted(vocabulary, torch.tensor(rows))


def all_texts(chain):
    """Every row of tokens, (n, 5)."""
    return torch.tensor(list(itertools.product(chain.states.tokens.tolist(), repeat=5)))


def atoms(symbols):
    """Symbols that are atoms, by a reading of SELFIES of its own: an index follows a branch or a ring."""
    found, left = [], 0
    for symbol in symbols:
        if symbol == "<pad>":
            left = 0
        elif left:
            left -= 1
        elif symbol[1:-1] in ("Branch1", "Ring2"):
            left = int(symbol[-2])
        else:
            found.append(symbol)
    return found


def law_of(chain, counts):
    """Unnormalized probability of every text, step by step from the counted transitions."""
    overall = chain.transitions.sum(dim=0).double() + 1
    weights = chain.transitions.double() + overall / overall.sum()
    law, places = weights / weights.sum(dim=1, keepdim=True), chain.states.places(20)
    words = chain.vocabulary.tokenizer.convert_ids_to_tokens
    masses = []
    for row in all_texts(chain):
        state, mass = len(law) - 1, 1.0
        for place in places[row].tolist():
            mass *= float(law[state, place])
            state = int(chain.states.after[state, place])
        found = atoms(words(row.tolist()))
        for count in counts:
            number = len(found) if count.element == "heavy_atoms" else found.count(f"[{count.element}]")
            mass *= 1 - ERROR if count.met(number) else ERROR
        masses.append(mass)
    return torch.tensor(masses, dtype=torch.float64)


def test_the_chain_counts_what_follows_what(chain):
    states = chain.states
    assert states.after.shape == (5 * 3 + 2, 6) and states.emitted.tolist()[-2:] == [5, -1]
    start, first = len(states.after) - 1, states.symbols.index("[C]")
    assert chain.transitions[start].tolist() == [3, 1, 1, 0, 0, 0]
    carbon, branch, ring = (states.symbols.index(symbol) for symbol in ("[C]", "[Branch1]", "[Ring2]"))
    after_branch = int(states.after[states.after[start, first], branch])
    assert chain.transitions[after_branch].tolist() == [1, 1, 0, 0, 0, 0]  # indices
    index = int(states.after[after_branch, carbon])
    assert states.is_index[index] and not states.is_index[after_branch]
    assert chain.transitions[index, ring] == 1  # after [Branch1][C]
    two = int(states.after[states.after[int(states.after[start, first]), ring], carbon])
    assert (
        states.is_index[states.after[two, carbon]]
        and not states.is_index[states.after[states.after[two, carbon], carbon]]
    )


@pytest.mark.parametrize(
    "counts",
    [
        [],
        [AtomCount("N", at_least=2)],
        [AtomCount("heavy_atoms", at_most=2)],
        [AtomCount("N", at_least=1), AtomCount("O", 1, 1), AtomCount("heavy_atoms", at_most=3)],
    ],
    ids=["none", "least", "most", "three"],
)
@pytest.mark.parametrize(
    "known", [{}, {0: "[C]"}, {2: "[O]", 4: "<pad>"}, {0: "[C]", 1: "[Branch1]", 4: "[N]"}, {1: "[Ring2]"}], ids=str
)
def test_predictions_are_those_of_all_texts(chain, counts, known):
    vocabulary = chain.vocabulary
    row = torch.full((5,), vocabulary.mask)
    for place, word in known.items():
        row[place] = vocabulary.tokenizer.convert_tokens_to_ids(word)
    texts, law = all_texts(chain), law_of(chain, counts)
    fits = ((texts == row) | (row == vocabulary.mask)).all(dim=1)
    expert = chain.expert(counts, error=ERROR, vocab_size=40)
    found = expert.log_probs(row.view(1, 1, 5), 0.5)[0, 0]
    assert found.shape == (5, 40)
    for place in range(5):
        mass = torch.zeros(40, dtype=torch.float64).scatter_add(0, texts[:, place], law * fits)
        torch.testing.assert_close(found[place].exp(), mass / mass.sum(), rtol=1e-9, atol=1e-12)


def test_rows_do_not_depend_on_their_neighbors(chain, monkeypatch):
    rows = torch.full((2, 3, 5), chain.vocabulary.mask)
    rows[0, 1, 0], rows[1, 2, 3] = chain.states.tokens[0], chain.vocabulary.pad
    expert = chain.expert(["N>=2"])
    whole = expert.log_probs(rows, 0.5)
    monkeypatch.setattr("fklit.molecules.strings.counted._NUMBERS", 1)
    torch.testing.assert_close(expert.log_probs(rows, 0.5), whole, rtol=0, atol=1e-12)
    for group, particle in itertools.product(range(2), range(3)):
        alone = expert.log_probs(rows[group, particle].view(1, 1, 5), 0.5)
        torch.testing.assert_close(alone[0, 0], whole[group, particle], rtol=0, atol=1e-12)


@pytest.mark.parametrize("separate", [True, False], ids=["an expert each", "one expert"])
@pytest.mark.parametrize("num_steps", [None, 60], ids=["one symbol a step", "grid"])
def test_a_product_with_a_model_is_the_model_under_the_counts(separate, num_steps):
    """The table of 64 molecules, times an indicator that the chain says nothing else about."""
    pytest.importorskip("rdkit.Chem")
    model = table_model()
    states = model.denoiser.states
    chain = SymbolChain.fitted(model.vocabulary, states[torch.tensor([0, 5, 21, 27, 42, 63])])
    words = [model.tokenizer.convert_ids_to_tokens(row) for row in states.tolist()]
    settings = {"num_particles": 2500, "num_steps": num_steps, "num_groups": 2, "ess_threshold": 0.9}
    counts = ["N>=1", "C=0", "N<=1"]
    wanted = truth(model, ["qed=high"], [1.0]) * torch.tensor([r.count("[N]") == 1 and "[C]" not in r for r in words])
    if not separate:  # texts that go on after their end are no molecules
        wanted *= torch.tensor([bool(text) for text in model.smiles(states)])
    wanted /= wanted.sum()
    if separate:
        experts = [model.expert("qed=high"), *(chain.expert([count]) for count in counts), chain.expert()]
        result = simulate_masked(Target.product(experts, [1.0, 1.0, 1.0, 1.0, -3.0]), **settings)
    else:
        result = sample_product(model, ["qed=high"], counts=counts, chain=chain, **settings)
    found = found_law(model, result)
    assert float((found - wanted).abs().sum() / 2) < 0.1
    assert float(found[wanted == 0].sum()) < (0.02 if num_steps else 1e-4)  # sites of one step are independent


def test_molecules_meet_counts_as_rdkit_counts_where_symbols_are_dropped():
    """Fluorine has one bond, so that symbols after "[C] [F]" are no atoms: they would be counted and are not there."""
    chem = pytest.importorskip("rdkit.Chem")
    pytest.importorskip("selfies")
    model = table_model(("[C]", "[N]", "[F]"))
    states = model.denoiser.states
    chain = SymbolChain.fitted(model.vocabulary, states[1:])
    molecules = [chem.MolFromSmiles(text) for text in model.smiles(states)]
    atoms = [[atom.GetSymbol() for atom in one.GetAtoms()] for one in molecules]
    meets = torch.tensor([1 <= len(one) <= 2 and one.count("N") >= 1 for one in atoms])
    dropped = torch.tensor([len(one) for one in atoms]) < (states != model.vocabulary.pad).sum(dim=1)
    wanted = truth(model, [""], [1.0]) * meets
    counts = ["N>=1", "heavy_atoms<=2"]
    assert meets[dropped].any() and not meets[dropped].all()
    settings = {"num_particles": 4000, "num_groups": 2, "ess_threshold": 0.9}
    result = sample_product(model, [""], counts=counts, chain=chain, **settings)
    found = found_law(model, result)
    assert float(found[~meets].sum()) == 0.0
    # The chain does not write what it counts otherwise: molecules of three symbols and two atoms are left out
    wanted = wanted * torch.tensor(
        [len(states[i][states[i] != model.vocabulary.pad]) <= 2 or not meets[i] for i in range(64)]
    )
    assert float((found - wanted / wanted.sum()).abs().sum() / 2) < 0.05
    plain = sample_product(model, [""], counts=counts, chain=chain, corrected=False, **settings)
    assert float(found_law(model, plain)[~meets].sum()) > 0.01


def test_counts_that_no_particle_meets_are_an_error():
    pytest.importorskip("rdkit.Chem")
    model = table_model(("[C]", "[N]", "[F]"))
    chain = SymbolChain.fitted(model.vocabulary, model.denoiser.states[1:])
    with pytest.raises(DegenerateGroupError):  # three symbols of fluorine are two atoms
        sample_product(model, [""], counts=["F=3"], chain=chain, num_particles=20)


def test_atoms_of_real_molecules_are_those_of_rdkit():
    chem = pytest.importorskip("rdkit.Chem")
    pytest.importorskip("selfies")

    from fklit.molecules.strings.symbols import to_symbols

    molecules = [*SMILES[:60], "CC(=O)Nc1ccc(O)cc1", "N#Cc1ccc(Br)cc1OC1CCN(C(=O)C2CC2)CC1", "C[N+](C)(C)CC(=O)[O-]"]
    texts = [to_symbols(one) for one in molecules]
    alphabet, longest = sorted({symbol for text in texts for symbol in text}), max(map(len, texts))
    vocabulary = MoleculeVocabulary(build_tokenizer(alphabet, Conditions(EDGES), max_symbols=longest))
    chain = SymbolChain.fitted(vocabulary, torch.tensor([vocabulary.encode(text) for text in texts]))
    for molecule, text in zip(molecules, texts, strict=True):
        known = chem.MolFromSmiles(molecule)
        numbers = {"heavy_atoms": known.GetNumHeavyAtoms()}
        for element in ("C", "N", "O", "Br"):
            numbers[element] = sum(atom.GetSymbol() == element for atom in known.GetAtoms())
        state, found = len(chain.states.after) - 1, dict.fromkeys(numbers, 0)
        for place in chain.states.places(200)[torch.tensor(vocabulary.encode(text))].tolist():
            state = int(chain.states.after[state, place])
            for element in found:
                found[element] += int(chain.states.adds(AtomCount(element, 1))[state])
        assert found == numbers, molecule


def test_the_probability_of_counts_is_that_of_all_texts(chain):
    law = law_of(chain, [])
    words = chain.vocabulary.tokenizer.convert_ids_to_tokens
    found = [atoms(words(row.tolist())) for row in all_texts(chain)]
    met = torch.tensor([one.count("[N]") >= 2 and len(one) <= 3 for one in found])
    expert = chain.expert(["N>=2", "heavy_atoms<=3"])
    assert expert.probability == pytest.approx(float(law[met].sum() / law.sum()), rel=1e-12)
    assert chain.expert().probability == pytest.approx(1.0) and chain.expert(["O>=1"]).error == 1e-6
    rare = chain.expert(["N>=5"])
    assert 0 < rare.probability < 1e-3 and rare.error == rare.probability / 10_000


@pytest.mark.parametrize(
    ("counts", "named"), [(["N>=6"], "N>=6"), (["O>=2", "O<=1"], "O>=2, O<=1"), (["Si>=1"], "Si>=1")]
)
def test_counts_that_nothing_meets_are_refused(chain, counts, named):
    """All molecules would be equally wrong about them, and the product the model without them."""
    with pytest.raises(
        ValueError, match=rf"expected counts that molecules of at most 5 .* can meet, got {named}; change"
    ):
        chain.expert(counts)


def test_rare_counts_are_met_as_often_as_others(chain):
    rare = chain.expert(["N>=5"])
    rows = torch.full((1, 1, 5), chain.vocabulary.mask)
    nitrogen = chain.vocabulary.tokenizer.convert_tokens_to_ids("[N]")
    assert (rare.log_probs(rows, 0.5)[0, 0, :, nitrogen].exp() > 0.999).all()


def test_a_saved_chain_comes_back(chain, tmp_path):
    chain.vocabulary.tokenizer.save_pretrained(tmp_path)
    chain.save(tmp_path)
    again = SymbolChain.from_folder(tmp_path)
    rows = torch.full((1, 1, 5), chain.vocabulary.mask)
    assert torch.equal(again.expert(["O>=1"]).log_probs(rows, 1.0), chain.expert(["O>=1"]).log_probs(rows, 1.0))
    (tmp_path / "symbol_chain.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"symbol_chain.json, got no such file; write it by SymbolChain.fitted"):
        SymbolChain.from_folder(tmp_path)
    chain.save(tmp_path)
    build_tokenizer(["[C]", "[N]"], Conditions(EDGES), max_symbols=5).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="with the symbols of the tokenizer beside it, got others; fit it again"):
        SymbolChain.from_folder(tmp_path)


def test_what_does_not_fit_is_refused(chain):
    vocabulary = chain.vocabulary
    with pytest.raises(ValueError, match="expected tokens of symbols and pad, got others"):
        SymbolChain.fitted(vocabulary, torch.full((1, 5), vocabulary.mask))
    with pytest.raises(ValueError, match=r"some above 0, and smoothing above 0, got shape .* smoothing=0"):
        SymbolChain(vocabulary, chain.transitions, smoothing=0)
    with pytest.raises(ValueError, match="expected transitions of shape"):
        SymbolChain(vocabulary, chain.transitions[:-1])
    with pytest.raises(ValueError, match=r"expected an error above 0 and below 0\.5, got 0"):
        chain.expert(["O>=1"], error=0)
    condition = int(vocabulary.condition("qed=high")[0])
    with pytest.raises(ValueError, match="expected tokens of symbols, pad and mask, got others"):
        chain.expert().log_probs(torch.full((1, 1, 5), condition), 0.5)
    model = table_model()
    with pytest.raises(ValueError, match="expected a chain with counts, got none"):
        sample_product(model, [""], counts=["O>=1"])
    with pytest.raises(ValueError, match="expected a chain of the model's tokens, got another one"):
        sample_product(model, [""], counts=["O>=1"], chain=chain)
    with pytest.raises(ValueError, match="expected a list of counts, got 'O>=1'"):
        sample_product(model, [""], counts="O>=1", chain=chain)

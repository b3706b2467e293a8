"""Products and powers of conditions against the sum over all 64 molecules of three symbols."""

import pytest
import torch
from tiny_molecules import found_law, table_model, truth

from fklit.correctors import MaskedPath, Target, simulate_masked
from fklit.molecules import sample_product
from fklit.text import TextExpert

pytest.importorskip("selfies")


@pytest.mark.parametrize(
    ("conditions", "exponents"),
    [
        (["qed=high", "sa=low"], [0.8, 0.5]),
        (["qed=high", "sa=low", ""], [1.0, 1.0, -1.0]),
        (["qed=high"], [1.4]),
        (["qed=high sa=low", ""], [0.5, 0.3]),
    ],
    ids=["product", "independent", "annealed", "hot"],
)
@pytest.mark.parametrize("num_steps", [None, 40], ids=["one symbol a step", "grid"])
def test_the_weighted_product_is_the_law_and_the_evidence_its_sum(conditions, exponents, num_steps):
    model = table_model()
    settings = {"num_particles": 3000, "num_steps": num_steps, "num_groups": 2, "ess_threshold": 0.9}
    result = sample_product(model, conditions, exponents, **settings)
    mass = truth(model, conditions, exponents)
    wanted = mass / mass.sum()
    gap = float((found_law(model, result) - wanted).abs().sum() / 2)
    assert gap < (0.08 if num_steps else 0.06)
    evidence = float(result.log_z.exp().mean())
    assert evidence == pytest.approx(float(mass.sum()), rel=0.08 if num_steps else 0.05)
    heuristic = sample_product(model, conditions, exponents, corrected=False, **settings)
    assert (heuristic.log_weights == heuristic.log_weights[0, 0]).all()
    if len(conditions) == 3:
        assert float((found_law(model, heuristic) - wanted).abs().sum() / 2) > 2 * gap


def test_all_conditions_are_asked_in_one_call():
    model = table_model()
    result = sample_product(model, ["qed=high", "sa=low", ""], [1.0, 1.0, -1.0], num_particles=6, num_steps=10)
    assert model.denoiser.calls <= 10
    assert 3 <= result.budget.denoiser_calls <= 3 * 6 * 10
    separate = table_model()
    experts = [separate.expert(condition) for condition in ("qed=high", "sa=low", "")]
    other = simulate_masked(Target.product(experts, [1.0, 1.0, -1.0]), num_particles=6, num_steps=10, ess_threshold=0.5)
    assert separate.denoiser.calls > model.denoiser.calls
    assert torch.equal(other.samples, result.samples) and torch.equal(other.log_weights, result.log_weights)


def test_one_condition_of_exponent_1_is_the_model_itself():
    model = table_model()
    result = sample_product(model, ["qed=low"], num_particles=50, num_steps=20)
    torch.testing.assert_close(result.log_z, torch.zeros(1, dtype=torch.float64), atol=1e-9, rtol=0)
    assert len(result.smiles[0]) == 50 and len(result.sample_smiles(3)[0]) == 3
    assert all(text in result.smiles[0] for text in result.sample_smiles(3)[0])
    again = sample_product(model, ["qed=low"], num_particles=50, num_steps=20, max_batch=4)
    assert torch.equal(again.samples, result.samples)


def test_groups_do_not_depend_on_their_neighbors():
    model = table_model()
    both = sample_product(model, ["qed=low", "sa=low"], num_particles=5, num_groups=2, num_steps=8)
    alone = sample_product(model, ["qed=low", "sa=low"], num_particles=5, num_groups=1, num_steps=8)
    assert torch.equal(both.samples[:1], alone.samples) and both.smiles[:1] == alone.smiles


def test_a_symbol_a_step_is_the_default_and_asks_for_every_particle_once_a_symbol():
    model = table_model()
    conditions = ["qed=high", "sa=low"]
    result = sample_product(model, conditions, num_particles=5, num_groups=2, ess_threshold=0.0)
    assert model.denoiser.calls == 3 and (result.samples != model.mask).all()
    experts = [model.expert(condition) for condition in conditions]
    other = simulate_masked(
        Target.product(experts, [1.0, 1.0]), num_particles=5, num_groups=2, num_steps=None, ess_threshold=0.0
    )
    assert torch.equal(other.samples, result.samples) and torch.equal(other.log_weights, result.log_weights)


def test_mistakes_are_said_in_one_line():
    model = table_model()
    for conditions in ("qed=high", []):
        with pytest.raises(ValueError, match="expected a list of conditions"):
            sample_product(model, conditions)
    with pytest.raises(ValueError, match="expected an exponent for each of 2 conditions, got 1"):
        sample_product(model, ["", ""], [1.0])
    with pytest.raises(ValueError, match="expected exponents of positive sum"):
        sample_product(model, ["", ""], [1.0, -1.0])
    with pytest.raises(ValueError, match="expected conditions such as qed=high"):
        sample_product(model, ["size=big"])
    with pytest.raises(ValueError, match="expected given tokens other than the mask"):
        TextExpert(model.denoising(), MaskedPath(mask=model.mask, length=3), given=torch.tensor([model.mask]))

"""A masked model under the discrete correctors, on the enumerated world of case B."""

import math

import pytest
import torch
from worlds import MaskedWorld

from fklit.correctors import MaskedCorrector, MaskedPath, Target
from fklit.feynman_kac import normalize, run
from fklit.text import Denoising, TextExpert


@pytest.fixture(scope="module")
def world():
    return MaskedWorld()


def expert(world, path):
    def denoise(tokens, at):
        logits = torch.cat([world.marginal.clamp(min=1e-300).log(), torch.full((256, 4, 1), 5.0)], dim=2)
        return logits[world.index(tokens)][at]

    return TextExpert(Denoising(denoise, mask=world.mask), path)


def test_predictions_are_the_marginals(world):
    found = expert(world, MaskedPath(mask=3, length=4)).log_probs(world.states[None], 0.5)[0]
    masked = world.states == 3
    torch.testing.assert_close(found[masked][:, :3].exp(), world.marginal[masked])
    assert torch.isfinite(found).all() and (found[masked][:, 3].exp() == 0).all()
    assert (found[~masked].exp() == torch.nn.functional.one_hot(world.states[~masked], 4)).all()


@pytest.mark.parametrize("exponents", [(1.5,), (2.0, -0.5)], ids=["annealed", "guided"])
def test_powers_of_the_data_law_are_reached(world, exponents):
    path = MaskedPath(mask=3, length=4)
    target = Target.product([expert(world, path) for _ in exponents], list(exponents))
    model = MaskedCorrector(target, path.grid(40))
    result = run(model, num_particles=20_000, ess_threshold=1.0, generator=torch.Generator().manual_seed(0))
    mass = torch.where(world.p_data > 0, world.p_data ** sum(exponents), 0.0)
    states = world.index(result.samples["x"]).flatten()
    law = torch.zeros(256, dtype=torch.float64).scatter_add(0, states, normalize(result.log_weights).flatten())
    assert float((law - mass / mass.sum()).abs().sum() / 2) < 0.06
    assert float(result.log_z) == pytest.approx(math.log(mass.sum()), abs=0.06)


def test_other_masks_are_refused(world):
    with pytest.raises(ValueError, match="expected a path with the model's mask 3, got 2"):
        expert(world, MaskedPath(mask=2, length=4))

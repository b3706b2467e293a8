"""The law at the noise end: its variance, its weights and its evidence."""

import math

import pytest
import torch
from mixtures import experts, truth

from fklit.analytic import GaussianMixture
from fklit.correctors import (
    EDM,
    Corrector,
    EulerMaruyama,
    FittedControl,
    InitialGaussian,
    Ramp,
    Target,
    Uncorrected,
    VariancePreserving,
    simulate,
)
from fklit.correctors.discrete.masked import MaskedPath
from fklit.correctors.simulation.initial import InitialLaw

PATH = EDM(0.02, 10.0)
FIRST, SECOND, _ = experts(PATH)


class ScoreOnly:
    event_shape = (1,)

    def __init__(self, inner):
        self.path, self.score = inner.path, inner.score


def test_pure_noise_is_cooled_by_the_sum_of_the_exponents():
    """On exploding paths a start from N(0, s^2) in place of N(0, s^2 / B) is seen in the result."""
    law = InitialLaw(Target.product([ScoreOnly(FIRST), ScoreOnly(SECOND)], [1.5, 1.0]), 1.0).law
    assert law.mean == 0.0 and law.variance == pytest.approx(100.0 / 2.5)


def test_known_moments_give_the_product_of_gaussians():
    experts = [GaussianMixture.single([1.0], 2.0).on(PATH), GaussianMixture.single([-2.0], 3.0).on(PATH)]
    law = InitialLaw(Target.product(experts, [1.5, 0.5]), 1.0).law
    precision = 1.5 / 102.0 + 0.5 / 103.0
    torch.testing.assert_close(law.variance, torch.tensor([1 / precision], dtype=torch.float64))
    torch.testing.assert_close(law.mean, torch.tensor([(1.5 / 102 - 1.0 / 103) / precision], dtype=torch.float64))


def test_the_weights_of_the_start_hold_the_evidence_of_the_noise_end():
    generator = torch.Generator().manual_seed(0)
    for start in (None, InitialGaussian(0.5, 60.0)):
        target = Target.product([FIRST, SECOND], [1.2, 0.5])
        initial = InitialLaw(target, 1.0, start)
        x = initial.law.sample((1, 200_000, 1), generator, dtype=torch.float64, device=torch.device("cpu"))
        found = torch.logsumexp(initial.log_weights(x), dim=1) - math.log(200_000)
        grid = torch.linspace(-150, 150, 60_001, dtype=torch.float64)
        wanted = torch.logsumexp(target.log_gamma(grid[None, :, None], 1.0), dim=1) + math.log(300 / 60_000)
        torch.testing.assert_close(found, wanted, atol=0.01, rtol=0)


def test_without_densities_the_evidence_is_that_of_the_gaussians():
    path = VariancePreserving()
    expert = GaussianMixture.single([0.0], 1.0).on(path)  # N(0, 1) at every time: the Gaussian of pure noise, nearly
    bare = Target.annealed(ScoreOnly(expert), 2.0)
    run = simulate(bare, num_particles=500, num_steps=300, dtype=torch.float64, control=FittedControl())
    assert float(run.log_z) == pytest.approx(-0.5 * math.log(2 * math.pi) - 0.5 * math.log(2), abs=0.1)
    known = simulate(
        Target.annealed(expert, 2.0), num_particles=500, num_steps=300, dtype=torch.float64, control=FittedControl()
    )
    assert float(known.log_z) == pytest.approx(truth(Target.annealed(expert, 2.0)).log_z, abs=0.1)


def test_a_reward_at_the_noise_end_is_weighed_there():
    flat, tilted = Target.annealed(FIRST, 1.0), Target.tilted(FIRST, lambda x: x[..., 0], Ramp(0.5, 1.0))
    x = torch.tensor([[[1.0], [-3.0]]], dtype=torch.float64)
    change = InitialLaw(tilted, 1.0).log_weights(x) - InitialLaw(flat, 1.0).log_weights(x)
    torch.testing.assert_close(change, 0.5 * x[..., 0])


def test_a_heuristic_run_starts_unweighted():
    model = Corrector(Target.annealed(FIRST, 2.0), PATH.grid(3), increment=Uncorrected(), proposal=EulerMaruyama())
    state = model.initial(1, 4, torch.Generator().manual_seed(0))
    assert model.initial_log_weights(state).abs().max() == 0
    assert simulate(Target.annealed(FIRST, 2.0), num_particles=4, num_steps=3, increment=Uncorrected()).log_z == 0


def test_bad_starts_and_experts():
    with pytest.raises(ValueError, match="not positive everywhere"):
        InitialGaussian(0.0, 0.0)

    class Tokens:
        path = MaskedPath(mask=1, length=1)

        def log_probs(self, tokens, t):
            return tokens

    with pytest.raises(TypeError, match="use MaskedCorrector"):
        Corrector(Target.annealed(Tokens(), 2.0), (1.0, 0.0))

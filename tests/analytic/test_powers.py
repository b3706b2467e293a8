"""Powers of mixtures, the forty Gaussians, and what a law knows of itself."""

import math

import pytest
import torch

from fklit.analytic import GaussianMixture, forty_gaussians, power
from fklit.correctors import VariancePreserving

LAW = GaussianMixture([[-1.0, 0.5], [1.0, -0.5], [0.2, 0.1]], 0.3, [0.5, 0.3, 0.2])
X = 2 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_a_power_is_proportional_to_the_power_of_the_density(exponent):
    raised = power(LAW, exponent, min_weight=0.0)
    assert len(raised.weights) == math.comb(3 + exponent - 1, exponent)
    difference = raised.log_density(X) - exponent * LAW.log_density(X)
    torch.testing.assert_close(difference, difference[0].expand(50))
    assert len(power(LAW, exponent, min_weight=0.1).weights) < len(raised.weights) or exponent == 1


def test_powers_that_are_no_mixtures():
    with pytest.raises(ValueError, match="exponent=0"):
        power(LAW, 0)
    with pytest.raises(ValueError, match=r"exponent=1\.5"):
        power(LAW, 1.5)
    with pytest.raises(ValueError, match="one isotropic variance"):
        power(GaussianMixture([[0.0], [1.0]], [0.1, 0.2]), 2)
    with pytest.raises(ValueError, match="one isotropic variance"):
        power(GaussianMixture([[0.0, 0.0]], [[0.1, 0.2]]), 2)


def test_the_forty_gaussians():
    law = forty_gaussians()
    assert law.means.shape == (40, 2) and law.means.abs().max() < 0.8
    torch.testing.assert_close(forty_gaussians(scale=1.0).means, 50 * law.means)
    assert float(law.tail_variance()[0]) == pytest.approx((math.log(1 + math.e**2) / 50) ** 2)


@pytest.mark.parametrize("variances", [0.3, [0.3, 0.2, 0.1], LAW.means.abs() + 0.1, torch.eye(2).expand(3, 2, 2)])
def test_a_law_is_rebuilt_from_its_arguments(variances):
    law = GaussianMixture(LAW.means, variances, [1.0, 2.0, 4.0])
    again = GaussianMixture(**law.constructor_arguments())
    assert torch.equal(again.log_density(X), law.log_density(X))
    assert torch.equal(GaussianMixture(LAW.means, 0.3).weights, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_law_on_a_path():
    path = VariancePreserving()
    expert = LAW.on(path)
    scale, sigma = path.scale(0.4), path.sigma(0.4)
    torch.testing.assert_close(expert.score(X, 0.4), LAW.score(X, scale, sigma))
    torch.testing.assert_close(expert.log_density(X, 0.4), LAW.log_density(X, scale, sigma))
    assert expert.event_shape == (2,) and expert.path is path
    for known, wanted in zip(expert.moments(), LAW.moments(), strict=True):
        assert torch.equal(known, wanted)
    assert torch.equal(expert.tail_variance(), LAW.tail_variance())
    heavy = GaussianMixture([[0.0], [1.0]], [0.1, 5.0], [1.0, 0.0])
    assert float(heavy.tail_variance()) == pytest.approx(0.1), "components of weight 0 have no tails"

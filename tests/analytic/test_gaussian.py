"""Analytic mixtures against torch.distributions and autograd, in every form of covariance."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from fklit.analytic import GaussianMixture

MEANS = torch.tensor([[1.0, -0.5], [0.0, 2.0], [-1.0, 0.3]], dtype=torch.float64)
WEIGHTS = [0.2, 0.5, 0.3]
FULL = torch.tensor([[[0.5, 0.2], [0.2, 0.8]], [[1.0, -0.3], [-0.3, 0.4]], [[0.3, 0.0], [0.0, 0.3]]]).double()
FORMS = {
    "number": (0.4, 0.4 * torch.eye(2).expand(3, 2, 2)),
    "isotropic": ([0.4, 0.2, 1.0], torch.stack([v * torch.eye(2) for v in (0.4, 0.2, 1.0)])),
    "diagonal": (FULL.diagonal(dim1=1, dim2=2), torch.diag_embed(FULL.diagonal(dim1=1, dim2=2))),
    "full": (FULL, FULL),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("scale", "sigma"), [(1.0, 0.0), (0.6, 0.8), (1.0, 3.0)])
def test_density_score_and_denoiser(form, scale, sigma):
    variances, covariances = FORMS[form]
    law = GaussianMixture(MEANS, variances, WEIGHTS)
    noised = scale**2 * covariances.double() + sigma**2 * torch.eye(2)
    reference = MixtureSameFamily(
        Categorical(torch.tensor(WEIGHTS, dtype=torch.float64)), MultivariateNormal(scale * MEANS, noised)
    )
    x = 2 * torch.randn(4, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    wanted = reference.log_prob(x)
    (gradient,) = torch.autograd.grad(wanted.sum(), x)
    with torch.no_grad():
        torch.testing.assert_close(law.log_density(x, scale, sigma), wanted)
        torch.testing.assert_close(law.score(x, scale, sigma), gradient)
        score, density = law.score_and_log_density(x, scale, sigma)
        torch.testing.assert_close((score, density), (gradient, wanted.detach()))
        torch.testing.assert_close(law.denoised(x, scale, sigma), (x + sigma**2 * gradient) / scale)


def test_draws_and_moments():
    law = GaussianMixture(MEANS, FULL, WEIGHTS)
    x = law.sample((200_000,), torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, variance = law.moments()
    torch.testing.assert_close(x.mean(dim=0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(x.var(dim=0), variance, atol=0.02, rtol=0)
    torch.testing.assert_close(law.tail_variance(), torch.tensor([1.0, 0.8], dtype=torch.float64))


def test_far_points_and_single_precision():
    law = GaussianMixture([[-1.5], [1.2]], [0.15, 0.3])
    x = torch.tensor([[-1e3], [1e3]], dtype=torch.float32)
    score = law.score(x)
    assert score.dtype == torch.float32 and torch.isfinite(score).all()
    torch.testing.assert_close(score, -(x - 1.2) / 0.3, rtol=1e-4, atol=0)  # the wider component rules both tails


def test_one_gaussian():
    law = GaussianMixture.single([1.0, 2.0], [0.5, 2.0])
    x = torch.zeros(3, 2, dtype=torch.float64)
    torch.testing.assert_close(law.score(x), torch.tensor([2.0, 1.0]).double().expand(3, 2))


def test_bad_parameters():
    with pytest.raises(ValueError, match="means has shape"):
        GaussianMixture([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="variances has shape"):
        GaussianMixture(MEANS, torch.ones(2, 2))
    with pytest.raises(ValueError, match="positive variances"):
        GaussianMixture(MEANS, [0.1, -0.1, 0.2])
    with pytest.raises(ValueError, match="not symmetric"):
        GaussianMixture([[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="weights="):
        GaussianMixture(MEANS, 1.0, [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="last axis"):
        GaussianMixture(MEANS, 1.0).score(torch.zeros(3, 3))

"""The preconditioning of EDM, and the loss that trains it, by the formulas of table 1 of arXiv 2206.00364."""

import math

import pytest
import torch

from fklit.analytic import GaussianMixture
from fklit.correctors import DenoiserMLP
from fklit.correctors.targets.denoiser import FourierFeatures
from fklit.correctors.targets.score_model_task import ScoreModelTask
from fklit.data.mixtures import MixtureDataModule

STD = 1.5


def vectors(count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 2, generator=generator), torch.linspace(0.05, 20.0, count)


def test_the_coefficients():
    torch.manual_seed(0)
    denoiser = DenoiserMLP(2, 8, 2, data_std=STD).requires_grad_(False)
    assert [type(layer).__name__ for layer in denoiser.layers] == ["Linear", "SiLU", "Linear", "SiLU", "Linear"]
    x, sigma = vectors()
    inputs = []
    denoiser.layers.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    found = denoiser(x, sigma)
    total = (sigma**2 + STD**2).sqrt().unsqueeze(1)
    torch.testing.assert_close(inputs[0][:, :2], x / total)
    features = FourierFeatures()(sigma.log() / 4)
    torch.testing.assert_close(inputs[0][:, 2:], features)
    skip, out = STD**2 / total**2, sigma.unsqueeze(1) * STD / total
    torch.testing.assert_close(found, skip * x + out * denoiser.layers(inputs[0]))
    assert denoiser(x.double(), sigma.double()).dtype == torch.float64


def test_the_features():
    features = FourierFeatures(3, highest=4.0)
    torch.testing.assert_close(features.frequencies, torch.tensor([0.25, 1.0, 4.0]))
    angles = torch.tensor([[0.5, 2.0, 8.0]])
    torch.testing.assert_close(features(torch.tensor([2.0])), torch.cat([angles.sin(), angles.cos()], dim=1))
    assert len(FourierFeatures().frequencies) == 16 and float(FourierFeatures().frequencies[-1]) == pytest.approx(8.0)


def test_the_loss_is_the_error_of_the_network_s_own_target():
    """`|F - (x_0 - c_skip x) / c_out|^2`: weighted so that F is trained on unit variance at every level."""
    torch.manual_seed(0)
    denoiser = DenoiserMLP(2, 8, 1, data_std=STD).requires_grad_(False)
    x, sigma = vectors()
    noise = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    outputs = []
    denoiser.layers.register_forward_hook(lambda module, given, output: outputs.append(output))
    loss = ScoreModelTask(denoiser).loss(x, sigma.log(), noise)
    noisy, level = x + sigma.unsqueeze(1) * noise, sigma.unsqueeze(1)
    total = (level**2 + STD**2).sqrt()
    wanted = (x - STD**2 / total**2 * noisy) / (level * STD / total)
    torch.testing.assert_close(loss, (outputs[0] - wanted).square().mean())


def test_levels_are_log_normal(monkeypatch):
    seen = []
    task = ScoreModelTask(DenoiserMLP(2, 8, 1), log_sigma_mean=-0.7, log_sigma_std=0.3)
    monkeypatch.setattr(task, "log", lambda *args, **kwargs: None)
    record = lambda x, log_sigma, noise, score: seen.append((log_sigma, noise)) or torch.zeros(())  # noqa: E731
    monkeypatch.setattr(task, "loss", record)
    torch.manual_seed(0)
    task.training_step({"x": torch.zeros(20_000, 2)}, 0)
    for _ in range(2):
        task.validation_step(torch.zeros(20_000, 2), 3)
    task.validation_step(torch.zeros(20_000, 2), 4)
    for log_sigma, noise in seen:
        assert float(log_sigma.mean()) == pytest.approx(-0.7, abs=0.01)
        assert float(log_sigma.std()) == pytest.approx(0.3, abs=0.01)
        assert float(noise.std()) == pytest.approx(1.0, abs=0.02) and noise.shape == (20_000, 2)
    torch.testing.assert_close(seen[1], seen[2])
    assert not torch.equal(seen[2][0], seen[3][0])


def test_settings_that_are_no_numbers():
    for wrong in ({"dim": 0}, {"dim": 2, "width": 0}, {"dim": 2, "depth": 0}, {"dim": 2, "data_std": 0.0}):
        with pytest.raises(ValueError, match="expected positive numbers"):
            DenoiserMLP(**wrong)
    DenoiserMLP(1, 1, 1, data_std=1e-3)
    for wrong in ({"log_sigma_std": 0.0}, {"learning_rate": -1.0}, {"warmup_steps": -1}):
        with pytest.raises(ValueError, match="expected a positive log_sigma_std"):
            ScoreModelTask(DenoiserMLP(2), **wrong)
    ScoreModelTask(DenoiserMLP(2), warmup_steps=0)


def test_draws_of_a_mixture_are_those_of_its_seed():
    settings = {"num_train": 64, "num_val": 48, "batch_size": 32}
    data = MixtureDataModule([[-1.0, 0.5], [1.0, -0.5]], 0.1, seed=3, **settings)
    train, val = (torch.cat(list(loader)) for loader in (data.train_dataloader(), data.val_dataloader()))
    assert train.shape == (64, 2) and val.shape == (48, 2) and train.dtype == torch.float32
    wanted = data.law.sample((64,), torch.Generator().manual_seed(6))
    assert not torch.equal(train, wanted), "shuffled"
    torch.testing.assert_close(train.sort(dim=0).values, wanted.sort(dim=0).values)
    assert torch.equal(val, data.law.sample((48,), torch.Generator().manual_seed(7)))
    again = MixtureDataModule([[-1.0, 0.5], [1.0, -0.5]], 0.1, seed=3, **settings)
    assert torch.equal(torch.cat(list(again.train_dataloader())), train)
    assert math.isclose(float(val.var()), float(data.law.moments()[1].mean()), rel_tol=0.5)


def test_target_scores_of_a_gaussian_leave_no_variance():
    """For Gaussian data of variance v the mixture of data and scores is the exact denoiser, whatever the noise was."""
    x, sigma = vectors()
    noise = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    noisy = x + sigma.unsqueeze(1) * noise
    task = ScoreModelTask(DenoiserMLP(2, 8, 1), target_score_std=0.5)
    exact = 0.25 / (0.25 + sigma.square().unsqueeze(1)) * noisy
    torch.testing.assert_close(task.regression_target(x, noisy, sigma, -x / 0.25), exact)
    assert torch.equal(ScoreModelTask(DenoiserMLP(2, 8, 1)).regression_target(x, noisy, sigma, None), x)


@pytest.mark.parametrize("std", [0.05, 0.4, 3.0])
def test_the_mean_of_the_regression_target_is_the_exact_denoiser(std):
    """By quadrature over the data of a mixture, where neither data nor scores alone are without variance."""
    law = GaussianMixture([[-1.0], [0.7]], 0.09, [0.4, 0.6])
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64).unsqueeze(1)
    scores, density = law.score(grid), law.log_density(grid)
    task = ScoreModelTask(DenoiserMLP(1, 8, 1), target_score_std=std)
    for level in (0.05, 0.3, 2.0):
        sigma = torch.full((len(grid),), level, dtype=torch.float64)
        for point in (-1.2, 0.0, 0.9):
            noisy = torch.full_like(grid, point)
            posterior = (density - 0.5 * ((noisy - grid) / level).square().squeeze(1)).softmax(0)
            mean = posterior @ task.regression_target(grid, noisy, sigma, scores)
            torch.testing.assert_close(mean, posterior @ grid, rtol=1e-6, atol=1e-6)


def test_scores_that_are_missing_are_asked_for():
    task = ScoreModelTask(DenoiserMLP(2, 8, 1), target_score_std=0.5)
    x = torch.zeros(4, 2)
    for batch in (x, {"x": x}, {"x": x, "score": torch.zeros(4, 3)}):
        with pytest.raises(ValueError, match=r"expected gradients of the log density, .* with target_score_std"):
            task.training_step(batch, 0)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected a positive target_score_std or None"):
            ScoreModelTask(DenoiserMLP(2), target_score_std=wrong)

"""Noise paths against numerical integrals and derivatives, and conversions against each other."""

import math

import pytest
import torch
from toys import from_score

from fklit.correctors import (
    EDM,
    LinearFlow,
    LinearSigma,
    VarianceExploding,
    VariancePreserving,
    to_denoised,
    to_score,
)
from fklit.correctors.targets.conversions import PREDICTIONS
from fklit.correctors.targets.paths.noise_path import NoisePath, check_grid

PATHS = [VariancePreserving(), VarianceExploding(), EDM(), LinearFlow(), LinearSigma()]
IDS = [type(path).__name__ for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_drift_and_noise_are_those_of_scale_and_sigma(path):
    for t in (0.1, 0.5, 0.9):
        h = 1e-5
        slope = (path.log_scale(t + h) - path.log_scale(t - h)) / (2 * h)
        assert path.drift(t) == pytest.approx(slope, rel=1e-6, abs=1e-9)
        logs = [math.log(path.level(t + step)) for step in (h, -h)]
        wanted = 2 * path.sigma(t) ** 2 * (logs[0] - logs[1]) / (2 * h)
        assert path.diffusion(t) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_the_noise_of_an_interval_is_the_integral(path):
    t, s = 0.62, 0.57
    interval = path.interval(t, s)
    assert interval.noise == pytest.approx(NoisePath.noise(path, t, s), rel=1e-9)
    assert interval.growth == pytest.approx(-NoisePath.noise(_Drift(path), t, s), rel=1e-9, abs=1e-12)
    ratio = path.scale(t) / path.scale(s)
    kernel = ratio, path.sigma(t) ** 2 - (ratio * path.sigma(s)) ** 2
    assert (interval.ratio, interval.variance) == pytest.approx(kernel)


class _Drift:
    """Integrates the drift by the same nodes."""

    def __init__(self, path):
        self.diffusion = path.drift


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_forward_kernels_compose_to_the_marginal(path):
    first, second = path.forward(0.2, 0.5), path.forward(0.5, 0.8)
    whole = path.forward(0.2, 0.8)
    assert first[0] * second[0] == pytest.approx(whole[0])
    assert first[1] * second[0] ** 2 + second[1] == pytest.approx(whole[1])


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_times_of_levels_and_grids(path):
    assert path.time_at(path.level(0.3)) == pytest.approx(0.3, abs=1e-9)
    times = path.grid(7)
    assert len(times) == 8 and times[0] == path.start and times[-1] == path.stop
    assert len(check_grid(path, times)) == 7


def test_the_uniform_grid_of_edm_is_that_of_karras():
    path, n = EDM(0.02, 10.0), 10
    low, high = 0.02 ** (1 / 7), 10.0 ** (1 / 7)
    wanted = [(high + k / n * (low - high)) ** 7 for k in range(n + 1)]
    assert [path.sigma(t) for t in path.grid(n)] == pytest.approx(wanted)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_conversions_agree_with_their_definitions(path, prediction):
    scale, sigma = path.scale(0.4), path.sigma(0.4)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(5, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    x = scale * x0 + sigma * noise
    outputs = {
        "score": -noise / sigma,
        "epsilon": noise,
        "x0": x0,
        "v": scale * noise - sigma * x0,
        "flow": noise - x0,
    }
    levels = {"scale": scale, "sigma": sigma}
    torch.testing.assert_close(to_denoised(prediction, outputs[prediction], x, **levels), x0)
    torch.testing.assert_close(to_score(prediction, outputs[prediction], x, **levels), outputs["score"])
    torch.testing.assert_close(from_score(prediction, outputs["score"], x, **levels), outputs[prediction])


def test_bad_paths_and_grids():
    with pytest.raises(ValueError, match="beta_min=2"):
        VariancePreserving(2.0, 1.0)
    with pytest.raises(ValueError, match="rho=-1"):
        EDM(rho=-1.0)
    with pytest.raises(ValueError, match="start=1"):
        LinearFlow(start=1.0)
    with pytest.raises(ValueError, match="falling times 0 <= s < t <= 1"):
        VariancePreserving().interval(0.2, 0.4)
    with pytest.raises(ValueError, match="at least two"):
        check_grid(VariancePreserving(), (1.0,))
    with pytest.raises(ValueError, match="prediction='noise'"):
        to_score("noise", torch.zeros(1), torch.zeros(1), scale=1.0, sigma=1.0)

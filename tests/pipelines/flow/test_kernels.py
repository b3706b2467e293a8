"""Kernels of flow matching against closed forms: their moments, their limits, and diffusers' own solver."""

import itertools
import math

import pytest
import torch
from flow_recursion import variances

from fklit.pipelines.flow.names import _KERNELS, get_flow_kernel
from fklit.pipelines.transition import Transition, draw

VARIANCE = 0.3
NAMES = tuple(_KERNELS)


def sd3(steps):
    """The grid of SD3: shift 3, applied twice to the smallest level."""
    shifted = [3 * u / (1 + 2 * u) for u in torch.linspace(1, 3e-3 / 1.002, steps, dtype=torch.float64).tolist()]
    return [*shifted, 0.0]


def flux(steps, mu=1.15):
    """The grid of Flux at 1024 pixels: dynamic shift of n, n - 1, ..., 1 over n."""
    return [*(math.exp(mu) / (math.exp(mu) + 1 / u - 1) for u in torch.linspace(1, 1 / steps, steps).tolist()), 0.0]


def distance(kernel, grid):
    """W1 between the sampled Gaussian and the true one."""
    return abs(math.sqrt(variances(kernel, grid)[-1]) - math.sqrt(VARIANCE)) * math.sqrt(2 / math.pi)


def path_error(kernel, grid):
    truth = [(1 - s) ** 2 * VARIANCE + s**2 for s in grid[1:]]
    return max(abs(a - b) for a, b in zip(variances(kernel, grid), truth, strict=True))


@pytest.mark.parametrize("grid", [sd3, flux])
@pytest.mark.parametrize("name", NAMES)
def test_a_constant_prediction_is_kept_by_the_mean_and_noise_by_the_level(name, grid):
    """At x = (1 - s) c + s e with x0 = c the mean is (1 - s') c plus noise of at most level s'."""
    kernel = get_flow_kernel(name)
    for sigma, after in itertools.pairwise(grid(12)):
        step = kernel.coefficients(sigma, after)
        assert step.sample * (1 - sigma) + step.denoised == pytest.approx(1 - after, abs=1e-12)
        kept = step.sample * sigma
        if name in ("cps", "precise") or "dpmsolver" in name:  # closed forms: exactly the level's noise
            assert kept**2 + step.std**2 == pytest.approx(after**2, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("cps", "sde")])
def test_consistent_kernels_converge_along_the_whole_path(name):
    kernel = get_flow_kernel(name)
    errors = [path_error(kernel, flux(steps)) for steps in (25, 100, 400)]
    assert errors[0] > 2 * errors[1] > 5 * errors[2]


def test_biased_kernels_do_not_converge():
    """`cps` stays too narrow; `sde` is wrong after its first step, which is singular, and right at the end."""
    cps, sde = get_flow_kernel("cps"), get_flow_kernel("sde")
    assert [distance(cps, flux(steps)) for steps in (400, 1600, 6400)] == pytest.approx([0.070, 0.067, 0.065], abs=1e-3)
    assert path_error(sde, flux(400)) > 0.08 and distance(sde, flux(400)) < 0.003


@pytest.mark.parametrize(
    ("name", "grid", "expected"),
    [
        ("capped_dpmsolver++", sd3, (0.048, 0.006, 0.005)),
        ("capped_dpmsolver++", flux, (0.111, 0.016, 0.004)),
        ("sde-dpmsolver++", sd3, (0.294, 0.156, 0.064)),
        ("sde", sd3, (0.068, 0.026, 0.015)),
        ("cps", sd3, (0.153, 0.103, 0.092)),
    ],
)
def test_the_gaussian_column_of_the_trial(name, grid, expected):
    found = [distance(get_flow_kernel(name), grid(steps)) for steps in (10, 28, 50)]
    assert found == pytest.approx(expected, abs=0.0035)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("sde", "dance")])
def test_the_first_step_from_pure_noise_forgets_it(name):
    step = get_flow_kernel(name).coefficients(1.0, 0.9)
    if name == "cps":
        assert step.sample == pytest.approx(0.9 * math.cos(0.35 * math.pi))
    else:
        assert (step.sample, step.denoised, step.std) == pytest.approx((0.0, 0.1, 0.9))
    after = get_flow_kernel(name).coefficients(0.9, 0.8, 1.0)
    assert after.change == 0, "a step of infinite log signal-to-noise ratio gives no slope"


@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_returns_the_denoised_prediction(name):
    assert get_flow_kernel(name).coefficients(0.2, 0.0, 0.3) == get_flow_kernel("cps").coefficients(0.4, 0.0)
    sample, x0 = torch.randn(3, 4), torch.randn(3, 4)
    found = get_flow_kernel(name).transition(sample, x0, 0.2, 0.0)
    assert torch.equal(found.mean, x0) and found.std == 0
    assert torch.equal(draw(found, torch.randn(3, 4)), x0)


@pytest.mark.parametrize("steps", [6, 20])
def test_the_uncapped_kernel_is_the_solver_of_diffusers(steps):
    from diffusers import DPMSolverMultistepScheduler

    solver = DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    solver.set_timesteps(steps)
    kernel, generator = get_flow_kernel("sde-dpmsolver++"), torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=generator)
    ours, previous, before = x, None, None
    for index, t in enumerate(solver.timesteps):
        sigma, after = (float(solver.sigmas[i]) for i in (index, index + 1))
        velocity, noise = torch.tanh(x), torch.randn(4, 3, generator=generator)
        x0 = ours - sigma * torch.tanh(ours)
        moved = kernel.transition(ours, x0, sigma, after, previous=previous, previous_sigma=before)
        x = solver.step(velocity, t, x, variance_noise=noise).prev_sample
        ours = draw(moved, noise)
        torch.testing.assert_close(ours, x, rtol=2e-5, atol=2e-5)
        previous, before = x0, sigma


@pytest.mark.parametrize("name", ["sde", "dance"])
def test_euler_maruyama_is_the_sde_of_the_papers(name):
    """In velocity and score, as the authors write it."""
    x, v, sigma, after, level = torch.randn(5, 2), torch.randn(5, 2), 0.6, 0.5, 0.7
    dt, x0 = after - sigma, x - 0.6 * v
    if name == "sde":
        g = math.sqrt(sigma / (1 - sigma)) * level
        mean = x * (1 + g**2 / (2 * sigma) * dt) + v * (1 + g**2 * (1 - sigma) / (2 * sigma)) * dt
    else:
        g = level
        score = -(x - x0 * (1 - sigma)) / sigma**2
        mean = x + v * dt - 0.5 * g**2 * score * dt
    found = get_flow_kernel(name, level).transition(x, x0, sigma, after)
    torch.testing.assert_close(found.mean, mean)
    assert found.std == pytest.approx(g * math.sqrt(-dt))


def test_coefficient_preserving_at_one_is_the_stochastic_sampling_of_diffusers():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    scheduler.set_timesteps(5)
    x, v = torch.randn(4, 3), torch.randn(4, 3)
    sigma, after = (float(value) for value in scheduler.sigmas[:2])
    expected = scheduler.step(v, scheduler.timesteps[0], x, generator=torch.Generator().manual_seed(1)).prev_sample
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    moved = get_flow_kernel("cps", 1.0).transition(x, x - sigma * v, sigma, after)
    torch.testing.assert_close(draw(moved, noise), expected)


def test_log_density_is_that_of_independent_gaussians():
    mean, value = torch.randn(3, 2, 2), torch.randn(3, 2, 2)
    expected = torch.distributions.Normal(mean.double(), 0.4).log_prob(value.double()).flatten(1).sum(1)
    torch.testing.assert_close(Transition(mean, 0.4).log_density(value), expected)
    with pytest.raises(ValueError, match="standard deviation 0, which has no density"):
        Transition(mean, 0.0).log_density(value)
    with pytest.raises(ValueError, match=r"expected shape \(3, 2, 2\), got \(3, 2\)"):
        Transition(mean, 0.4).log_density(value[:, 0])


def test_what_no_kernel_takes_is_refused():
    with pytest.raises(ValueError, match=r"expected flow_kernel to be one of .*'grpo'; use"):
        get_flow_kernel("grpo")
    for name, level in (("sde", -0.1), ("cps", 1.1), ("dance", math.inf), ("precise", math.nan)):
        with pytest.raises(ValueError, match=r"expected noise_level of at least 0.*; give such a number"):
            get_flow_kernel(name, level)
    for levels in ((0.5, 0.6), (1.1, 0.5), (0.5, 0.4, 0.4), (0.5, 0.5)):
        with pytest.raises(ValueError, match="use a scheduler whose grid falls"):
            get_flow_kernel().coefficients(*levels)

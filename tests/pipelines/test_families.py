"""The table of scheduler families: whole, never across families, and right about the law that siblings sample."""

import inspect
import math
import warnings

import diffusers
import pytest
import torch
from schedulers import BETAS

import fklit
from fklit.pipelines.families import _TABLE, NoStochasticSiblingError, family_of, stochastic_sibling
from fklit.pipelines.flow.names import get_flow_kernel
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.sampler import DeterministicSamplerError, choose_sampler
from fklit.pipelines.stochasticity import SchedulerSwapWarning

EXPORTED = sorted(
    name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith(("Flax", "Karras"))
)
ARGUMENTS = {
    "AmusedScheduler": {"mask_token_id": 0},
    "RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "tan", "tsr_k": 1.0, "tsr_sigma": 1.0},
    "VQDiffusionScheduler": {"num_vec_classes": 4},
}
MEAN, STD = 1.0, 0.3


class Pipeline:
    """What `choose_sampler` looks at."""

    def __init__(self, scheduler):
        self.scheduler = scheduler


@pytest.mark.parametrize("name", EXPORTED)
def test_every_scheduler_that_diffusers_exports_has_a_row(name):
    row = _TABLE[name]
    assert (row.sibling is None) == bool(row.reason), "a refusal has a reason, and nothing else has one"
    scheduler = getattr(diffusers, name)(**ARGUMENTS.get(name, {}))
    assert family_of(scheduler) == row
    for choice in ("auto", "keep"):
        assert choose_sampler(Pipeline(scheduler), choice, eta=None, resamples=False).scheduler is None
        if row.sibling is None:
            with pytest.raises(UnsupportedPipelineError, match=rf"cannot be resampled: {name} .*best-of-n"):
                choose_sampler(Pipeline(scheduler), choice, eta=None, resamples=True)
    if row.sibling is None:
        with pytest.raises(
            UnsupportedPipelineError, match=rf"^scheduler='stochastic' .*{name} .*; set scheduler='auto'"
        ):
            choose_sampler(Pipeline(scheduler), "stochastic", eta=None, resamples=False)
    if row.sibling is not None:
        sibling, eta, described = stochastic_sibling(scheduler)
        assert family_of(sibling).family == row.family, "a sibling is of the same family"
        assert type(sibling).__name__ in described and (
            eta is None or "eta" in inspect.signature(sibling.step).parameters
        )
        assert choose_sampler(Pipeline(scheduler), "keep", eta=None, resamples=True).scheduler is None


def test_the_table_names_no_scheduler_that_does_not_exist():
    assert all(hasattr(diffusers, name) for name in _TABLE)


def test_a_subclass_has_the_row_of_its_base_and_a_stranger_none():
    class Own(diffusers.EDMEulerScheduler):
        pass

    class Stranger:
        def __init__(self):
            self.config = {}

        def step(self, model_output, timestep, sample):
            raise AssertionError

    assert type(stochastic_sibling(Own())[0]) is diffusers.EDMDPMSolverMultistepScheduler
    with pytest.raises(NoStochasticSiblingError, match="Stranger is a scheduler whose process fklit does not know"):
        stochastic_sibling(Stranger())
    for choice in ("auto", "keep"):
        with pytest.raises(UnsupportedPipelineError, match="Stranger"):
            choose_sampler(Pipeline(Stranger()), choice, eta=None, resamples=True)


@pytest.mark.parametrize("options", [{"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}])
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_a_solver_configured_for_flow_matching_is_one_of_that_family(name, options):
    scheduler = getattr(diffusers, name)(**options)
    assert family_of(scheduler).family == "flow"
    assert stochastic_sibling(scheduler)[0] is scheduler
    complete = len(options) == 1 and "use_flow_sigmas" in options
    if complete:
        assert choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=True).kernel == get_flow_kernel()
    else:
        with pytest.raises(UnsupportedPipelineError, match=r"use_flow_sigmas=False, .*build it with use_flow_sigmas"):
            choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=True)


@pytest.mark.parametrize("name", ["DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "SASolverScheduler"])
def test_other_solvers_of_flows_are_refused(name):
    scheduler = getattr(diffusers, name)(use_flow_sigmas=True, prediction_type="flow_prediction")
    with pytest.raises(NoStochasticSiblingError, match="flow-matching model by steps of its own"):
        stochastic_sibling(scheduler)


def test_a_flow_scheduler_gets_the_kernel_of_the_settings():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    found = choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=True, flow_kernel="sde", noise_level=0.5)
    assert found.kernel == get_flow_kernel("sde", 0.5) and found.scheduler is None and found.eta is None
    assert found.name == "FlowMatchEulerDiscreteScheduler with kernel sde at noise level 0.5"
    assert "scheduler='keep' to run its own" in found.swap
    assert choose_sampler(Pipeline(scheduler), "keep", eta=None, resamples=True).kernel is None
    assert choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=False).kernel is None
    with pytest.raises(DeterministicSamplerError, match="expected a noise_level above 0, got 0"):
        choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=True, noise_level=0.0)


def test_a_grid_that_ends_above_0_is_refused():
    given = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "final_sigmas_type": "sigma_min"}
    for scheduler in (diffusers.UniPCMultistepScheduler(**given), diffusers.DPMSolverMultistepScheduler(**given)):
        with pytest.raises(UnsupportedPipelineError, match="grid ends above 0"):
            choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=True)


@pytest.mark.parametrize("option", ["stochastic_sampling", "invert_sigmas"])
def test_grids_and_samplers_of_their_own_are_refused_by_name(option):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**{option: True})
    with pytest.raises(UnsupportedPipelineError, match=rf"{option}=True.*best-of-n"):
        choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=True)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_an_edm_sibling_keeps_the_noise_levels(name):
    options = {"sigma_min": 0.01, "sigma_max": 40.0, "sigma_data": 1.0, "rho": 5.0, "prediction_type": "v_prediction"}
    scheduler = getattr(diffusers, name)(**options)
    sibling, eta, described = stochastic_sibling(scheduler)
    assert eta is None and "sde-dpmsolver++" in described
    for one in (scheduler, sibling):
        one.set_timesteps(10)
    torch.testing.assert_close(sibling.sigmas, scheduler.sigmas)
    assert {key: sibling.config[key] for key in options} == options
    kept = diffusers.EDMDPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    assert stochastic_sibling(kept)[0] is kept


class EDMPipeline:
    """Samples N(1, 0.3^2) by an exact denoiser behind an EDM scheduler; pictures of 8 x 8 independent pixels."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.unet = _EDMDenoiser(scheduler)

    def __call__(self, *, batch_size, generator=None, num_inference_steps=30):
        self.scheduler.set_timesteps(num_inference_steps)
        noise = torch.stack([torch.randn(1, 8, 8, generator=source) for source in generator])
        x = noise * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            self.unet.sigma = self.scheduler.sigmas[self.scheduler.step_index or 0]
            output = self.unet(self.scheduler.scale_model_input(x, t))
            x = self.scheduler.step(output, t, x).prev_sample
        return type("Output", (), {"images": x})


class _EDMDenoiser(torch.nn.Module):
    def __init__(self, scheduler):
        super().__init__()
        self.scheduler, self.sigma = scheduler, None

    def forward(self, scaled):
        sigma, data = self.sigma, self.scheduler.config.sigma_data
        x = scaled * (sigma**2 + data**2) ** 0.5
        mean = MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)  # E[x_0 | x]
        skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2) ** 0.5
        return (mean - skip * x) / out


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_a_steered_edm_model_samples_its_own_law(name):
    """Steered at a vanishing scale, which resamples nothing but swaps the sampler: mean and std within 3 s.e."""
    pipeline = EDMPipeline(getattr(diffusers, name)(sigma_max=20.0))
    with pytest.warns(SchedulerSwapWarning, match="EDMDPMSolverMultistepScheduler"):
        result = fklit.steer(
            pipeline, reward=lambda images: images.mean((1, 2, 3)), reward_scale=1e-9, num_particles=256,
            decode=lambda x: x, pipeline_kwargs={"num_inference_steps": 60},
            reward_schedule=fklit.Schedule(0.2, 0.8, 0.2),
        )  # fmt: skip
    x = result.samples.flatten().double()
    error = STD / math.sqrt(len(x))
    assert abs(float(x.mean()) - MEAN) < 3 * error + 0.003
    assert float(x.std()) == pytest.approx(STD, abs=3 * error / math.sqrt(2) + 0.012)  # and the steps' own error
    assert type(pipeline.scheduler).__name__ == name


ZERO_SNR = (
    "DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler", "DDPMScheduler", "DDPMParallelScheduler",
    "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
    "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler",
)  # fmt: skip
DISTILLED = ("LCMScheduler", "TCDScheduler")  # for at most 50 steps
ZERO_SNR_RUNS = [
    pytest.param(name, steps, marks=[] if steps in (6, 50) else pytest.mark.slow)
    for name in ZERO_SNR
    for steps in (6, 10, 20, 30, 50, 100)
    if steps <= 50 or name not in DISTILLED
]


@pytest.mark.parametrize(("name", "steps"), ZERO_SNR_RUNS)
def test_zero_terminal_snr_is_finite_under_every_stochastic_sampler(name, steps):
    """An exact v-prediction denoiser of N(1, 0.3^2); one-step consistency samplers are checked for numbers only."""
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    given = {**BETAS, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample": False}
    given |= {"timestep_spacing": "trailing"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an alpha of 0 in a constructor
        scheduler, eta, _ = stochastic_sibling(kind(**{key: value for key, value in given.items() if key in known}))
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 1, generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = _step(scheduler, x, t, eta, generator)
        assert torch.isfinite(x).all(), f"{name} at timestep {float(t)} of {steps} steps"
    if name not in DISTILLED and steps >= 50:  # their step error at eta 1 narrows the law
        bound = 0.09 if name.startswith("Cog") else 0.08  # whose steps are longer where noise is high
        assert float(x.mean()) == pytest.approx(MEAN, abs=0.02) and float(x.std()) == pytest.approx(STD, abs=bound)


@pytest.mark.parametrize(("name", "step_error"), [("DDIMScheduler", 0.003), ("CogVideoXDDIMScheduler", 0.013)])
def test_the_law_of_a_zero_snr_model_is_right_as_steps_become_small(name, step_error):
    """N(1, 0.3^2) by 1,000 steps of DDIM with the eta that is forced: mean and std within 3 s.e."""
    given = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler, eta, described = stochastic_sibling(getattr(diffusers, name)(**BETAS, clip_sample=False, **given))
    assert described == "DDIMScheduler with eta=0.999"
    scheduler.set_timesteps(1000)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, 1, generator=generator)
    for t in scheduler.timesteps:
        x = _step(scheduler, x, t, eta, generator)
    assert abs(float(x.mean()) - MEAN) < 3 * STD / 200
    assert abs(float(x.std()) - STD) < 3 * STD / 200 / 2**0.5 + step_error  # and the error of a thousand steps


def test_the_sibling_of_a_scheduler_that_ignores_its_clip_does_not_clip():
    assert diffusers.CogVideoXDDIMScheduler().config.clip_sample
    sibling, eta, _ = stochastic_sibling(diffusers.CogVideoXDDIMScheduler())
    assert not sibling.config.clip_sample and eta == 1.0
    assert torch.equal(sibling.alphas_cumprod, diffusers.CogVideoXDDIMScheduler().alphas_cumprod)


def _step(scheduler, x, t, eta, generator):
    levels = scheduler.alphas_cumprod.double()
    low = int(t)
    share = float(t) - low
    alpha_bar = (1 - share) * levels[low] + share * levels[min(low + 1, len(levels) - 1)]
    alpha, sigma = float(alpha_bar) ** 0.5, (1 - float(alpha_bar)) ** 0.5
    seen = scheduler.scale_model_input(x, t)
    mean = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (seen - alpha * MEAN)
    velocity = alpha * (seen - alpha * mean) / sigma - sigma * mean if sigma > 0 else -mean
    given = {} if eta is None else {"eta": eta}
    return scheduler.step(velocity.float(), t, x, generator=generator, **given).prev_sample


def test_eta_one_at_zero_terminal_snr_is_refused_with_the_fix():
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", **BETAS)
    for choice in ("auto", "keep"):
        with pytest.raises(UnsupportedPipelineError, match=r"got eta=1, .*; use eta=0\.999"):
            choose_sampler(Pipeline(scheduler), choice, eta=1.0, resamples=True)
    assert choose_sampler(Pipeline(scheduler), "auto", eta=None, resamples=True).eta == 0.999
    assert choose_sampler(Pipeline(scheduler), "auto", eta=0.9, resamples=True).eta is None

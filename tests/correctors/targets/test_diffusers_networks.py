"""Networks and schedulers of diffusers as experts, against the exact law and the scheduler's own numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fklit.analytic import GaussianMixture
from fklit.correctors import SchedulerPath, ScoreModel, Target, VariancePreserving, simulate

LAW = GaussianMixture([[-1.5, 0.3], [1.2, -0.4]], [0.15, 0.30], [0.35, 0.65])
X = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def schedulers() -> list:
    import diffusers

    return [
        diffusers.DDPMScheduler(),
        diffusers.DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        diffusers.DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2"),
        diffusers.EulerDiscreteScheduler(num_train_timesteps=100),
    ]


class Exact(nn.Module):
    """The exact network of a law, with the signature and output of diffusers; it checks how it is called."""

    def __init__(self, path: SchedulerPath, kind: str) -> None:
        super().__init__()
        self.path, self.kind = path, kind
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, sample, timestep, encoder_hidden_states=None, return_dict=True):
        assert sample.dtype == timestep.dtype == torch.float32
        t = self.path.time_of(float(timestep[0]))
        a, s, x = self.path.scale(t), self.path.sigma(t), sample.double()
        noise = -s * LAW.score(x, a, s)
        clean = (x - s * noise) / a
        output = {"epsilon": noise, "sample": clean, "v_prediction": a * noise - s * clean}[self.kind]
        return SimpleNamespace(sample=self.dropout(output.float() + self.weight))


@pytest.mark.parametrize("scheduler", schedulers(), ids=lambda s: type(s).__name__)
def test_the_path_is_the_schedulers_own_at_its_timesteps(scheduler) -> None:
    path = SchedulerPath.of(scheduler)
    for k, known in enumerate(scheduler.alphas_cumprod.tolist()):
        t = path.time_of(k)
        assert path.alpha_bar(t) == pytest.approx(known, abs=1e-6)
        assert path.scale(t) ** 2 + path.sigma(t) ** 2 == pytest.approx(1.0, abs=1e-12)
        assert path.time_at(path.level(t)) == pytest.approx(t, abs=1e-9)
        assert path.timestep(t) == pytest.approx(k, abs=1e-9)
    assert path.alpha_bar(0.0) == 1.0 and path.timestep(path.grid(10)[-1]) == pytest.approx(0.0, abs=1e-9)


def test_drift_and_diffusion_are_those_of_the_levels() -> None:
    path = SchedulerPath.of(schedulers()[1])
    for t in (0.2503, 0.7504):
        slope = (path.log_scale(t + 1e-6) - path.log_scale(t - 1e-6)) / 2e-6
        assert path.drift(t) == pytest.approx(slope, rel=1e-4)
        assert path.diffusion(t) == pytest.approx(-2 * slope, rel=1e-4)
    assert path.noise(0.8, 0.3) == pytest.approx(path.log_scale(0.3) * 2 - path.log_scale(0.8) * 2)
    assert path.alpha_bar(0.5005) == pytest.approx(0.278, abs=1e-3)
    assert VariancePreserving().scale(0.5) ** 2 == pytest.approx(0.079, abs=1e-3)
    assert "1000 levels" in repr(path) and path == SchedulerPath.of(schedulers()[1])


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_every_prediction_type_is_the_exact_score(kind: str) -> None:
    import diffusers

    scheduler = diffusers.DDIMScheduler(prediction_type=kind, clip_sample=False)
    path = SchedulerPath.of(scheduler)
    network = Exact(path, kind).train()
    expert = ScoreModel.from_scheduler(network, scheduler, event_shape=(2,)).given()
    for t in (0.1, 0.5, 0.9):
        score = expert.score(X, t)
        assert score.dtype == torch.float64
        known = LAW.score(X, path.scale(t), path.sigma(t))
        torch.testing.assert_close(score, known, atol=2e-4, rtol=2e-4)
    assert network.training and network.dropout.training  # as it was, and no dropout in between


def test_a_wrapped_network_samples_its_law() -> None:
    scheduler = schedulers()[0]
    model = ScoreModel.from_scheduler(Exact(SchedulerPath.of(scheduler), "epsilon"), scheduler, event_shape=(2,))
    run = simulate(Target.annealed(model.given(), 1.0), num_particles=500, num_groups=4, dtype=torch.float64)
    mean, variance = LAW.moments()
    values = run.mean()
    assert bool(((values.mean(0) - mean).abs() < 4 * values.std(0) / 2).all())
    squares = run.mean(lambda x: (x - mean).square())
    assert bool(((squares.mean(0) - variance).abs() < 4 * squares.std(0) / 2 + 0.02).all())


def networks() -> list:
    import diffusers

    torch.manual_seed(0)
    conditional = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=6,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    labeled = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        num_class_embeds=3,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=2,
        out_channels=4,  # with a learned variance
        num_layers=1,
        sample_size=8,
        norm_num_groups=4,
        num_embeds_ada_norm=3,
    )
    return [
        (conditional, torch.randn(2, 5, 6), {"encoder_hidden_states": torch.randn(1, 5, 6)}),
        (labeled, torch.tensor([0, 2]), {"class_labels": torch.tensor([1])}),
        (transformer, torch.tensor([0, 2]), torch.tensor([1])),
    ]


@pytest.mark.parametrize("number", range(3))
def test_unets_and_transformers_are_called_as_they_are(number: int) -> None:
    network, condition, other = networks()[number]
    network.train()
    scheduler = schedulers()[0]
    model = ScoreModel.from_scheduler(network, scheduler, event_shape=(2, 8, 8), max_batch=5)
    x = torch.randn(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    path = SchedulerPath.of(scheduler)
    t = path.time_of(400)
    score = model.given(condition).score(x, t)
    name = "encoder_hidden_states" if number == 0 else "class_labels"
    network.eval()
    with torch.no_grad():
        rows = condition.repeat_interleave(3, dim=0)
        output = network(x.flatten(0, 1).float(), timestep=torch.full((6,), 400.0), **{name: rows}).sample[:, :2]
    known = (-output.double() / path.sigma(t)).reshape(x.shape)
    torch.testing.assert_close(score, known, atol=1e-4, rtol=1e-4)
    # Experts of one network share a call; here both conditions have the same form.
    both = {name: condition} if isinstance(other, dict) else condition
    target = Target.guided(model.given(both), model.given(other), np.float32(2.0))
    run = simulate(target, num_particles=2, num_groups=2, times=np.linspace(1.0, path.stop, 4))
    assert run.samples.shape == (2, 2, 2, 8, 8) and bool(run.samples.isfinite().all())


def test_numbers_of_numpy_and_torch_are_exponents() -> None:
    law = LAW.on(VariancePreserving())
    plain = Target.guided(law, law, 2.0).exponents(0.5)
    for scale in (np.float32(2.0), torch.tensor(2.0), np.array(2.0)):
        assert Target.guided(law, law, scale).exponents(0.5) == plain


def test_what_cannot_be_right_is_refused_by_name() -> None:
    import diffusers

    with pytest.raises(TypeError, match="for flow matching use"):
        SchedulerPath.of(diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="rescale_betas_zero_snr=False"):
        SchedulerPath((0.9, 0.5, 0.0))
    network, _, _ = networks()[0]
    model = ScoreModel.from_scheduler(network, schedulers()[0], event_shape=(2, 8, 8))
    with pytest.raises(TypeError, match=r"expected conditions that UNet2DConditionModel takes, got \['prompt'\]"):
        model.given({"prompt": torch.zeros(1, 2)}).score(torch.zeros(1, 1, 2, 8, 8), 0.5)
    bad = ScoreModel(lambda x, time: None, VariancePreserving(), event_shape=(2,)).given()
    with pytest.raises(TypeError, match="wrap the network in a function"):
        bad.score(X, 0.5)
